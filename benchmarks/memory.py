"""Memory and seconds of the stages that grow with events and users, at two sizes or more, so that the cost of one more event is seen.

    python -m benchmarks.memory [--events 1000000 4000000] [--parts stages blocks factors neighbours batches evaluation many_users lists]
        [--in FOLDER]

Each part runs in a process of its own; a figure is its peak resident memory, and what it holds above the one of the smallest size, divided by
the further events (or users). Events are invented: a user has 20, items are drawn by a Zipf law, one item for 50 events. The stages run as
`diger stage` does, from Parquet to sequences; `blocks`: the work on events shared by two workers of Ray Data, where the peak is the driver's.
Appends one JSON line for each stage and size to benchmarks/results/memory.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import record
from diger_core.data.sequences import Sequences
from diger_core.store.artefacts import Store

RESULTS = Path(__file__).parent / "results"
STAGES = ("raw_interactions", "raw_items", "validated_items", "validated_interactions", "sequences")
BLOCKS, BLOCK_EVENTS = (*STAGES, "embeddings", "neighbours"), 250_000
PER_USER, PER_ITEM, START, YEAR = 20, 50, 1_700_000_000, 31_536_000
WRITTEN = 1 << 20  # events of one part file
LISTED = 8192  # users whose lists are mixed


def shop(folder: Path, events: int, seed: int = 0) -> None:
    """A snapshot of so many events, in part files; nothing here holds all of them."""
    items, users = max(events // PER_ITEM, 10), max(events // PER_USER, 10)
    random = np.random.Generator(np.random.Philox(key=seed))
    (folder / "interactions.parquet").mkdir(parents=True)
    titles = pa.array([f"thing {item} of kind {item % 997}" for item in range(items)])
    pq.write_table(pa.table({"item_id": np.arange(items), "title": titles}), folder / "items.parquet")
    for part, first in enumerate(range(0, events, WRITTEN)):
        count = min(WRITTEN, events - first)
        # a share of 1 / x of the draws below x times the least popular: few items are most of the events
        item_e = np.minimum(items - 1, np.exp(random.random(count) * np.log(items + 1)).astype(np.int64) - 1)
        user_e, time_e = random.integers(0, users, count), START + random.integers(0, YEAR, count)
        table = pa.table({"user_id": user_e, "item_id": (item_e * 7919) % items, "timestamp": time_e})
        pq.write_table(table, folder / "interactions.parquet" / f"part-{part:05d}.parquet")


def stages(folder: Path, names: tuple[str, ...] = STAGES, store: str = "store", *settings: str) -> Iterator[tuple[str, float, float]]:
    """(stage, seconds, peak MiB) of the stages, each in a process of its own, as their records have them."""
    for stage in names:
        started = time.perf_counter()
        given = ["stage", stage, "--snapshot", str(folder / "snapshot"), "--store", str(folder / store)]
        apart("from orchestration.cli import main; main()", *given, *(word for setting in settings for word in ("--set", setting)))
        root = Store(str(folder / store)).root
        (path,) = [path for path in root.stamps("records", stage) if path.endswith(".json")]
        found = json.loads(root.read("records", stage, *path.split("/")))
        yield stage, time.perf_counter() - started, float(_peak(found))


def blocks(folder: Path) -> Iterator[tuple[str, float, float]]:
    """The same, where the work on events is shared by blocks."""
    for stage, seconds, peak in stages(folder, BLOCKS, "blocks", f"cluster.block_events={BLOCK_EVENTS}", "cluster.workers=2"):
        if stage in ("validated_interactions", "sequences", "neighbours"):
            yield f"{stage}, blocks", seconds, peak


def _peak(record_: object) -> float:
    """peak_memory_mb, wherever the record has it."""
    if isinstance(record_, dict):
        for name, value in record_.items():
            found = float(value) if name == "peak_memory_mb" else _peak(value)
            if found:
                return found
    return 0.0


def _sequences(folder: Path) -> Sequences:
    store = Store(str(folder / "store"))
    (hash_,) = store.root.list("artefacts", "sequences")
    return Sequences.from_tensors(store.artefact("sequences", hash_).tensors("sequences.safetensors"))


def factors(folder: Path) -> None:
    from diger_core.data.item_factors import item_factors

    item_factors(_sequences(folder), 64, 0)


def neighbours(folder: Path) -> None:
    from diger_core.config import NeighboursConfig
    from diger_core.data.neighbours import transitions

    transitions(_sequences(folder), NeighboursConfig())


def batches(folder: Path) -> None:
    from diger_core.data.batches import Batches

    next(iter(Batches(_sequences(folder), 256, 20, 0).epoch(0)))


def evaluation(folder: Path) -> None:
    """Ten models' ranks of every user, as many users as events / 20, with 1,000 bootstrap draws and every event of the test period."""
    _evaluated(_sequences(folder))


def many_users(folder: Path) -> None:
    """The same of four times as many users: each user's events are parted in four, and each part's last event is its target."""
    seq = _sequences(folder)
    quarter_U4 = seq.offsets_U1[:-1, None] + np.diff(seq.offsets_U1)[:, None] * np.arange(4) // 4
    _evaluated(replace(seq, offsets_U1=np.append(quarter_U4.ravel(), seq.offsets_U1[-1]), boundaries=None))


def _evaluated(seq: Sequences) -> None:
    from diger_core.config import EvaluationConfig
    from diger_core.data.splits import targets
    from diger_core.evaluation.metrics import ranks
    from diger_core.evaluation.period import WholePeriod
    from diger_core.evaluation.ranking import EvaluationResult, joined
    from diger_core.evaluation.ranking import evaluation as judged
    from orchestration.verdict.evaluation import BLOCK

    (users_T, _, target_T), config = targets(seq, "test"), EvaluationConfig()
    random, blocks = np.random.Generator(np.random.Philox(key=0)), []
    period = None if seq.boundaries is None else WholePeriod(seq, config)
    for start in range(0, len(users_T), BLOCK):
        users_t, target_t = users_T[start : start + BLOCK], target_T[start : start + BLOCK]
        found = {}
        for model in range(10):
            items_tk = random.integers(0, seq.items, (len(users_t), 10), dtype=np.int32)
            hit_t = random.random(len(users_t)) < 0.1
            items_tk[hit_t, random.integers(0, 10, int(hit_t.sum()))] = target_t[hit_t]
            found[f"model {model}"] = EvaluationResult(users_t, target_t, ranks(items_tk, target_t), items_tk)
        if period is not None:
            period.add(found)
        blocks.append({name: result.without_lists() for name, result in found.items()})
    judged(joined(blocks), seq, config)
    if period is not None:
        period.document()


def lists(folder: Path) -> float:
    """Seconds of the mixture of beams and counts for 8,192 users, as recommendations make it; the beams are drawn, not searched."""
    from diger_core.config import NeighboursConfig
    from diger_core.data.neighbours import empty_table, transitions
    from diger_core.evaluation.counts import Counts
    from diger_core.evaluation.recipes import Recipe, ranked

    seq = _sequences(folder)
    counts = Counts.of(seq, transitions(seq, NeighboursConfig()), empty_table(seq.items))
    recipe = Recipe(dict.fromkeys(("generative", "transitions", "repeat", "recent", "popular"), 0.2), counts.tau)
    random, users_T = np.random.Generator(np.random.Philox(key=0)), np.arange(LISTED)
    beams = random.integers(0, seq.items, (LISTED, 50), dtype=np.int32), random.random((LISTED, 50), dtype=np.float32)
    started = time.perf_counter()
    ranked(recipe, counts, seq, users_T, seq.offsets_U1[users_T + 1], 10, beams)
    return time.perf_counter() - started


PARTS: dict[str, Callable[[Path], float | None]] = {
    "factors": factors,
    "neighbours": neighbours,
    "batches": batches,
    "evaluation": evaluation,
    "many_users": many_users,
    "lists": lists,
}


def measured(part: str, folder: Path) -> tuple[float, float]:
    """(seconds, peak MiB) of one part in a process of its own."""
    seconds, peak = json.loads(apart(f"from benchmarks.memory import alone; alone({part!r}, {str(folder)!r})").splitlines()[-1])
    return seconds, peak


def apart(code: str, *arguments: str) -> str:
    """What a Python process prints. A shell lies between: Linux counts what a process held when it started another one as the other one's peak."""
    done = subprocess.run(["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments) or code}: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout


def alone(part: str, folder: str) -> None:
    """What `measured` starts: prints [seconds, peak MiB]."""
    from orchestration.engine.memory import PeakMemory

    peak, started = PeakMemory(), time.perf_counter()
    own = PARTS[part](Path(folder))
    print(json.dumps([own or time.perf_counter() - started, peak.mebibytes()["peak_memory_mb"]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--parts", nargs="+", choices=["stages", "blocks", *PARTS], default=["stages", *PARTS])
    parser.add_argument("--in", dest="folder", type=Path, help="where snapshot and store are made, and kept [a temporary folder]")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    smallest: dict[str, tuple[int, float]] = {}
    with contextlib.ExitStack() as stack:
        place = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diger-memory-")))
        for events in sorted(given.events):
            folder = place / str(events)
            if not (folder / "snapshot" / "items.parquet").exists():
                shop(folder / "snapshot", events)
            done: Iterator[tuple[str, float, float]] = stages(folder) if "stages" in given.parts else iter(())
            shared = blocks(folder) if "blocks" in given.parts else iter(())
            others = ((part, *measured(part, folder)) for part in given.parts if part in PARTS)
            for what, seconds, peak in (each for found in (done, shared, others) for each in found):
                fewer, held = smallest.setdefault(what, (events, peak))
                slope = (peak - held) * 2**20 / (events - fewer) if events > fewer else None
                told = {"what": what, "events": events, "seconds": round(seconds, 2), "peak_mb": peak, "bytes_an_event": slope and round(slope, 1)}
                record("memory", {**told, "users": max(events // PER_USER, 10), "items": max(events // PER_ITEM, 10)}, given.out)


if __name__ == "__main__":
    main()
