"""Servers as Debian ships them (stripped, without frame pointers), under their own load generators."""
import json

from conftest import Attached, Diagnosis

SECONDS = 4


def trace_under_load(server, *target):
    """Diagnosis of `target` (default: the server's PID) while it works."""
    attached = Attached("diagnose", *(target or ("-p", server.pid)), "-d", SECONDS, "--format",
                        "json")
    server.call("load", SECONDS)
    return Diagnosis(json.loads(attached.finish()), None)


def trace_idle(server):
    attached = Attached("diagnose", "-p", server.pid, "-d", 2, "--format", "json")
    return Diagnosis(json.loads(attached.finish()), None)


def assert_sound(diagnosis):
    """Nothing lost, the books balanced, stacks whole."""
    assert diagnosis.quality["lost"] == {}
    assert diagnosis.quality["sufficient"]
    assert diagnosis.total("blame_ns") == diagnosis.total("lock_wait_ns")
    stacks = diagnosis.quality["complete_stacks"] + diagnosis.quality["broken_stacks"]
    assert diagnosis.quality["complete_stacks"] >= 0.95 * stacks > 0


def stack_functions(finding):
    return [frame["function"] for stack in finding["waiter_stacks"] for frame in stack["frames"]]


def test_memcached(server):
    memcached = server("memcached")
    diagnosis = trace_under_load(memcached)
    assert_sound(diagnosis)
    assert [p["comm"] for p in diagnosis.processes] == ["memcached"]
    # Maintenance threads sleep on their conditions from before we attached: idle, with stacks.
    idle = diagnosis.of_kind("cond")
    assert sum(f["wait"]["total_ns"] for f in idle) > SECONDS * 1e9
    assert all(f["verdict"] == "healthy" for f in idle)
    assert any("pthread_cond_wait" in stack_functions(f) for f in idle)


def test_mariadb(server):
    mariadb = server("mariadb")
    # Nothing to do: its threads wait for work, and hardly ever meet at a lock.
    idle = trace_idle(mariadb)
    assert all(f["verdict"] != "bug" for f in idle.findings)
    assert idle.total("idle_wait_ns") > 10e9
    assert idle.total("lock_wait_ns") < 0.01 * idle.total("idle_wait_ns")
    diagnosis = trace_under_load(mariadb)
    assert_sound(diagnosis)
    (process,) = diagnosis.processes
    assert process["language"] == "c++"
    # 16 clients that write: locks of InnoDB and of the log, and conditions.
    assert process["lock_wait_ns"] > 0.05 * SECONDS * 1e9
    assert process["idle_wait_ns"] > SECONDS * 1e9
    kinds = {f["site"]["kind"] for f in diagnosis.findings}
    assert {"mutex", "cond"} <= kinds
    (most,) = [f for f in diagnosis.findings if f["verdict"] != "healthy"][:1]
    assert most["waiters"] > 1
    assert any(f["module"] == "mariadbd" for s in most["waiter_stacks"] for f in s["frames"])


def test_postgresql_semaphores_join_processes(server):
    postgresql = server("postgresql")
    diagnosis = trace_under_load(postgresql, "--comm", "postgres")
    assert_sound(diagnosis)
    waiting = [p for p in diagnosis.processes if p["lock_wait_ns"] + p["idle_wait_ns"] > 0]
    assert len(waiting) > 4
    semaphores = [f for f in diagnosis.of_kind("sem") if f["site"]["shared"]]
    assert semaphores
    assert any("PGSemaphoreLock" in stack_functions(f) for f in semaphores)
    # A backend waits on its own semaphore, and another process posts it.
    pids = {p["pid"]: p for p in waiting}
    crossed = 0
    for finding in semaphores:
        assert finding["pid"] in pids
        posters = [f["function"] for s in finding["holder_stacks"] for f in s["frames"]]
        crossed += "PGSemaphoreUnlock" in posters
    assert crossed >= len(semaphores) / 2


def test_rocksdb_names_its_hot_lock(server):
    rocksdb = server("rocksdb")
    diagnosis = trace_under_load(rocksdb)
    assert_sound(diagnosis)
    locks = [f for f in diagnosis.findings if f["site"]["lock"]]
    # The block cache has one shard, and everybody reads through its mutex: no other lock has as
    # many waits (malloc's arenas come next).
    hot = max(locks, key=lambda f: f["wait"]["count"])
    assert hot["site"]["kind"] == "mutex"
    assert hot["wait"]["count"] > 0.2 * sum(f["wait"]["count"] for f in locks)
    assert any("LRUCacheShard" in name for name in stack_functions(hot))
    assert hot["waiters"] >= 8
