"""What probes may cost, and what is said of the time in which they were not there."""
import json

import jsonschema
import pytest

from conftest import ROOT, run, workload


def report(tmp_path, command, *options):
    output = tmp_path / "report.json"
    done = run("report", "--format", "json", "-o", output, *options, "--", *command)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    jsonschema.validate(document, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    assert not document["capture"]["quality"]["lost"]
    own = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return document, own[-1]


def hold_at(document, address):
    found = [lock["hold"] for lock in document["locks"] if lock["address"] == address]
    assert len(found) == 1, found
    return found[0]


def test_a_target_that_only_locks(tmp_path):
    """In slices it does nothing but hit probes, so they are as much of the time as the budget
    is, and its advance, that of a second; and the last slice may be more than is left."""
    document, own = report(tmp_path, workload("lock_loop", seconds=6), "--tiers", "futex,pthread",
                           "--budget", "1")
    quality = document["capture"]["quality"]
    assert quality["pthread_slices"] >= 3
    assert 0.002 < quality["pthread_share"] < 0.01 * (1 + 1 / 6) + 0.005
    hold = hold_at(document, own["lock_address"])
    assert hold["observed_share"] == quality["pthread_share"]
    # 6 ns are beyond it, with probes that take 900; but not by so much.
    assert hold["total_ns"] / hold["count"] < 200


@pytest.mark.parametrize("hold_us,budget", [(20, 1), (20, 5), (1000, 5)])
def test_estimates(hold_us, budget, tmp_path):
    document, own = report(
        tmp_path, workload("timed_mutex", threads=1, hold_us=hold_us, think_us=5, thinker="cpu",
                           seconds=6),
        "--tiers", "futex,pthread", "--budget", str(budget))
    hold = hold_at(document, own["lock_address"])
    quality = document["capture"]["quality"]
    if hold_us == 1000:  # cheap enough to see all
        assert quality["pthread_slices"] == 0 and quality["pthread_share"] == 1
        assert hold["count"] == own["acquisitions"] and hold["count_error"] is None
    elif budget == 1:
        assert quality["pthread_slices"] >= 5 and quality["pthread_share"] < 0.6
        assert 0 < hold["count_error"] < 0.05
    assert hold["count"] == pytest.approx(own["acquisitions"], rel=0.05)
    assert hold["total_ns"] == pytest.approx(own["all_hold_ns"], rel=0.05)
    mean = own["all_hold_ns"] / own["acquisitions"]
    assert hold["total_ns"] / hold["count"] == pytest.approx(mean, rel=0.05)
    assert hold["p50_ns"] == pytest.approx(mean, rel=0.5)  # of slots that double


def test_holds_longer_than_slices(tmp_path):
    """Cut by the slices' ends, and put together: beside a loop that uses up the budget. What
    both ends of a slice miss, held all through it, is missing."""
    source = tmp_path / "long.c"
    source.write_text(r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t slow = PTHREAD_MUTEX_INITIALIZER, hot = PTHREAD_MUTEX_INITIALIZER;
static volatile int over;
static void *hammer(void *unused) {
  while (!over) { pthread_mutex_lock(&hot); pthread_mutex_unlock(&hot); }
  return unused;
}
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
int main(void) {
  pthread_t thread;
  double end = now() + 8, held = 0;
  long n = 0;
  pthread_create(&thread, 0, hammer, 0);
  while (now() < end) {
    double at;
    pthread_mutex_lock(&slow);
    at = now();
    usleep(6000);
    held += now() - at;
    pthread_mutex_unlock(&slow);
    usleep(2000);
    n++;
  }
  over = 1;
  pthread_join(thread, 0);
  printf("{\"lock_address\": \"%p\", \"all_hold_ns\": %.0f, \"acquisitions\": %ld}\n", (void *)&slow, held * 1e9, n);
}
""")
    import subprocess
    subprocess.run(["gcc", "-O1", "-g", "-pthread", "-o", tmp_path / "long", source], check=True)
    document, own = report(tmp_path, [str(tmp_path / "long")], "--tiers", "futex,pthread",
                           "--budget", "5")
    hold = hold_at(document, own["lock_address"])
    quality = document["capture"]["quality"]
    assert quality["pthread_slices"] >= 5 and quality["pthread_share"] < 0.2
    # As many holds as slices saw decide how sure it is: half a second of them.
    tolerance = 5 * hold["count_error"]
    assert 0 < tolerance < 0.6
    assert hold["count"] == pytest.approx(own["acquisitions"], rel=tolerance)
    assert hold["total_ns"] == pytest.approx(own["all_hold_ns"], rel=5 * hold["total_error"])


def test_probes_go_where_the_futex_tier_points(tmp_path):
    document, own = report(tmp_path, workload("timed_mutex", hold_us=1000), "--budget", "5")
    assert document["capture"]["tiers"] == ["futex", "pthread"]
    hold = hold_at(document, own["lock_address"])
    assert hold["source"] == "pthread"
    # From when 10 ms had been waited, and the programs were loaded.
    assert 0.5 < hold["observed_share"] < 1
    assert hold["count"] == pytest.approx(own["acquisitions"], rel=0.1)
    assert hold["total_ns"] == pytest.approx(own["all_hold_ns"], rel=0.1)


@pytest.mark.parametrize("name,options", [("timed_mutex", {"threads": 1}), ("timed_cond", {})])
def test_no_probe_without_a_contended_lock(name, options, tmp_path):
    document, _ = report(tmp_path, workload(name, **options), "--budget", "5")
    assert document["capture"]["tiers"] == ["futex"]


def test_bad_budget():
    for value in ("0", "-1", "101", "much"):
        done = run("report", "--budget", value, "--", "true")
        assert done.returncode == 2 and "--budget" in done.stderr
