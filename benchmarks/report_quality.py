"""The report's part on quality: every setting's runs beside their control, and whether a difference exceeds the spread of the seeds."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, stdev
from typing import Any

from benchmarks.tables import Row, made_by, rows, table

FIGURES = {"recall@10": 4, "ndcg@10": 4, "unique_prefixes": 0, "drift": 3}
HEADER = ["R@10", "N@10", "unique prefixes", "drift"]


def groups() -> dict[tuple[str, str, str], list[Row]]:
    """(data, label, variant) -> one line a seed."""
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for record in rows("quality", "data", "label", "variant", "seed"):
        found[record["data"], record["label"], record["variant"]].append(record)
    return found


# Settings of the page, in its order; those of the pilots are in the records alone (`python -m benchmarks.rows quality`).
SHOWN = {
    "": "the paper's preset",
    "item factors 64": "with item factors",
    "distilled, but no teacher": "no dropout, cropped, no teacher",
    "distilled, with transitions": "taught by SASRec and transitions",
    "reference": "models that rank items directly",
}
DIRECT = {"sasrec": "SASRec", "sasrec x 3": "three SASRec", "sasrec x 3 and transitions 2": "three SASRec and transitions: the teacher"}


def quality() -> str:
    """One line for each setting and variant that the page shows: means and spreads over the seeds."""
    found = {key: runs for key, runs in groups().items() if key[1] in SHOWN and (key[1] != "reference" or key[2] in DIRECT)}
    found = {key: runs for key, runs in found.items() if len(runs) > 1 and key[2] != "detached"}  # one seed decides nothing
    if not found:
        return "## Quality\n\nNot measured.\n"
    order = list(SHOWN)
    body = [_line(found, *key) for key in sorted(found, key=lambda k: (k[0], order.index(k[1]), _rank(k[2])))]
    text = (
        "Test figures of the checkpoint with the best validation NDCG@10, full ranking, item-level; mean ± standard deviation over the seeds. "
        "Minus frozen: NDCG@10 minus the frozen model's in the same setting, and whether that exceeds the larger of the two spreads. "
        "Drift: share of the items whose ID changed.\n\n"
    )
    columns = ["data", "setting", "model", "seeds", *HEADER, "minus frozen", "beyond the seeds' spread"]
    return "## Quality, leave-one-out\n\n" + text + table(columns, body) + made_by([run for runs in found.values() for run in runs])


def _rank(variant: str) -> tuple[int, str]:
    order = ["sasrec", "frozen", "detached", "none", "gumbel"]
    return (order.index(variant) if variant in order else len(order), variant)


def _line(found: dict[tuple[str, str, str], list[Row]], data: str, label: str, variant: str) -> list[Any]:
    runs = found[data, label, variant]
    stopped = f" ({short} of {len(runs)} stopped early by a time limit)" if (short := sum(bool(run["alarm"]) for run in runs)) else ""
    figures = [_spread([run[name] for run in runs if name in run], digits) for name, digits in FIGURES.items()]
    compared = _beside(runs, found.get((data, label, "frozen"), [])) if variant != "frozen" and not variant.startswith("sasrec") else ["", ""]
    return [data, SHOWN[label], DIRECT.get(variant, variant) + stopped, len(runs), *figures, *compared]


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}" if len(values) > 1 else f"{values[0]:.{digits}f}"


def _beside(runs: list[Row], control: list[Row]) -> list[str]:
    if not control:
        return ["no control", ""]
    ours, theirs = ([run["ndcg@10"] for run in side] for side in (runs, control))
    difference = mean(ours) - mean(theirs)
    if min(len(ours), len(theirs)) < 2:
        return [f"{difference:+.4f}", "one seed"]
    spread = max(stdev(ours), stdev(theirs))
    return [f"{difference:+.4f}", "yes" if abs(difference) > spread else "no"]
