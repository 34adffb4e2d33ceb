"""The census: where every thread of a running process is, and who waits for whom."""
import json
import subprocess

import jsonschema
import pytest

from conftest import ROOT, run, workload


@pytest.fixture
def parked():
    """Starts a program; returns its process and what it says about itself once it is ready."""
    started = []

    def start(name, **options):
        process = subprocess.Popen(workload(name, **options), stdout=subprocess.PIPE, text=True)
        started.append(process)
        return json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def census(pid):
    done = run("threads", "--format", "json", "-p", pid)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    schema = json.loads((ROOT / "docs" / "threads.schema.json").read_text())
    jsonschema.validate(document, schema)
    return document


def threads_by_tid(document):
    return {thread["tid"]: thread for thread in document["processes"][0]["threads"]}


def functions(document, thread):
    return [frame["function"].split("::")[-1] for frame in document["stacks"][thread["stack"]]["frames"]]


def test_every_thread_and_its_stack(parked):
    own = parked("parked", threads=1000)
    document = census(own["pid"])
    threads = document["processes"][0]["threads"]
    assert len(threads) == own["threads"] + 2
    held = {"mutex": 0, "cond": 0, "sem": 0, "join": 0, "read": 0, "nanosleep": 0}
    for thread in threads:
        if thread["tid"] == own["pid"] or thread["state"] in ("running", "runnable"):
            continue
        names = functions(document, thread)
        where = [name for name in names if name.startswith("park_")]
        assert len(where) == 1 and names.count("descend") == 21 and thread["complete"], names
        held[where[0].removeprefix("park_")] += 1
        waits = thread["waits_for"]
        kind = where[0].removeprefix("park_")
        assert (waits["kind"] if waits else None) == (
            kind if kind in ("mutex", "cond", "sem", "join") else None)
        if kind == "mutex":
            assert waits["address"] == own["held"] and waits["holder"] == own["pid"]
    assert held == {kind: own[kind] for kind in held}
    # The kernel's iterator does not wait for them; most of 1,000 were asleep all the while.
    assert document["census"]["quality"]["complete_stacks"] >= own["threads"]


def test_asleep_for_as_long_as_it_was(parked):
    own = parked("deadlock", mode="cycle")
    first = threads_by_tid(census(own["pid"]))
    second = threads_by_tid(census(own["pid"]))
    for tid in own["tids"]:
        assert 0 < first[tid]["asleep_ns"] < second[tid]["asleep_ns"] < 60e9


@pytest.mark.parametrize("mode,size,behind", [("cycle", 3, 1), ("self", 1, 1), ("timed", 2, 1),
                                              ("join", None, 1)])
def test_cycles(parked, mode, size, behind):
    own = parked("deadlock", mode=mode)
    document = census(own["pid"])
    assert len(document["cycles"]) == 1
    cycle = document["cycles"][0]
    if mode == "join":  # the thread that is joined has no name of its own
        assert own["tids"][0] in cycle["threads"] and len(cycle["threads"]) == 2
    else:
        assert sorted(cycle["threads"]) == sorted(own["tids"]) and len(own["tids"]) == size
    assert sorted(cycle["behind"]) == sorted(own["behind"]) and len(own["behind"]) == behind
    threads = threads_by_tid(document)
    for i, tid in enumerate(cycle["threads"]):
        following = cycle["threads"][(i + 1) % len(cycle["threads"])]
        assert threads[tid]["waits_for"]["holder"] == following
    text = run("threads", "-p", own["pid"]).stdout
    assert text.count("DEADLOCK") == 1


@pytest.mark.parametrize("mode", ["forgotten", "ended"])
def test_forgotten_unlock(parked, mode):
    own = parked("deadlock", mode=mode)
    document = census(own["pid"])
    assert document["cycles"] == []
    threads = threads_by_tid(document)
    for tid in own["behind"]:
        waits = threads[tid]["waits_for"]
        assert waits["kind"] == "mutex" and waits["address"] == own["locks"][0]
        if mode == "ended":
            assert waits["holder"] is None and waits["lost_holder"] == own["tids"][0]
        else:
            assert waits["holder"] == own["tids"][0] and waits["lost_holder"] is None


def test_no_cycle_among_the_healthy(parked):
    own = parked("deadlock", mode="healthy")
    for _ in range(20):
        assert census(own["pid"])["cycles"] == []


def test_mistakes(parked):
    for arguments, code in [(["threads"], 2), (["threads", "-p", "1", "--format", "yaml"], 2),
                            (["threads", "-p", "4194303"], 1)]:
        done = run(*arguments)
        assert done.returncode == code and len(done.stderr.splitlines()) == 1, done.stderr
