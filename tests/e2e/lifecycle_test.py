"""Stacks while programs start, exec, load, unload, make code, and lose the files that they run."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from conftest import ROOT, Attached

SOURCES = ROOT / "tests" / "workloads" / "lifecycle"
# The others were taken before there was a table for their code: a few milliseconds' worth of each
# second, on two busy CPUs more.
MOST = 0.8


def build(source, output, *flags):
    subprocess.run(["gcc", "-O2", "-fomit-frame-pointer", "-pthread", *flags, "-o", output,
                    SOURCES / source, "-ldl"], check=True)
    return output


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lifecycle")
    build("host.c", folder / "host", "-rdynamic")
    build("plugin.c", folder / "plugin.so", "-shared", "-fPIC")
    build("plugin.c", folder / "other.so", "-shared", "-fPIC", "-DPADDING=500",
          "-DFILLER=8192", "-DNAME(what)=other_##what")
    return folder


class Host:
    """tests/workloads/lifecycle/host.c at work."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.expect("ready")
        self.pid = self.process.pid

    def expect(self, word):
        line = self.process.stdout.readline()
        assert line == word + "\n", line

    def tell(self, *lines, answer="done"):
        for line in lines:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            self.expect(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)


class Report:
    def __init__(self, attached):
        attached.process.send_signal(signal.SIGINT)
        self.document = json.loads(attached.finish())
        self.stacks = self.document["capture"]["quality"]["stacks"]
        self.rows = self.document["wait_sites"] + self.document["holders"]

    def through(self, function, pid=None):
        return [row for row in self.rows if pid in (None, row["pid"])
                and any(f["function"] == function for f in row["frames"])]

    def assert_mostly_whole(self, function, pid=None):
        rows = self.through(function, pid)
        whole = sum(row["count"] for row in rows if row["complete"])
        assert whole >= MOST * sum(row["count"] for row in rows) > 0
        # What is not says why, and is in the sums.
        early = [row for row in rows if not row["complete"]]
        assert {row["incomplete_because"] for row in early} <= {"code not known yet"}
        counted = self.stacks["incomplete"].get("code not known yet", {"waits": 0, "releases": 0})
        assert sum(row["count"] for row in early) <= counted["waits"] + counted["releases"]


def record(*target):
    return Attached("report", *target, "-d", 60, "--format", "json")


def functions(row, module):
    return [f["function"] for f in row["frames"] if f["module"] == module]


def test_a_library_loaded_after_we_attached(programs):
    with Host(programs / "host") as host:
        recording = record("-p", host.pid)
        host.tell(f"load {programs / 'plugin.so'}", "work 1")
        Report(recording).assert_mostly_whole("plugin_hold")


def test_a_library_in_the_place_of_another(programs):
    with Host(programs / "host") as host:
        recording = record("-p", host.pid)
        for name in ("plugin", "other") * 3:
            host.tell(f"load {programs / name}.so", "work 0.2", "unload")
        report = Report(recording)
    # No stack of the one by the table of the other: what is called whole has all of its frames.
    rows = [row for row in report.rows if row["complete"]
            and any("mutex" in f["function"] for f in row["frames"])]
    assert sum(row["count"] for row in rows) > 100
    for row in rows:
        modules = [f["module"] for f in row["frames"]]
        assert len([m for m in modules if m != "libc.so.6"]) == 3, row
        # Nor names of the one for the other: in a place that both had there are none.
        names = [f["function"].removeprefix("plugin_").removeprefix("other_")
                 for f in row["frames"] if f["module"] in ("plugin.so", "other.so")]
        assert names in ([], ["hold", "middle", "thread"]), row


def test_starts_and_execs_while_all_is_watched(programs):
    recording = record("-a")
    successor = programs / "successor"
    shutil.copy(programs / "host", successor)
    with Host(programs / "host") as one, Host(programs / "host") as two:
        one.tell(f"exec {successor}", answer="ready")
        for host in (one, two):
            host.tell(f"load {programs / 'plugin.so'}", "work 1")
        report = Report(recording)
    for host in (one, two):
        report.assert_mostly_whole("plugin_hold", host.pid)
    comms = {p["pid"]: p["comm"] for p in report.document["processes"] if p["lock_wait_ns"] > 0}
    assert (comms[one.pid], comms[two.pid]) == ("successor", "host")


def test_code_made_at_run_time_is_never_called_whole(programs):
    with Host(programs / "host") as host:
        recording = record("-p", host.pid)
        host.tell("made 0.5")
        report = Report(recording)
    rows = report.through("host_hold")
    assert sum(row["count"] for row in rows) > 100
    assert not any(row["complete"] for row in rows)
    reasons = {"code not known yet", "code without unwind information"}
    assert {row["incomplete_because"] for row in rows} <= reasons
    counted = sum(report.stacks["incomplete"][reason][kind] for reason in reasons
                  if reason in report.stacks["incomplete"] for kind in ("waits", "releases"))
    assert counted >= sum(row["count"] for row in rows)


def copies(programs, folder):
    for name in ("host", "plugin.so"):
        shutil.copy(programs / name, folder / name)


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_files_that_are_gone(programs, tmp_path, fate):
    copies(programs, tmp_path)
    with Host(tmp_path / "host") as host:
        host.tell(f"load {tmp_path / 'plugin.so'}")
        for name in ("host", "plugin.so"):
            (tmp_path / name).unlink()
            if fate == "replaced":
                shutil.copy(programs / "other.so", tmp_path / name)
        recording = record("-p", host.pid)
        host.tell("work 1")
        report = Report(recording)
    report.assert_mostly_whole("plugin_hold")
    assert any(functions(row, "plugin.so") == ["plugin_hold", "plugin_middle", "thread"]
               for row in report.rows)
    assert not report.through("other_hold")


def enter_namespace(programs, folder):
    """Files on a file system that nobody else sees."""
    return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$2" && cp "$1"/* "$2" && exec "$2/host"',
            "sh", programs, folder], folder / "plugin.so"


def enter_root(programs, folder):
    """Files where another root says that they are."""
    copies(programs, folder)
    ldd = subprocess.run(["ldd", programs / "host"], capture_output=True, text=True, check=True)
    for word in ldd.stdout.split():
        if word.startswith("/"):
            library = pathlib.Path(word)
            (folder / library.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
            shutil.copy(library, folder / library.relative_to("/"))
    return ["chroot", folder, "/host"], "/plugin.so"


@pytest.mark.parametrize("enter", [enter_namespace, enter_root])
def test_containers(programs, tmp_path, enter):
    command, plugin = enter(programs, tmp_path)
    with Host(*command) as host:
        recording = record("-p", host.pid)
        host.tell(f"load {plugin}", "work 1")
        report = Report(recording)
    report.assert_mostly_whole("plugin_hold")
    assert any(functions(row, "plugin.so") == ["plugin_hold", "plugin_middle", "thread"]
               for row in report.rows)


def test_before_there_is_a_table(programs):
    """The helper that builds tables is stopped: what is seen meanwhile is not called whole."""
    with Host(programs / "host") as host:
        recording = record("-p", host.pid)
        children = pathlib.Path(f"/proc/{recording.process.pid}/task/{recording.process.pid}/children")
        helpers = [int(pid) for pid in children.read_text().split()
                   if pathlib.Path(f"/proc/{pid}/comm").read_text() == "lockscope-parse\n"]
        for helper in helpers:
            os.kill(helper, signal.SIGSTOP)
        host.tell(f"load {programs / 'plugin.so'}", "work 0.3")
        report = Report(recording)
    early = [row for row in report.through("plugin_hold") if row["complete"] is False]
    assert helpers and early
    assert {row["incomplete_because"] for row in early} == {"code not known yet"}
    assert report.stacks["incomplete"]["code not known yet"]["waits"] > 0
