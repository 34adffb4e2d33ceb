"""The command line as users and scripts meet it: targets, exit codes, one line for each mistake,
captures that replay without root."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import jsonschema
import pytest

from conftest import LOCKSCOPE, ROOT, WORKLOADS, Attached, run, workload


def schema(name):
    return json.loads((ROOT / "docs" / f"{name}.schema.json").read_text())


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A saved capture of a contended program."""
    path = tmp_path_factory.mktemp("capture") / "mutex.capture"
    done = run("record", "-o", path, "--", *workload("timed_mutex", seconds=1, think_us=50))
    assert done.returncode == 0, done.stderr
    path.chmod(0o644)
    for folder in path.parents:
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    return path


@pytest.fixture
def service():
    """A contended program that runs on its own until stopped."""
    process = subprocess.Popen(
        workload("timed_mutex", seconds=60, holder="sleep", think_us=50),
        stdout=subprocess.DEVNULL)
    yield process
    process.terminate()
    process.wait()


# --- mistakes: one clear line and the right exit code -------------------------------------------

USAGE, FAILED, UNSUPPORTED = 2, 1, 77


@pytest.mark.parametrize("arguments,code,says", [
    ([], USAGE, "subcommand"),
    (["frobnicate"], USAGE, ""),
    (["diagnose"], USAGE, "no target"),
    (["diagnose", "--frob"], USAGE, "--frob"),
    (["diagnose", "-p", "abc"], USAGE, "abc"),
    (["diagnose", "-p", "1", "-a"], USAGE, "more than one"),
    (["diagnose", "-a", "-d", "0"], USAGE, "duration"),
    (["diagnose", "-a", "-d", "nan"], USAGE, "duration"),
    (["diagnose", "-a", "--format", "xml"], USAGE, "xml"),
    (["report", "-a", "--sort", "size"], USAGE, "size"),
    (["flame", "-a", "--metric", "heat"], USAGE, "heat"),
    (["record", "-a"], USAGE, "-o"),
    (["diagnose", "--"], USAGE, "command"),
    (["diagnose", "-p", "99999999"], FAILED, "no such process: 99999999"),
    (["diagnose", "-p", "2"], FAILED, "kernel thread"),
    (["diagnose", "--cgroup", "/no/such/group"], FAILED, "/no/such/group"),
    (["diagnose", "--", "/no/such/program"], FAILED, "No such file"),
    (["report", "/no/such/capture"], FAILED, "/no/such/capture"),
    (["report", "/etc/passwd"], FAILED, "not a lockscope capture"),
    (["record", "-a", "-o", "/no/such/folder/file"], FAILED, "/no/such/folder/file"),
])
def test_mistakes(arguments, code, says):
    done = run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("lockscope: ")
    assert says in done.stderr


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_capture(capture, tmp_path, share):
    whole = capture.read_bytes()
    part = tmp_path / "part"
    part.write_bytes(whole[:int(len(whole) * share)])
    done = run("report", part)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr.count("\n") == 1


def test_damaged_capture(capture, tmp_path):
    bytes_ = bytearray(capture.read_bytes())
    damaged = tmp_path / "damaged"
    for at in range(0, len(bytes_), max(1, len(bytes_) // 200)):
        bytes_[at] ^= 0x55
        damaged.write_bytes(bytes_)
        done = run("report", damaged)
        bytes_[at] ^= 0x55
        # A flipped bit in what the checksum does not cover changes nothing.
        assert done.returncode in (0, FAILED), done.stderr
        assert done.stderr.count("\n") <= 1


def as_nobody(*arguments):
    return run(*arguments, user="nobody", group="nogroup", extra_groups=[])


def test_not_root(tmp_path):
    binary = pathlib.Path("/tmp") / f"lockscope-test-{os.getpid()}"
    binary.write_bytes(LOCKSCOPE.read_bytes())
    binary.chmod(0o755)
    try:
        done = subprocess.run([binary, "diagnose", "-a", "-d", "1"], capture_output=True,
                              text=True, user="nobody", group="nogroup", extra_groups=[])
        assert (done.returncode, done.stdout) == (UNSUPPORTED, "")
        assert "root" in done.stderr and done.stderr.count("\n") == 1
        doctor = subprocess.run([binary, "doctor"], capture_output=True, text=True,
                                user="nobody", group="nogroup", extra_groups=[])
        assert doctor.returncode == UNSUPPORTED
        assert re.search(r"^NO +privileges", doctor.stdout, re.M)
    finally:
        binary.unlink()


# --- captures ---------------------------------------------------------------------------------

def test_replay_needs_no_root_and_no_binary(capture):
    """Names were found at recording time: the same anywhere."""
    binary = pathlib.Path("/tmp") / f"lockscope-replay-{os.getpid()}"
    binary.write_bytes(LOCKSCOPE.read_bytes())
    binary.chmod(0o755)
    try:
        for arguments in (["diagnose"], ["report"], ["flame", "--metric", "wait"],
                          ["flame", "--metric", "blame", "--format", "folded"],
                          ["report", "--format", "json"], ["diagnose", "--format", "json"]):
            mine = run(arguments[0], capture, *arguments[1:])
            theirs = subprocess.run([binary, arguments[0], capture, *arguments[1:]],
                                    capture_output=True, text=True, user="nobody",
                                    group="nogroup", extra_groups=[])
            assert mine.returncode == theirs.returncode == 0, theirs.stderr
            assert mine.stdout == theirs.stdout
            assert "SessionStore::" in mine.stdout
    finally:
        binary.unlink()


def test_a_list_of_tiers_ends_before_the_file(capture):
    done = run("report", "--tiers", "futex,pthread", capture)
    assert done.returncode == 0 and done.stdout == run("report", capture).stdout


def test_documents_follow_their_schemas(capture):
    for command in ("diagnose", "report"):
        document = json.loads(run(command, capture, "--format", "json").stdout)
        name = document["schema"].removeprefix("lockscope.").removesuffix("/1")
        jsonschema.validate(document, schema(name))


def test_flame_graph_widths_are_the_waiting(capture):
    diagnosis = json.loads(run("diagnose", capture, "--format", "json").stdout)
    for metric, field in (("wait", "lock_wait_ns"), ("idle", "idle_wait_ns"),
                          ("blame", "blame_ns")):
        folded = run("flame", capture, "--metric", metric, "--format", "folded").stdout
        total = sum(int(line.rsplit(" ", 1)[1]) for line in folded.splitlines())
        assert total == sum(p[field] for p in diagnosis["processes"])
    svg = run("flame", capture, "--metric", "wait").stdout
    assert svg.startswith("<?xml") and "SessionStore::append" in svg


# --- live targets -------------------------------------------------------------------------------

def test_attach_by_pid(service):
    document = json.loads(run("diagnose", "-p", service.pid, "-d", 1, "--format", "json").stdout)
    jsonschema.validate(document, schema("diagnosis"))
    (process,) = document["processes"]
    assert process["pid"] == service.pid
    assert process["comm"] == "timed_mutex"
    assert process["exe"] == str(WORKLOADS / "timed_mutex")
    # Four threads that hold 0.2 ms and think 0.05 ms: three of them wait at any time.
    assert process["lock_wait_ns"] > 1e9
    assert 0.9 < document["capture"]["duration_s"] < 1.5
    assert document["capture"]["quality"]["self_cpu_share"] < 0.2


def test_kernel_tables_fit_into_64_mb(service):
    """With unwind tables as large as they may grow."""
    attached = Attached("report", "-p", service.pid, "-d", 2)
    others = 0
    for info in pathlib.Path(f"/proc/{attached.process.pid}/fdinfo").iterdir():
        try:
            text = info.read_text()
        except FileNotFoundError:
            continue  # a file that was open for a moment
        fields = dict(re.findall(r"^(\w+):\s*(\w+)$", text, re.M))
        if "map_type" in fields and fields["value_size"] != str(1 << 20):
            others += int(fields["memlock"])
    attached.finish()
    header = (ROOT / "userspace" / "unwind" / "process_tables.h").read_text()
    unwind = int(re.search(r"kMaxPoolMegabytes = (\d+);", header)[1])
    assert 10 << 20 < others < (64 - unwind) << 20


def test_attach_by_thread_id(service):
    threads = sorted(int(t) for t in os.listdir(f"/proc/{service.pid}/task"))
    document = json.loads(run("diagnose", "-p", threads[-1], "-d", 1, "--format", "json").stdout)
    assert document["processes"][0]["pid"] == service.pid


@pytest.mark.parametrize("target", [["--comm", "timed_mutex"], ["-a"]])
def test_targets_that_match_by_name_or_all(service, target):
    document = json.loads(run("diagnose", *target, "-d", 1, "--format", "json").stdout)
    traced = {p["pid"]: p for p in document["processes"]}
    assert traced[service.pid]["lock_wait_ns"] > 1e9
    if target != ["-a"]:
        assert {p["comm"] for p in traced.values()} == {"timed_mutex"}


def test_nothing_else_is_seen(service):
    other = subprocess.Popen(["sleep", "60"])
    try:
        done = run("diagnose", "-p", other.pid, "-d", 1, "--format", "json")
        assert json.loads(done.stdout)["processes"] == []
    finally:
        other.terminate()
        other.wait()


def cgroup2_root():
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return pathlib.Path(line.split()[1])
    pytest.skip("no cgroup v2 is mounted")


def test_cgroup_and_those_below(service):
    group = cgroup2_root() / f"lockscope-test-{os.getpid()}"
    below = group / "below"
    below.mkdir(parents=True)
    try:
        (below / "cgroup.procs").write_text(str(service.pid))
        document = json.loads(
            run("diagnose", "--cgroup", group, "-d", 1, "--format", "json").stdout)
        assert [p["pid"] for p in document["processes"]] == [service.pid]
        assert document["processes"][0]["lock_wait_ns"] > 1e9
    finally:
        (cgroup2_root() / "cgroup.procs").write_text(str(service.pid))
        below.rmdir()
        group.rmdir()


def test_target_exits_before_the_time_is_over():
    process = subprocess.Popen(workload("stuck"), stdout=subprocess.DEVNULL)
    attached = Attached("diagnose", "-p", process.pid, "-d", 60, "--format", "json")
    began = time.monotonic()
    process.kill()
    process.wait()
    document = json.loads(attached.finish())
    assert time.monotonic() - began < 30
    assert document["processes"][0]["lock_wait_ns"] > 0


def test_target_exits_before_anything_is_seen():
    process = subprocess.Popen(["sleep", "1"])
    done = run("diagnose", "-p", process.pid, "-d", 60)
    process.wait()
    assert done.returncode == 0
    assert "No waiting was seen." in done.stdout


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_early_and_reports(service, which):
    attached = Attached("diagnose", "-p", service.pid, "-d", "60", "--format", "json")
    time.sleep(1)  # what is recorded, not a wait for something to happen
    attached.process.send_signal(which)
    document = json.loads(attached.finish())
    assert document["capture"]["duration_s"] < 30
    assert document["processes"][0]["lock_wait_ns"] > 0


def test_threads_asleep_since_before(tmp_path):
    """A process that was stuck before we came: its waits are in flight the whole time, with stacks."""
    program = subprocess.Popen(workload("stuck"), stdout=subprocess.PIPE, text=True)
    try:
        own = json.loads(program.stdout.readline())
        document = json.loads(
            run("diagnose", "-p", program.pid, "-d", 2, "--format", "json").stdout)
        duration = document["capture"]["duration_s"] * 1e9
        sites = {f["site"]["kind"]: f for f in document["findings"]}
        locks = [f for f in document["findings"] if f["site"]["kind"] == "mutex"]
        assert sum(f["wait"]["in_flight"] for f in locks) == own["stuck_in_locks"]
        assert sum(f["wait"]["total_ns"] for f in locks) == pytest.approx(
            own["stuck_in_locks"] * duration, rel=0.01)
        assert {f["owner_tid"] for f in locks} == set(own["owners"])
        assert sites["cond"]["wait"]["in_flight"] == own["idle"]
        functions = [f["function"] for f in locks[0]["waiter_stacks"][0]["frames"]]
        assert "pthread_mutex_lock" in functions and "Ledger::transfer" in functions
        (process,) = document["processes"]
        assert process["blame_ns"] == process["lock_wait_ns"]
    finally:
        program.kill()
        program.wait()


def test_child_output_does_not_mix_with_the_report():
    done = run("diagnose", "--format", "json", "--", "sh", "-c", "echo from the child")
    assert json.loads(done.stdout)["schema"] == "lockscope.diagnosis/1"
    assert "from the child" in done.stderr


def test_children_of_a_command_are_followed():
    command = " ".join(workload("timed_mutex", seconds=1, think_us=50))
    done = run("diagnose", "--format", "json", "--", "sh", "-c", f"{command}; true")
    (process,) = [p for p in json.loads(done.stdout)["processes"] if p["lock_wait_ns"] > 0]
    assert process["comm"] == "timed_mutex"


def test_doctor():
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^ok +futex tier", done.stdout, re.M)
    assert re.search(r"^ok +stacks +up to 127 frames deep$", done.stdout, re.M)
