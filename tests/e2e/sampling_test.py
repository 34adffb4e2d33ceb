"""Stacks taken for a sample: locks' sums stay exact, stacks' shares come out right.

Two tracers watch the same process at the same time: one takes every stack, the other as few as it
is told. They must agree on the sums, and on the shares within the error of a sample of that size.
"""
import json
import math
import os
import subprocess

import pytest

from conftest import Attached, workload

SECONDS = 4
FUNCTIONS = ("Account::post", "Account::settle", "Account::audit")


def shares(rows, field):
    """Of the rows' `field`, by function."""
    total = sum(row[field] for row in rows)
    parts = dict.fromkeys(FUNCTIONS, 0)
    for row in rows:
        parts[function_of(row)] += row[field] / total
    return parts


def function_of(row):
    return next(f["function"] for f in row["frames"] if f["function"] in FUNCTIONS)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What both say of the same run: every stack, and a sample."""
    folder = tmp_path_factory.mktemp("sampling")
    go = folder / "go"
    program = subprocess.Popen(
        workload("timed_sites", seconds=SECONDS, ready_file=folder / "ready", go_file=go),
        stdout=subprocess.DEVNULL)
    try:
        tracers = [Attached("report", "--format", "json", "-p", program.pid, "-d", 60,
                            "--stack-rate", rate) for rate in (0, 500)]
        go.touch()
        assert program.wait(timeout=60) == 0
        return [json.loads(tracer.finish()) for tracer in tracers]
    finally:
        program.kill()
        program.wait()


def mutex(report):
    return max(report["locks"], key=lambda lock: lock["wait_ns"])


def test_the_sample_is_as_small_as_it_is_told(reports):
    every, sample = (report["capture"]["quality"] for report in reports)
    assert every["sampled_events"] == every["events"] > 20_000
    assert sample["events"] == pytest.approx(every["events"], rel=0.01)
    # 500 a second and CPU, and as many again while the first window learns what comes.
    assert 1_000 < sample["sampled_events"] < 1_000 * os.cpu_count() * SECONDS
    assert sample["sampled_events"] < 0.4 * sample["events"]
    assert every["lost"] == sample["lost"] == {}


def test_sums_are_exact_all_the_same(reports):
    every, sample = (mutex(report) for report in reports)
    assert sample["wait"]["count"] == every["wait"]["count"] > 1_000
    assert sample["hold"]["count"] == every["hold"]["count"]
    assert sample["wait_ns"] == pytest.approx(every["wait_ns"], rel=0.01)
    assert sample["hold"]["total_ns"] == pytest.approx(every["hold"]["total_ns"], rel=0.2)
    for report in reports:
        lock = mutex(report)
        index = report["locks"].index(lock)
        assert lock["blame_ns"] + lock["unreleased_ns"] == lock["wait_ns"]
        for rows, field, total in (("wait_sites", "ns", lock["wait_ns"]),
                                   ("wait_sites", "count", lock["wait"]["count"]),
                                   ("holders", "ns", lock["blame_ns"])):
            assert sum(row[field] for row in report[rows] if row["lock"] == index) == total


@pytest.mark.parametrize("rows, field", [
    ("wait_sites", "ns"), ("wait_sites", "count"), ("holders", "ns"), ("holders", "count")])
def test_shares_are_those_of_all_stacks(reports, rows, field):
    every, sample = (
        shares([row for row in report[rows] if report["locks"][row["lock"]] is mutex(report)], field)
        for report in reports)
    # Waits are more than a sixth of the events, and half of a sample goes by time, half by number.
    n = reports[1]["capture"]["quality"]["sampled_events"] / 6
    for function in FUNCTIONS:
        share = every[function]
        error = math.sqrt(2 * share * (1 - share) / n)
        assert sample[function] == pytest.approx(share, abs=4 * error), function


def test_pairs_are_brought_up_to_all_waits(reports):
    for report in reports:
        lock = mutex(report)
        pairs = [row for row in report["pairs"] if report["locks"][row["lock"]] is lock]
        assert sum(row["ns"] for row in pairs) == lock["wait_ns"]
