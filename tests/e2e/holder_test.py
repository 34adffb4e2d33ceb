"""The holder tier, against programs that keep their own clocks of what they did in the
critical section."""
import json

import jsonschema
import pytest

from conftest import ROOT, run, workload

# Of the hold: the bar of the split.
TOLERANCE = 0.03

CALL = {"sleep": "clock_nanosleep", "sync": "fdatasync", "lock": "futex"}


def diagnose(tiers, tmp_path, **options):
    """The site of the journal's mutex in the report, its finding, and the program's own words."""
    capture = tmp_path / "capture"
    done = run("record", "--tiers", tiers, "-o", capture, "--", *workload("timed_holder", **options))
    assert done.returncode == 0, done.stderr
    own = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {}
    for command, key in (("report", "locks"), ("diagnose", "findings")):
        document = json.loads(run(command, "--format", "json", capture).stdout)
        schema = "report" if command == "report" else "diagnosis"
        jsonschema.validate(document, json.loads((ROOT / "docs" / f"{schema}.schema.json").read_text()))
        assert not document["capture"]["quality"]["lost"]
        assert document["capture"]["tiers"] == tiers.split(",")
        address = own[-1]["lock_address"]
        same = [entry for entry in document[key]
                if (entry if command == "report" else entry["site"])["address"] == address]
        assert len(same) == 1, same
        found[command] = same[0]
    return found["report"]["hold"], found["diagnose"], own[-1], capture


@pytest.mark.parametrize("tiers", ["futex,holder", "futex,pthread,holder"])
@pytest.mark.parametrize("block", ["sleep", "sync", "lock", "nothing"])
def test_split(block, tiers, tmp_path):
    hold, finding, own, capture = diagnose(tiers, tmp_path, block=block)
    # The futex tier sees holds that began with a wait, the pthread tier all.
    all_of_them = "pthread" in tiers
    held = own["all_hold_ns" if all_of_them else "hold_ns"]
    running = own["all_running_ns" if all_of_them else "running_ns"]
    runnable = own["all_runnable_ns" if all_of_them else "runnable_ns"]
    assert held > 1e9, "held most of the time"
    assert hold["total_ns"] == pytest.approx(held, rel=0.01)
    assert hold["split_ns"] == pytest.approx(held, rel=0.05)
    assert hold["running_ns"] == pytest.approx(running, abs=TOLERANCE * held)
    assert hold["runnable_ns"] == pytest.approx(runnable, abs=TOLERANCE * held)
    assert hold["blocked_ns"] == pytest.approx(held - running - runnable, abs=TOLERANCE * held)
    parts = hold["running_ns"] + hold["runnable_ns"] + hold["blocked_ns"]
    assert parts == pytest.approx(hold["total_ns"], abs=3)

    section = finding["critical_section"]
    blocked = [row for row in section if row["state"] == "blocked"]
    if block == "nothing":
        assert sum(row["ns"] for row in blocked) <= 0.01 * held
    else:
        here = [row for row in blocked if row["call"] == CALL[block]]
        assert sum(row["ns"] for row in here) >= 0.9 * hold["blocked_ns"]
        functions = [frame["function"] for frame in here[0]["frames"]]
        assert "Journal::flush" in functions and here[0]["complete"]

    # What ran, by samples at 997 a second: five standard deviations, and what is not encoding.
    folded = run("flame", "--metric", "critical-section", "--format", "folded", capture).stdout
    widths = [line.rsplit(" ", 1) for line in folded.splitlines()]
    ran = [(stack, int(ns)) for stack, ns in widths if "(blocked in" not in stack and
           "(waiting for a CPU" not in stack]
    samples = hold["running_ns"] * 997 / 1e9
    tolerance = 5 / samples ** 0.5
    assert sum(ns for _, ns in ran) == pytest.approx(hold["running_ns"], rel=tolerance)
    assert sum(ns for stack, ns in ran if "Journal::encode" in stack) >= 0.8 * hold["running_ns"]


def test_critical_section_flame(tmp_path):
    hold, _, own, capture = diagnose("futex,holder", tmp_path, block="sleep", run_us=500)
    done = run("flame", "--metric", "critical-section", "--format", "folded", capture)
    widths = {}
    for line in done.stdout.splitlines():
        stack, value = line.rsplit(" ", 1)
        for part in ("Journal::encode", "(blocked in clock_nanosleep)", "(waiting for a CPU"):
            if part in stack:
                widths[part] = widths.get(part, 0) + int(value)
    assert widths["(blocked in clock_nanosleep)"] == pytest.approx(hold["blocked_ns"], rel=0.1)
    assert widths["(waiting for a CPU"] == pytest.approx(hold["runnable_ns"], rel=0.01)
    assert widths["Journal::encode"] == pytest.approx(hold["running_ns"], rel=0.35)
    assert "Journal::flush" in done.stdout


def test_critical_section_without_the_tier(tmp_path):
    capture = tmp_path / "capture"
    assert run("record", "-o", capture, "--", "true").returncode == 0
    done = run("flame", "--metric", "critical-section", capture)
    assert done.returncode == 1
    assert "--tiers futex,holder" in done.stderr and done.stderr.count("\n") == 1


def test_text_names_the_call(tmp_path):
    _, _, _, capture = diagnose("futex,holder", tmp_path, block="sync", run_us=100)
    text = run("diagnose", capture).stdout
    assert "while it was held (" in text
    assert "blocked in fdatasync" in text
    assert "Journal::flush" in text[text.index("blocked in fdatasync"):]
