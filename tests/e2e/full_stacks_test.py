"""Stacks of real programs are whole, by the tool's own count, and are what elfutils finds."""
import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT, Attached

LANGUAGES = ROOT / "tests" / "workloads" / "languages"
SECONDS = 3
BAR = 0.99
# Debian's, whose standard library has no frame pointers either.
DEBIAN = "/usr/bin:/usr/sbin"


def need(program):
    path = shutil.which(program, path=DEBIAN) or shutil.which(program)
    if not path:
        pytest.skip(f"no {program} here")
    return path


def attached_to(*target, load=lambda: None):
    attached = Attached("report", *target, "-d", SECONDS, "--format", "json")
    load()
    return json.loads(attached.finish())


def assert_whole(report, measures=("waits", "wait_ns", "releases")):
    stacks = report["capture"]["quality"]["stacks"]
    assert stacks["all"]["waits"] >= 10
    for measure in measures:
        assert stacks["whole"][measure] >= BAR * stacks["all"][measure], (measure, stacks)
    for row in report["wait_sites"] + report["holders"]:
        assert row["complete"] == (row["incomplete_because"] is None)


# Comm of the processes, where they are several.
@pytest.mark.parametrize("program, comm", [
    ("memcached", None), ("redis", None), ("nginx", "nginx"), ("rocksdb", None),
    ("postgresql", "postgres"), ("mariadb", None)])
def test_servers_under_load(server, program, comm):
    running = server(program)
    target = ("--comm", comm) if comm else ("-p", running.pid)
    assert_whole(attached_to(*target, load=lambda: running.call("load", SECONDS)))


def report_of(*command):
    """Of a program once it says "at work", which it is for longer than we look."""
    process = subprocess.Popen([*command, str(SECONDS + 30)], text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "at work\n"
        return attached_to("-p", process.pid)
    finally:
        process.kill()
        process.wait()


def test_rust(tmp_path):
    program = tmp_path / "contended"
    subprocess.run([need("rustc"), "-O", "-o", program, LANGUAGES / "contended.rs"], check=True)
    report = report_of(program)
    assert_whole(report)
    functions = {f["function"] for row in report["wait_sites"] for f in row["frames"]}
    assert any(f.endswith("contended::insert") for f in functions)


def test_go(tmp_path):
    program = tmp_path / "contended"
    subprocess.run([need("go"), "build", "-o", program, LANGUAGES / "contended.go"], check=True,
                   env={**os.environ, "GOCACHE": str(tmp_path / "cache")})
    assert_whole(report_of(program))


def test_python():
    assert_whole(report_of(need("python3"), LANGUAGES / "gil.py"))


def java(folder, *options):
    subprocess.run([need("javac"), "-d", folder, LANGUAGES / "Contended.java"], check=True)
    return report_of(need("java"), *options, "-Xmx64m", "-cp", folder, "Contended")


def is_made_code(frame):
    return frame["module"] in ("[anon]", "[jit]")


def test_openjdk_own_threads(tmp_path):
    """The JVM's: compilers, collectors, the VM thread. Java code has no unwind information."""
    report = java(tmp_path)
    for kind in ("wait_sites", "holders"):
        through_java = [row for row in report[kind] if any(map(is_made_code, row["frames"]))]
        own = [row for row in report[kind] if row["frames"] and row not in through_java]
        assert own and through_java
        for measure in ("count", "ns"):
            whole = sum(row[measure] for row in own if row["complete"])
            assert whole >= BAR * sum(row[measure] for row in own), (kind, measure)
        # And the tool does not pretend.
        assert {row["incomplete_because"] for row in through_java} <= {
            "code without unwind information", "code not known yet"}
        assert not any(row["complete"] for row in through_java)


def test_openjdk_with_frame_pointers(tmp_path):
    report = java(tmp_path, "-XX:+PreserveFramePointer")
    assert_whole(report)
    assert any(is_made_code(f) for row in report["wait_sites"] for f in row["frames"])


def eu_stacks(pid):
    """The addresses of each thread, as lockscope gives them: callers' are within the call."""
    out = subprocess.run([need("eu-stack"), "-q", "-p", str(pid)], capture_output=True, text=True,
                         timeout=60).stdout
    stacks = set()
    for thread in out.split("TID ")[1:]:
        pcs = [int(pc, 16) for pc in re.findall(r"^#\d+ +(0x[0-9a-f]+)", thread, re.M)]
        # The kernel's vsyscall aside, only the innermost frame's address is that of an instruction.
        stacks.add(tuple(pc - (depth > 0) for depth, pc in enumerate(pcs)))
    return stacks


@pytest.mark.parametrize("program", ["mariadb", "redis", "memcached"])
def test_parked_threads_as_elfutils_sees_them(server, program):
    """Threads that sleep for long: in conditions, since before we attached."""
    running = server(program)
    report = attached_to("-p", running.pid)
    asleep = {tuple(int(a, 16) for a in row["addresses"]) for row in report["wait_sites"]
              if row["complete"] and report["locks"][row["lock"]]["wait"]["in_flight"] > 0}
    assert asleep
    # One that wakes up now and then may be elsewhere at the moment that elfutils looks.
    seen = set()
    for _ in range(10):
        seen |= eu_stacks(running.pid)
        if asleep <= seen:
            break
    assert asleep <= seen, [[hex(a) for a in stack] for stack in asleep - seen]
