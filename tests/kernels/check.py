#!/usr/bin/env python3
"""Checks the books of a capture made in a guest against the traced program's own clock.

usage: check.py DIR, with DIR/results/{command,attach}.{workload,diagnosis}.json as
guest-test.sh leaves them. Prints one line, or one a fault with exit code 1.
"""
import json
import pathlib
import sys

# An emulated CPU takes some 50 us for a trap, which stands in holds of 5 ms.
HOLD_TOLERANCE = 0.03
TOLERANCE = 0.01  # of the program's own figure, as on the development machine


def check(results, name):
    """Returns (faults, summary) of one capture."""
    workload = json.loads((results / f"{name}.workload.json").read_text())
    diagnosis = json.loads((results / f"{name}.diagnosis.json").read_text())
    faults = []

    def expect(condition, message):
        if not condition:
            faults.append(f"{name}: {message}")

    expect(diagnosis.get("schema") == "lockscope.diagnosis/1", f"schema {diagnosis.get('schema')}")
    quality = diagnosis["capture"]["quality"]
    lost = {reason: n for reason, n in quality["lost"].items() if n}
    expect(not lost, f"lost events: {lost}")

    # A command run through a shell is two entries of one pid: before and after exec.
    processes = [p for p in diagnosis["processes"] if p["pid"] == workload["pid"]]
    expect(processes, f"no process with pid {workload['pid']}")
    # A wait is seen from the first sleep on, so compare with the waits that slept.
    own = workload["slept_wait_ns"]
    seen = sum(p["lock_wait_ns"] for p in processes)
    blame = sum(p["blame_ns"] for p in processes)
    expect(own > 1e9, f"the workload hardly waited: {own} ns")
    error = seen / own - 1 if own else 0
    expect(abs(error) <= TOLERANCE,
           f"waiting {seen / 1e6:.1f} ms, by the program's clock {own / 1e6:.1f} ms: {error:+.2%}")
    expect(blame == seen, f"blame {blame} ns is not waiting {seen} ns")
    return faults, f"{name}: waiting {seen / 1e6:.0f} ms ({error:+.2%}), blame equal"


def check_pthread(results):
    """The same of the capture by the pthread tier: every acquisition."""
    own = json.loads((results / "pthread.workload.json").read_text())
    report = json.loads((results / "pthread.report.json").read_text())
    found = [lock["hold"] for lock in report["locks"]
             if lock["address"] == own["lock_address"] and lock["hold"]["source"] == "pthread"]
    if len(found) != 1:
        return [f"pthread: {len(found)} locks at {own['lock_address']}"], ""
    faults = []
    count, total = found[0]["count"], found[0]["total_ns"]
    if count != own["acquisitions"]:
        faults.append(f"pthread: {count} holds, the program counted {own['acquisitions']}")
    error = total / own["all_hold_ns"] - 1
    if abs(error) > HOLD_TOLERANCE:
        faults.append(f"pthread: held {total / 1e6:.1f} ms, by the program's clock "
                      f"{own['all_hold_ns'] / 1e6:.1f} ms: {error:+.2%}")
    # Its holders do nothing but sleep. Waking up takes an emulated CPU a while.
    blocked = found[0]["blocked_ns"] or 0
    if not 0.9 < blocked / total <= 1:
        faults.append(f"holder: blocked for {blocked / 1e6:.1f} ms of {total / 1e6:.1f} ms")
    return faults, (f"pthread: {count} holds, {total / 1e6:.0f} ms ({error:+.2%}), "
                    f"blocked {blocked / total:.1%}")


def main(directory):
    results = pathlib.Path(directory) / "results"
    faults, summaries = [], []
    for name in ("command", "attach", "pthread"):
        try:
            bad, summary = (check_pthread(results) if name == "pthread"
                            else check(results, name))
        except (OSError, ValueError, KeyError, TypeError) as error:
            bad, summary = [f"{name}: {type(error).__name__}: {error}"], ""
        faults += bad
        summaries.append(summary)
    print("\n".join(faults) if faults else "; ".join(summaries))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
