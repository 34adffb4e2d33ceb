"""The pthread tier, against programs that time every acquisition themselves."""
import json
import os
import signal
import subprocess
import time

import jsonschema
import pytest

from conftest import BUILD, ROOT, Attached, run, workload

# The probes themselves stand in the holds, with 0.6 us, or 11 at an instruction that has
# to be stepped over, of holds of 0.5 ms.
TOLERANCE = 0.01


def validate(report):
    jsonschema.validate(report, json.loads((ROOT / "docs" / "report.schema.json").read_text()))


def report_command(command, tmp_path, *options):
    """The report on a command, from its first instruction to its end, and its own words."""
    output = tmp_path / "report.json"
    done = run("report", "--tiers", "futex,pthread", "--format", "json", "-o", output, *options,
               "--", *command)
    assert done.returncode == 0, done.stderr
    own = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    report = json.loads(output.read_text())
    validate(report)
    assert report["capture"]["tiers"] == ["futex", "pthread"]
    assert not report["capture"]["quality"]["lost"]
    return report, own[-1] if own else None


def lock_at(report, address):
    found = [lock for lock in report["locks"] if lock["address"] == address]
    assert len(found) == 1, found
    assert found[0]["hold"]["source"] == "pthread"
    return found[0]


KINDS = ["normal", "recursive", "errorcheck", "adaptive", "robust", "timed", "clock", "std"]


@pytest.mark.parametrize("kind", KINDS)
def test_mutex(kind, tmp_path):
    report, own = report_command(workload("timed_mutex", kind=kind, hold_us=1000), tmp_path)
    lock = lock_at(report, own["lock_address"])
    assert lock["kind"] == "mutex" and lock["lock"]
    hold = lock["hold"]
    assert hold["count"] == own["acquisitions"]
    assert hold["total_ns"] == pytest.approx(own["all_hold_ns"], rel=TOLERANCE)
    assert hold["before_capture"] == 0 and hold["in_flight"] == 0
    # It tries first, and locks if that failed.
    assert hold["failed"] == own["waits"]
    assert hold["contended"] == own["slept_waits"] or kind == "adaptive"


@pytest.mark.parametrize("name,kind", [("timed_pi_mutex", "mutex"), ("timed_semaphore", "sem")])
def test_other_locks(name, kind, tmp_path):
    report, own = report_command(workload(name, hold_us=1000), tmp_path)
    lock = lock_at(report, own["lock_address"])
    assert lock["kind"] == kind and lock["lock"]
    assert lock["hold"]["count"] == own["acquisitions"]
    assert lock["hold"]["total_ns"] == pytest.approx(own["all_hold_ns"], rel=TOLERANCE)


def test_rwlock(tmp_path):
    report, own = report_command(workload("timed_rwlock", read_hold_us=2000, write_hold_us=4000),
                                 tmp_path)
    lock = lock_at(report, own["lock_address"])
    assert lock["kind"] == "rwlock" and lock["lock"]
    assert lock["hold"]["count"] == own["acquisitions"]
    assert lock["hold"]["total_ns"] == pytest.approx(own["all_hold_ns"], rel=TOLERANCE)


PROGRAM = r"""
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

pthread_mutex_t recursive, first = PTHREAD_MUTEX_INITIALIZER, second = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t handed = PTHREAD_MUTEX_INITIALIZER;
pthread_rwlock_t shared = PTHREAD_RWLOCK_INITIALIZER;
pthread_cond_t condition = PTHREAD_COND_INITIALIZER, lonely = PTHREAD_COND_INITIALIZER;
pthread_spinlock_t spin;
mtx_t c11;
sem_t queue;
int ready, calls;
pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void) { calls++; }

static void *consumer(void *unused) {
  (void)unused;
  pthread_mutex_lock(&handed);
  for (int i = 0; i < 100; i++) {
    while (ready <= i) pthread_cond_wait(&condition, &handed);
  }
  pthread_mutex_unlock(&handed);
  for (int i = 0; i < 50; i++) sem_wait(&queue);
  return 0;
}

int main(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&recursive, &attributes);
  pthread_spin_init(&spin, 0);
  mtx_init(&c11, mtx_plain);
  sem_init(&queue, 0, 0);
  for (int i = 0; i < 1000; i++) {
    for (int k = 0; k < 3; k++) pthread_mutex_lock(&recursive);
    for (int k = 0; k < 3; k++) pthread_mutex_unlock(&recursive);
    pthread_mutex_lock(&first);
    pthread_mutex_lock(&second);
    pthread_mutex_unlock(&first);
    pthread_mutex_unlock(&second);
    for (int k = 0; k < 2; k++) pthread_rwlock_rdlock(&shared);
    for (int k = 0; k < 2; k++) pthread_rwlock_unlock(&shared);
    pthread_rwlock_wrlock(&shared);
    pthread_rwlock_unlock(&shared);
    pthread_spin_lock(&spin);
    pthread_spin_unlock(&spin);
    if (pthread_spin_trylock(&spin) == 0) pthread_spin_unlock(&spin);
    mtx_lock(&c11);
    mtx_unlock(&c11);
    pthread_once(&once, init);
    pthread_cond_signal(&lonely);
  }
  pthread_t thread;
  pthread_create(&thread, 0, consumer, 0);
  for (int i = 1; i <= 100; i++) {
    usleep(200);
    pthread_mutex_lock(&handed);
    ready = i;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&handed);
  }
  for (int i = 0; i < 50; i++) sem_post(&queue);
  pthread_join(thread, 0);
  return calls != 1;
}
"""


@pytest.fixture(scope="module")
def primitives(tmp_path_factory):
    """A capture of PROGRAM: its locks by name, and the tables of the capture itself."""
    folder = tmp_path_factory.mktemp("primitives")
    (folder / "main.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-g", "-pthread", "main.c", "-o", "program"], cwd=folder,
                   check=True)
    capture = folder / "capture"
    done = run("record", "--tiers", "futex,pthread", "--budget", "100", "-o", capture, "--",
               folder / "program")
    assert done.returncode == 0, done.stderr
    report = json.loads(run("report", capture, "--format", "json").stdout)
    validate(report)
    raw = json.loads(subprocess.run(["zstd", "-dcq", "--no-check", capture], check=True,
                                    capture_output=True).stdout)["capture"]
    raw["report"] = report
    raw["text"] = run("report", capture).stdout
    return ({lock["name"]: lock for lock in report["locks"]},
            {thing["object"]: thing for thing in raw["objects"]}, raw)


def test_counts_of_uncontended_calls(primitives):
    locks, objects, _ = primitives
    counts = {name: locks[name]["hold"]["count"]
              for name in ("recursive", "first", "second", "shared", "spin", "c11")}
    # A recursive mutex, and a reader's second lock, are held once from the first to the last.
    assert counts == {"recursive": 1000, "first": 1000, "second": 1000, "shared": 2000,
                      "spin": 2000, "c11": 1000}
    assert objects["shared"]["hold"]["count"] == 1000
    assert objects["shared"]["read_hold"]["count"] == 1000
    assert all(locks[name]["hold"]["contended"] == 0 for name in counts)


def test_conditions_and_semaphores(primitives):
    locks, objects, raw = primitives
    condition, lonely = objects["condition"], objects["lonely"]
    assert condition["signals"] == 100 and condition["unheld"] == 0
    assert 1 <= condition["waits"] <= 100
    assert condition["mutex"] == objects["handed"]["address"]
    # Nobody ever waits there, and no mutex goes with it that could be held.
    assert lonely["signals"] == 1000 and lonely["nobody"] == 1000 and lonely["waits"] == 0
    shown = {row["name"]: row for row in raw["report"]["conditions"]}
    assert shown["lonely"]["signals"] == shown["lonely"]["nobody_waiting"] == 1000
    assert shown["condition"]["mutex"] == hex(objects["handed"]["address"])
    assert shown["condition"]["without_mutex"] == 0
    # The mutex is given back in each wait, and taken again.
    assert locks["handed"]["hold"]["count"] == 101 + condition["waits"]
    assert objects["once"]["waits"] == 1000
    queue = objects["queue"]
    assert queue["posts"] == 50
    # A thread that ends has nothing any more: of the last one no more is known.
    assert queue["hold"]["count"] == 0 and queue["taken"] == 49


def test_lock_order(primitives):
    _, objects, raw = primitives
    order = [(raw["objects"][row["held"]]["object"], raw["objects"][row["wanted"]]["object"],
              row["count"]) for row in raw["orders"]]
    assert ("first", "second", 1000) in order
    assert not [row for row in order if row[0] in ("second", "recursive", "shared")]
    shown = [row for row in raw["report"]["lock_order"] if row["held"]["name"] == "first"]
    assert [(row["wanted"]["name"], row["count"], row["reversed"]) for row in shown] == [
        ("second", 1000, False)]
    # Of the first time, when the program's code was hardly known.
    assert shown[0]["frames"][0]["function"] == "pthread_mutex_lock" and shown[0]["tid"] > 0
    assert "LOCK ORDER" in raw["text"]


def test_attach_in_mid_flight_invents_nothing(tmp_path):
    """A lock held since before the attach is not one of ours; the program goes on."""
    ready, go = tmp_path / "ready", tmp_path / "go"
    command = workload("timed_mutex", threads=2, hold_us=2000, seconds=4, ready_file=ready,
                       go_file=go)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not ready.exists():
        time.sleep(0.01)
    go.touch()
    attached = Attached("report", "--tiers", "futex,pthread", "--format", "json", "-d", "2", "-p",
                        process.pid)
    report = json.loads(attached.finish())
    validate(report)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    own = json.loads(out)
    lock = lock_at(report, own["lock_address"])
    mean = lock["hold"]["total_ns"] / lock["hold"]["count"]
    assert mean == pytest.approx(own["all_hold_ns"] / own["acquisitions"], rel=0.03)
    # One thread may have had it then, and the other one slept for it.
    assert lock["hold"]["before_capture"] <= 2
    # What is held for 2 of every 2 ms and a bit can't be held longer than we looked.
    assert lock["hold"]["total_ns"] <= report["capture"]["duration_s"] * 1e9 * 1.001
    assert lock["hold"]["in_flight"] <= 1


def test_probes_come_and_go(tmp_path):
    """While threads hammer a lock; their sums stay right, and nothing stays behind."""
    ready, go = tmp_path / "ready", tmp_path / "go"
    process = subprocess.Popen(workload("lock_loop", threads=3, seconds=20, ready_file=ready,
                                        go_file=go), stdout=subprocess.PIPE, text=True)
    while not ready.exists():
        time.sleep(0.01)
    go.touch()
    done = subprocess.run([BUILD / "attach-rounds", "100", str(process.pid)], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert left["rounds"] == 100 and left["hits"] > 100
    assert left["hits_after"] == 0
    assert left["files"] == 0 and left["links"] == 0
    # A leaked table or file of symbols would be tens of MB.
    assert left["resident_kb"] < 4096
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, "a count was lost, or it crashed"
    assert json.loads(out)["pairs"] > 0


def test_nothing_stays_behind(tmp_path):
    """The loop is as quick as ever when they are gone."""
    process = subprocess.Popen(workload("lock_loop", seconds=8), stdout=subprocess.PIPE, text=True)
    text = f"/proc/{process.pid}/maps"
    for _ in range(4):
        done = run("report", "--tiers", "futex,pthread", "--format", "json", "-d", "0.3", "-p",
                   process.pid)
        assert done.returncode == 0, done.stderr
        loop = [lock for lock in json.loads(done.stdout)["locks"] if lock["hold"]["count"] > 1000]
        assert len(loop) == 1
        assert os.path.exists(text)
    # Without probes the loop is a hundred times faster.
    before = time.monotonic()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, before
    assert json.loads(out)["ns_per_pair"] < 500
    programs = subprocess.run(["/usr/sbin/bpftool", "prog", "show"], capture_output=True, text=True)
    assert "pthread_call" not in programs.stdout


def test_says_what_it_cannot_do(tmp_path):
    for target in (["-a"], ["--cgroup", "/"]):
        done = run("report", "--tiers", "pthread", *target)
        assert done.returncode == 2
        assert "chosen processes" in done.stderr and done.stderr.count("\n") == 1
    assert run("report", "--tiers", "kernel", "-a").returncode == 2


# Counts for itself, from when a file is there, so that a tracer is there before.
OWN_LIBC = r"""
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *go;
static double held[3];
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}
static void *work(void *argument) {
  double *own = argument;
  while (access(go, F_OK)) usleep(5000);
  for (int i = 0; i < 300; i++) {
    pthread_mutex_lock(&mutex);
    double at = now();
    usleep(1000);
    *own += now() - at;
    pthread_mutex_unlock(&mutex);
    usleep(500);
  }
  return 0;
}
int main(int argc, char **argv) {
  pthread_t threads[3];
  go = argv[argc - 1];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, work, &held[i]);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
  printf("{\"lock_address\": \"%p\", \"all_hold_ns\": %.0f}\n", (void *)&mutex,
         held[0] + held[1] + held[2]);
}
"""


@pytest.mark.parametrize("compiler", ["gcc -static", "musl-gcc", "musl-gcc -static"])
def test_programs_with_another_libc(compiler, tmp_path):
    """Theirs is in the program, or of another kind."""
    source, program, go = tmp_path / "own.c", tmp_path / "own", tmp_path / "go"
    source.write_text(OWN_LIBC)
    subprocess.run([*compiler.split(), "-O1", "-pthread", "-o", program, source], check=True)
    process = subprocess.Popen([program, go], stdout=subprocess.PIPE, text=True)
    attached = Attached("report", "--tiers", "futex,pthread", "--format", "json", "-d", "60", "-p",
                        process.pid)
    go.touch()
    report = json.loads(attached.finish())
    validate(report)
    out, _ = process.communicate(timeout=60)
    own = json.loads(out)
    hold = lock_at(report, own["lock_address"])["hold"]
    assert hold["count"] == 900 and hold["in_flight"] == 0 and hold["before_capture"] == 0
    assert hold["total_ns"] == pytest.approx(own["all_hold_ns"], rel=TOLERANCE)
