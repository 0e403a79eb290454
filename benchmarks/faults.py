"""The fault bench: `make faults`. Each numbered fault is provoked by the tests named here; a table says which the system survives.

    python -m benchmarks.faults [--only 1 4 8] [--quick] [--no-record]

The oracle is the tests': nothing is visible unless its manifest verifies, one record per key, one model, nothing left running, a message that
names the remedy. `--quick`: what `make test` runs as well. Appends one JSON line for each fault to benchmarks/results/faults.jsonl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import record
from orchestration.engine.console import print_table

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
TRAINING, CHECKPOINT, DISTRIBUTED = (f"tests/diger_core/training/test_{name}.py" for name in ("training", "checkpoint", "distributed"))
STORE, S3 = (f"tests/diger_core/store/test_{name}.py" for name in ("store", "store_faults"))
RAY, JOBS, NODES, SESSION = (f"tests/orchestration/on_ray/test_{name}.py" for name in ("ray_train", "ray_jobs", "two_nodes", "ray_session"))
SEARCH, STUDY = (f"tests/orchestration/search/test_{name}.py" for name in ("decay_search", "search"))
RUNNER, PRIVATE = (f"tests/orchestration/engine/test_{name}.py" for name in ("runner", "private"))
TERMINATION = "tests/orchestration/on_dagster/test_termination.py"
FAULTS = "tests/flow/test_faults.py"
LEASE, SHARING = "tests/diger_core/store/test_lease.py", "tests/orchestration/engine/test_sharing.py"
REMOVAL, CHAMPION = "tests/orchestration/audit/test_audit_removal.py", "tests/orchestration/champion/test_champion.py"
SHARED_HOME, DOORS, SOCKETS = (
    "tests/orchestration/on_dagster/test_shared_home.py", "tests/orchestration/on_dagster/test_doors.py", "tests/orchestration/on_ray/test_sockets.py"
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """`tests`: (file, words of `pytest -k`)."""

    number: int
    what: str
    tests: tuple[tuple[str, str], ...]


BENCH = (
    Fault(1, "worker killed at random steps", ((TRAINING, "ten_random_steps"), (RAY, "killed_worker"), (SEARCH, "killed_trial_worker"))),
    Fault(2, "killed between two uploads", ((FAULTS, "between_any_two_uploads"), (CHECKPOINT, "interrupted_write or killed_run_has_begun"))),
    Fault(3, "second node lost", ((NODES, ""), (DISTRIBUTED, "resume_each_their_own"))),
    Fault(4, "Dagster step or driver killed, retried", ((FAULTS, "new_run_id"), (RAY, "killed_driver"))),
    Fault(5, "newest checkpoint damaged", ((CHECKPOINT, "damaged_checkpoint"), (RAY, "newest_valid_checkpoint"))),
    Fault(
        6,
        "Tune's state files damaged",
        ((SEARCH, "rays_files or goes_on_with_all_trials"), (STUDY, "damaged_entry")),
    ),
    Fault(7, "crash at every step of publishing", ((FAULTS, "step_of_publishing"), (STORE, "exception_while_writing"))),
    Fault(8, "object store: 500, 503, 403, reset, hang, cut bodies", ((S3, ""), (RAY, "cannot_be_stored"))),
    Fault(11, "the same work launched twice at once", ((RUNNER, "twice_at_once"), (JOBS, "not_doubled"))),
    Fault(
        17, "loss not finite, exploding gradient, collapse", ((TRAINING, "not_finite or exploding or collapse_stops"), (SEARCH, "prune_their_trial"))
    ),
    Fault(18, "disk full, read-only", ((FAULTS, "takes_no_more"), (STORE, "disk or unwritable"), (CHECKPOINT, "full_disk"))),
    Fault(
        19,
        "termination from the UI and from outside",
        (
            (TERMINATION, ""),
            (RAY, "interrupted_run"),
            (JOBS, "interrupt"),
            (SESSION, "interrupted_stage or one_private_cluster"),
            (PRIVATE, ""),
        ),
    ),
    # Beyond the twenty of the list: what went wrong for others
    Fault(21, "gc against a rollback", ((REMOVAL, "change_of_champion_waits_for_gc"), (LEASE, "work_beside_whom"))),
    Fault(
        22,
        "forget against a running stage",
        ((REMOVAL, "while_a_stage_is_at_work or after_the_forgetting"), (SHARING, "input_that_was_taken_out or waits_for_gc")),
    ),
    Fault(23, "a dead owner, and one that waits", ((LEASE, "is_killed or is_stopped or another_machine or taken_over"), (SHARED_HOME, "killed_run"))),
    Fault(24, "disk full at five sizes", ((FAULTS, "five_sizes"),)),
    Fault(25, "a store that becomes read-only", ((SHARING, "nobody_may_write"), (FAULTS, "remounted"))),
    Fault(26, "S3: a copy in the cache cut short", ((S3, "cached_copy or cannot_be_read_now or damaged_in_the_object_store"),)),
    Fault(27, "S3: expired credentials, a clock off by an hour", ((S3, "names_its_cause"), (LEASE, "whatever_the_clocks"))),
    Fault(28, "two UIs on one store", ((SHARED_HOME, "two_uis or same_partition or between_the_look"),)),
    Fault(29, "empty and damaged files of the store", ((SHARING, "damaged"), (CHAMPION, "damaged"), (STORE, "damaged or on_the_disk"))),
    Fault(30, "leftovers of killed runs", ((SHARING, "killed_run"),)),
    Fault(31, "a page of another site, sockets beyond loopback", ((DOORS, ""), (SOCKETS, ""))),
)


@dataclass
class Outcome:
    """Of a fault's tests; nothing found counts as a failure. `measured`: the largest of each figure that the tests have told."""

    passed: int = 0
    failed: int = 0
    names: list[str] = field(default_factory=list)  # of what failed
    measured: dict[str, float] = field(default_factory=dict)


def provoke(fault: Fault, quick: bool) -> Outcome:
    told = Outcome()
    for file, words in fault.tests:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "results.xml"
            command = [sys.executable, "-m", "pytest", "-q", "--timeout=600", f"--junitxml={out}", file, *(["-k", words] if words else [])]
            done = subprocess.run(command + (["-m", "not slow"] if quick else []), cwd=PROJECT, capture_output=True, text=True, check=False)
            cases = list(xml.parse(out).iter("testcase")) if out.exists() else []
        bad = [case.attrib["name"] for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = [case.attrib["name"] for case in cases if case.find("skipped") is not None]
        nothing = not cases and not (quick and done.returncode == 5)  # 5: all of them are slow ones
        told.passed += len(cases) - len(bad) - len(skipped)
        told.failed += len(bad) + len(skipped) + nothing
        told.names += [*bad, *(f"{name} (skipped)" for name in skipped), *([f"{file} -k '{words}': no test ran"] if nothing else [])]
        for figure in (figure.attrib for case in cases for figure in case.iter("property")):
            told.measured[figure["name"]] = max(float(figure["value"]), told.measured.get(figure["name"], 0.0))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of faults")
    parser.add_argument("--quick", action="store_true", help="without the slow tests")
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args()
    chosen = [fault for fault in BENCH if not given.only or fault.number in given.only]
    rows, trouble = [], []
    for fault in chosen:
        print(f"fault {fault.number}: {fault.what}", file=sys.stderr, flush=True)
        started = time.monotonic()
        told = provoke(fault, given.quick)
        seconds = time.monotonic() - started
        survived = "survived" if not told.failed else "FAILED"
        rows.append([str(fault.number), fault.what, str(told.passed), str(told.failed), f"{seconds:.0f}", survived])
        trouble += told.names
        if not given.no_record:
            figures = {"fault": fault.number, "what": fault.what, "passed": told.passed, "failed": told.failed, "seconds": round(seconds, 1)}
            record("faults", {**figures, "measured": told.measured, "quick": given.quick}, RESULTS)
    print_table("Fault bench", ["no.", "fault", "passed", "failed", "seconds", ""], rows)
    for name in trouble:
        print(f"  {name}")
    sys.exit(bool(trouble))


if __name__ == "__main__":
    main()
