"""The report's part on quality: every setting's runs beside their control, and whether a difference exceeds the spread of the seeds."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, stdev
from typing import Any

from benchmarks.tables import WHERE, Row, rows, table, where

FIGURES = {"recall@5": 4, "recall@10": 4, "ndcg@5": 4, "ndcg@10": 4, "validation_ndcg@10": 4, "unique_prefixes": 0, "drift": 3, "epochs_run": 0}
HEADER = ["R@5", "R@10", "N@5", "N@10", "N@10, validation", "unique prefixes", "drift", "epochs"]


def groups() -> dict[tuple[str, str, str], list[Row]]:
    """(data, label, variant) -> one line a seed."""
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for record in rows("quality", "data", "label", "variant", "seed"):
        found[record["data"], record["label"], record["variant"]].append(record)
    return found


def quality() -> str:
    """One line for each setting and variant: means and spreads over the seeds."""
    found = groups()
    if not found:
        return "## Quality\n\nNot measured: see the end of this page.\n"
    body = [_line(found, *key) for key in sorted(found, key=lambda k: (k[0], k[1], _rank(k[2])))]
    text = (
        "Test figures of the checkpoint with the best validation NDCG@10, full ranking, item-level; mean ± standard deviation over the seeds. "
        "Difference: N@10 minus that of the frozen control in the same setting; beyond: whether it exceeds the larger of the two spreads. "
        "Seconds of a run that had the device for itself; a dash where several shared it. Changes are to the paper's preset at history 20.\n\n"
    )
    columns = ["data", "setting", "variant", "seeds", *HEADER, "difference", "beyond", "seconds", "changes", *WHERE]
    return "## Quality\n\n" + text + table(columns, body)


def _rank(variant: str) -> tuple[int, str]:
    order = ["sasrec", "frozen", "detached", "none", "gumbel"]
    return (order.index(variant) if variant in order else len(order), variant)


def _line(found: dict[tuple[str, str, str], list[Row]], data: str, label: str, variant: str) -> list[Any]:
    runs = found[data, label, variant]
    alone = [run["seconds"] for run in runs if run.get("at_once", 1) == 1 and "seconds" in run]
    stopped = (
        ""
        if all(not run["alarm"] for run in runs)
        else f" ({sum(bool(run['alarm']) for run in runs)} of {len(runs)}: {next(run['alarm'] for run in runs if run['alarm'])})"
    )
    changes = " ".join(change for change in runs[-1].get("changes", []))
    figures = [_spread([run[name] for run in runs if name in run], digits) for name, digits in FIGURES.items()]
    compared = _beside(runs, found.get((data, label, "frozen"), [])) if variant != "frozen" and not variant.startswith("sasrec") else ["", ""]
    seconds = _spread(alone, 0) if alone else "-"
    return [data, label, variant + stopped, len(runs), *figures, *compared, seconds, changes, *where(runs[-1])]


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


EPOCHS = (15, 30, 45, 60, 67)


def same_epochs(data: str = "beauty", label: str = "") -> str:
    """Validation NDCG@10 at the same epochs of one schedule: a comparison that also holds for runs that a time limit cut short."""
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in rows("curves", "data", "label", "variant", "seed"):
        if (record["data"], record["label"]) == (data, label):
            for row in record["rows"]:
                curves[record["variant"]][row["epoch"]].append(row["validation_ndcg_10"])
    if not curves:
        return ""
    body = []
    for variant in sorted(curves, key=_rank):
        told = [curves[variant].get(epoch, []) for epoch in EPOCHS]
        body.append([variant, *(f"{_spread(values, 4)} ({len(values)})" if values else "" for values in told)])
    text = "Beauty, the paper's preset: validation NDCG@10 (seeds) after so many epochs of the same 120-epoch schedule.\n\n"
    return "### At the same epoch\n\n" + text + table(["variant", *(f"epoch {epoch}" for epoch in EPOCHS)], body)
