"""The helper process that reads the traced programs' files, as it is in use."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from conftest import LOCKSCOPE, workload


def helper_of(process):
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    helpers = [int(pid) for pid in children
               if pathlib.Path(f"/proc/{pid}/comm").read_text() == "lockscope-parse\n"]
    assert len(helpers) == 1
    return helpers[0]


@pytest.fixture
def service():
    process = subprocess.Popen(workload("timed_mutex", seconds=60, holder="sleep", think_us=50),
                               stdout=subprocess.DEVNULL)
    yield process
    process.terminate()
    process.wait()


class Recording:
    """lockscope, attached; by way of a copy of it that is removed meanwhile."""

    def __init__(self, service, folder):
        copy = folder / "lockscope"
        shutil.copy(LOCKSCOPE, copy)
        self.process = subprocess.Popen(
            [copy, "diagnose", "-p", str(service.pid), "-d", "3", "--format", "json"], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stderr.readline()
        assert "recording" in line, line + self.process.stderr.read()
        copy.unlink()

    def finish(self):
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        return json.loads(out)


def functions(document):
    return {frame["function"] for finding in document["findings"]
            for stack in finding["waiter_stacks"] for frame in stack["frames"]}


def test_the_helper_is_locked_in(service, tmp_path):
    recording = Recording(service, tmp_path)
    status = pathlib.Path(f"/proc/{helper_of(recording.process)}/status").read_text()
    document = recording.finish()
    for line in ("Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1",
                 "Seccomp:\t2"):
        assert line in status.splitlines()
    assert not any("not read" in reason for reason in document["capture"]["quality"]["lost"])
    lines = [frame for finding in document["findings"] for stack in finding["waiter_stacks"]
             for frame in stack["frames"] if frame["line"]]
    assert lines, "source lines come out of the sandbox, too"


def test_a_helper_that_dies_is_replaced(service, tmp_path):
    recording = Recording(service, tmp_path)
    os.kill(helper_of(recording.process), signal.SIGKILL)
    document = recording.finish()
    assert "SessionStore::append" in functions(document)
    assert document["capture"]["quality"]["lost"]["files not read: the parser crashed"] == 1


def test_a_helper_that_hangs_is_replaced(service, tmp_path):
    recording = Recording(service, tmp_path)
    os.kill(helper_of(recording.process), signal.SIGSTOP)
    document = recording.finish()
    assert "SessionStore::append" in functions(document)
    assert document["capture"]["quality"]["lost"]["files not read: took too long"] == 1
