"""Two models over several seeds: the mean paired difference of their NDCG@10, with the chance of seeds and of users in its interval.

    python -m benchmarks.list_pairs --ranks OUT/ranks --data beauty-temporal --pairs "joint-soft - frozen-soft" ...

With --period over every event of the test period, otherwise over each user's first. Both are names of runs of `benchmarks.lists`; "NAME:PART" names
another of its models than the model alone, such as "joint-soft:lists" or, counted up to the test, "joint-soft:lists, to the test". One line
a pair goes to <out>/list_pairs.jsonl. The seeds are those that both have; of one seed the interval over its users is told.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.common import record
from benchmarks.lists import EVE, PERIOD, ROWS
from diger_core.evaluation.crossed import crossed
from diger_core.evaluation.metrics import ndcg, paired_bootstrap


def gains(folder: Path, data: str, name: str, period: bool = False) -> dict[int, np.ndarray]:
    """NDCG@10 [T] of each seed of "RUN" or "RUN:PART", by seed. ValueError where there is no file.

    period: of all events after the test began. A user's value is its events' sum over the mean number of events a user, so that the mean over users
    is the mean over events.
    """
    run, _, part = name.partition(":")
    files = {int(path.stem.rpartition("--")[2]): path for path in sorted(folder.glob(f"{data}--{run}--*.safetensors"))}
    if not files:
        raise ValueError(f"{folder}: holds no ranks of run {run!r} on {data}: run benchmarks.lists with --out {folder.parent}")
    found = {seed: load_file(path) for seed, path in files.items()}
    if not period:
        return {seed: ndcg(ranks[part or "model"], 10) for seed, ranks in found.items()}
    gained = {}
    for seed, ranks in found.items():
        row_E = ranks[ROWS]
        many_T = np.bincount(row_E)
        gained[seed] = np.bincount(row_E, ndcg(ranks[period_key(part or "model")], 10)) * (len(many_T) / len(row_E))
    return gained


def period_key(part: str) -> str:
    """ "lists" -> "lists, all events"; "lists, to the test" -> "lists, all events, to the test"."""
    return f"{part.removesuffix(EVE)}{PERIOD}{EVE if part.endswith(EVE) else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=Path, required=True, help="folder that benchmarks.lists wrote")
    parser.add_argument("--data", required=True, help="name of the data's folder")
    parser.add_argument("--pairs", nargs="+", required=True, help='"FIRST - SECOND"')
    parser.add_argument("--period", action="store_true", help="all events of the test period, not each user's first")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    for pair in given.pairs:
        names = [name.strip() for name in pair.split(" - ")]
        if len(names) != 2:
            parser.error(f"{pair!r}: give two runs as 'FIRST - SECOND'")
        first, second = (gains(given.ranks, given.data, name, given.period) for name in names)
        seeds = sorted(first.keys() & second.keys())
        if not seeds:
            parser.error(f"{pair!r}: no seed has both")
        gain_SU = np.stack([first[seed] - second[seed] for seed in seeds])
        found = crossed(gain_SU)
        levels = {label: [round(float(each[seed].mean()), 5) for seed in seeds] for label, each in (("first_ndcg", first), ("second_ndcg", second))}
        told = {key: value if value is None else round(value, 5) for key, value in asdict(found).items()}
        if len(seeds) == 1:  # of these two models alone: another seed's may differ
            told["over_users"] = [round(value, 5) for value in paired_bootstrap(first[seeds[0]], second[seeds[0]], 1000, 0)]
        record(
            "list_pairs",
            {"data": given.data, "first": names[0], "second": names[1], "seeds": seeds, "period": given.period, "users": gain_SU.shape[1], **levels,
             **told, "word": found.word(len(seeds))},
            given.out,
        )  # fmt: skip


if __name__ == "__main__":
    main()
