"""Runs lockscope on real programs. All of this needs root and a kernel with BTF."""
import json
import os
import pathlib
import subprocess
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
LOCKSCOPE = BUILD / "lockscope"
WORKLOADS = BUILD / "workloads"


@pytest.fixture(autouse=True)
def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root: loads BPF programs")


class Diagnosis:
    """A diagnosis as JSON, with what the traced command printed about itself."""

    def __init__(self, document, own):
        self.document = document
        self.own = own
        self.capture = document["capture"]
        self.quality = document["capture"]["quality"]
        self.processes = document["processes"]
        self.findings = document["findings"]

    def total(self, field):
        return sum(process[field] for process in self.processes)

    def of_kind(self, kind):
        return [f for f in self.findings if f["site"]["kind"] == kind]

    def functions(self, finding, stacks="waiter_stacks"):
        """The functions of the stack with most time."""
        return [frame["function"] for frame in finding[stacks][0]["frames"]]


def run(*arguments, **options):
    return subprocess.run([LOCKSCOPE, *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, **options)


def workload(name, **options):
    """The command line of a test program: option names with '_' for '-'."""
    command = [str(WORKLOADS / name)]
    for option, value in options.items():
        command += [f"--{option.replace('_', '-')}", str(value)]
    return command


def trace_command(command, tmp_path):
    """Diagnoses a command from its first instruction to its end."""
    output = tmp_path / "diagnosis.json"
    done = run("diagnose", "--format", "json", "-o", output, "--", *command)
    assert done.returncode == 0, done.stderr
    own = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Diagnosis(json.loads(output.read_text()), own[-1] if own else None)


class Attached:
    """lockscope attached to something that runs, until finish()."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([LOCKSCOPE, *map(str, arguments)], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stderr.readline()
        assert "recording" in line, line + self.process.stderr.read()

    def finish(self):
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        return out


@pytest.fixture
def trace(tmp_path):
    return lambda name, **options: trace_command(workload(name, **options), tmp_path)


class Server:
    """A real program that runs, and its load: scripts/real-programs."""

    def __init__(self, name, folder):
        self.script = ROOT / "scripts" / "real-programs" / f"{name}.sh"
        self.folder = folder
        self.pid = int(self.call("start").rsplit("PID=", 1)[1])

    def call(self, action, *arguments):
        # To a file: a server that is left running would keep a pipe open.
        log = self.folder / f"{action}.out"
        with log.open("w") as out:
            done = subprocess.run(["bash", self.script, action, self.folder, *map(str, arguments)],
                                  stdout=out, stderr=subprocess.STDOUT, timeout=300)
        assert done.returncode == 0, log.read_text()
        return log.read_text().strip()


@pytest.fixture
def server():
    started = []
    # Not pytest's folder: servers drop root and could not reach it.
    with tempfile.TemporaryDirectory(prefix="lockscope-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)

        def start(program):
            started.append(Server(program, folder))
            return started[-1]

        try:
            yield start
        finally:
            for running in started:
                running.call("stop")
