"""The audit: speed of `why` and `where-used` on a store of thousands of artefacts, of `why --verify` beside sha256sum, and the table of damages.

    python -m benchmarks.audit [--artefacts 10000] [--megabytes 1024] [--s3]

Everything is made in a temporary folder. `--s3` starts the tests' S3 server on loopback and asks the same there, on a smaller store.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import record
from diger_core.store.artefacts import Store

OUT = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artefacts", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--only", choices=["questions", "hashing", "damages"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="diger-audit-") as folder, contextlib.ExitStack() as stack:
        os.environ["DIGER_CACHE"] = str(Path(folder) / "cache")
        where = "local disk"
        place: Callable[[str], str] = lambda name: str(Path(folder) / name)  # noqa: E731
        if given.s3:
            bucket = stack.enter_context(_s3(Path(folder)))
            where, place = "S3 server (Swift) on loopback", lambda name: f"{bucket}/{name}"
        for name, work in {"questions": questions, "hashing": hashing, "damages": damages}.items():
            if given.only in (None, name) and not (name == "hashing" and given.s3):
                work(Path(folder), place, where, given)


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[str]:
    from tests.support.s3 import make_bucket, s3_server

    with s3_server(folder / "swift") as environment:
        os.environ.update(environment)
        yield make_bucket(environment, "audit")


def diger(*arguments: str) -> float:
    """Seconds of a whole process, start included."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from orchestration.cli import main; main()", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr or done.stdout[-500:])
    return time.perf_counter() - started


def questions(folder: Path, place: Callable[[str], str], where: str, given: Any) -> None:
    """`why` of a report and `where-used` of the newest and the oldest snapshot: process start included and not; first question and later ones; on an
    object store also a machine's first question where another has asked before."""
    from benchmarks.audit_store import generate

    store = Store(place("many"))
    runs = generate(store, given.artefacts)
    report, count = runs[-1]["report"], sum(len(run) for run in runs)
    newest, oldest = f"day-{len(runs) - 1}", f"day-0-{_key(store, 'day-0-')}"
    first = diger("why", report, "--store", store.url)
    asked = {
        "why report": ("why", report),
        "why report --json": ("why", report, "--json"),
        "where-used newest snapshot": ("where-used", newest + "-" + _key(store, newest + "-")),
        "where-used oldest snapshot": ("where-used", oldest),
    }
    inside = {"why report": _why, "where-used newest snapshot": _used, "where-used oldest snapshot": _used}
    record("audit_questions", {"question": "why report, nothing cached", "where": where, "artefacts": count, "seconds": first}, OUT)
    for name, arguments in asked.items():
        taken = statistics.median(diger(*arguments, "--store", store.url) for _ in range(5))
        figures = {"question": name, "where": where, "artefacts": count, "seconds": taken}
        if name in inside:
            figures["seconds_without_start"] = statistics.median(inside[name](store.url, arguments[1]) for _ in range(5))
        record("audit_questions", figures, OUT)
    if not store.root.is_local:
        figures = {"question": "why report, nothing cached, index object there", "where": where, "artefacts": count}
        record("audit_questions", {**figures, **_uncached(folder, store.url, report)}, OUT)


def _uncached(folder: Path, url: str, report: str) -> dict[str, float]:
    """Medians of five machines that have never asked, each with a cache of its own."""
    kept = os.environ["DIGER_CACHE"]
    whole, inside = [], []
    for number in range(5):
        os.environ["DIGER_CACHE"] = str(folder / f"cache-{number}-process")
        whole.append(diger("why", report, "--store", url))
        os.environ["DIGER_CACHE"] = str(folder / f"cache-{number}-question")
        inside.append(_why(url, report))
    os.environ["DIGER_CACHE"] = kept
    return {"seconds": statistics.median(whole), "seconds_without_start": statistics.median(inside)}


def _key(store: Store, prefix: str) -> str:
    return next(name for name in store.root.list("snapshots") if name.startswith(prefix)).removeprefix(prefix).removesuffix(".json")


def _why(url: str, what: str) -> float:
    from orchestration.audit import tree
    from orchestration.audit.chain import chain
    from orchestration.audit.index import Index
    from orchestration.audit.names import resolve

    started = time.perf_counter()
    index = Index(Store(url))
    list(tree.text(index, chain(index, resolve(index, what))))
    return time.perf_counter() - started


def _used(url: str, what: str) -> float:
    from orchestration.audit.forward import where_used
    from orchestration.audit.index import Index
    from orchestration.audit.names import resolve

    started = time.perf_counter()
    index = Index(Store(url))
    where_used(index, resolve(index, what))
    return time.perf_counter() - started


def hashing(folder: Path, place: Callable[[str], str], where: str, given: Any) -> None:
    """`why --verify` and sha256sum in turns over the same files, both from the page cache, one and all processors."""
    from orchestration.audit.chain import chain
    from orchestration.audit.index import Index
    from orchestration.audit.names import Thing
    from orchestration.audit.verify import verify_chain

    store = Store(place("large"))
    with store.writer("raw_items") as out:
        for number in range(8):
            out.bytes(f"part-{number}.bin", os.urandom(given.megabytes * (1 << 20) // 8))
        artefact = store.publish(out)
    made = {"artefact": artefact.hash, "manifest": artefact.manifest_hash, "inputs": {}, "started_at": "2026-01-01T00:00:00+00:00"}
    store.append_record("raw_items", "0" * 64, made)
    files = [str(artefact.path(name)) for name in artefact.names]
    total = sum(int(entry["bytes"]) for entry in artefact.manifest["files"])
    ours, theirs, parallel = [], [], []
    for _ in range(5):
        theirs.append(_timed(lambda: subprocess.run(["sha256sum", *files], capture_output=True, check=True)))
        parallel.append(
            _timed(
                lambda: subprocess.run(
                    ["xargs", "-P", str(os.cpu_count()), "-n1", "sha256sum"], input="\n".join(files).encode(), check=True, capture_output=True
                )
            )
        )
        index = Index(store, cached=False)
        found = chain(index, Thing("artefact", artefact.hash))
        ours.append(_timed(lambda index=index, found=found: _sound(verify_chain(index, found))))
    figures = {"why --verify": ours, "sha256sum": theirs, f"sha256sum, {os.cpu_count()} at once": parallel}
    for name, seconds in figures.items():
        rate = total / statistics.median(seconds) / 1e6
        record(
            "audit_hashing",
            {
                "what": name,
                "bytes": total,
                "mb_per_second": rate,
                "of_sha256sum": statistics.median(theirs) / statistics.median(seconds),
                "of_parallel": statistics.median(parallel) / statistics.median(seconds),
                "cpus": os.cpu_count(),
            },
            OUT,
        )


def _sound(outcome: Any) -> None:
    if outcome.faults:
        raise RuntimeError(outcome.faults[0])


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def damages(folder: Path, place: Callable[[str], str], where: str, given: Any) -> None:
    """Each damage done to a store of two releases, asked about, and undone."""
    import torch

    from benchmarks.tamper import CASES, Damage, Scene, copy_store, try_case
    from tests.support.audit_world import audit_world

    torch.set_num_threads(1)
    world = audit_world(folder / "world")
    store = Store(place("damaged"))
    copy_store(world.store, store)
    scene = Scene(Damage(store), "champion", world.runs[1], world.runs[0])
    for case in CASES:
        right, line = try_case(scene, case)
        said = line.replace(str(folder), "").replace(store.url, "<store>")
        said = said.replace(place("damaged"), "<store>")
        record("audit_damages", {"damage": case.name, "where": where, "right": right, "passes": case.passes, "said": said}, OUT)


if __name__ == "__main__":
    main()
