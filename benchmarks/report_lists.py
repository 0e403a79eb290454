"""The report's part on lists: what is released beside the best baseline and the generative model alone, by the project's own temporal split."""

from __future__ import annotations

from typing import Any

from benchmarks.tables import Row, made_by, rows, table

NAMES = {"beauty-temporal": "Beauty", "retail-temporal": "online retail", "yelp-temporal": "Yelp"}
# The runs that change one piece, by the name in their record.
PIECES = {
    "frozen-hard": "look-ups, 40 epochs",
    "frozen-hard-f0": "... without item factors in the vectors",
    "frozen-soft": "soft histories",
    "joint-soft": "... and the tokenizer learns (FrqUD)",
    "frozen-all": "all four tokens of an item",
    "frozen-256": "width 256, dropout .2",
    "frozen-teach": "the tables as teacher (half of the targets, 2 synthetic histories a row)",
    "frozen-teach256": "... width 256 (.3 of the targets, 3 a row)",
    "frozen-t512": "... width 512, no dropout (half, 3 a row)",
    "frozen-t256c": "... width 256, no dropout (.9 of the targets, 3 a row)",
    "frozen-t256all": "... width 256, no dropout, all four tokens (half, 3 a row)",
    "frozen-t256": "**... width 256, no dropout** (half, 3 a row)",
}
SOUND = "2026-11-29T17:00"  # before, soft input blurred two of three codes; those rows are online retail's and Yelp's only ones


def lists() -> str:
    """What each piece adds on Beauty; then the other data sets. All runs are in the records (`python -m benchmarks.rows lists`)."""
    found = rows("lists", "data", "run", "seed", "commit")
    pieces = [row for row in found if row["data"] == "beauty-temporal" and row["time"] > SOUND and row["run"].partition(":")[0] in PIECES]
    others = [row for row in found if row["data"] != "beauty-temporal" and "model" in row.get("counts_to_the_test", {})]
    pieces.sort(key=lambda row: list(PIECES).index(row["run"].partition(":")[0]))
    return "\n".join(part for part in (_pieces(pieces), _others(others)) if part)


def _pieces(found: list[Row]) -> str:
    if not found:
        return ""
    text = (
        "Training ends at the 80% quantile of the event times, validation at the 90%; a user's target is the first event after that. NDCG@10, full "
        "ranking, 2+2 layers of width 128 with one token an item where nothing else is said, one seed. Brackets: 95% over users.\n\n"
    )
    columns = ["model", "validation, alone", "test, alone", "... on new items", "alone minus item-item + text", "released lists", "lists minus it"]
    body = [
        [PIECES[row["run"].partition(":")[0]], f"{row['validation_model']:.4f}", f"{row['test']['model'][1]:.4f}", f"{row['new_items']['model']:.4f}",
         _interval(row["model - item_item_text"]), f"{row['test']['lists'][1]:.4f}", _interval(row["lists - best"])]
        for row in found
    ]  # fmt: skip
    return "## What each piece adds: Beauty, split by time\n\n" + text + table(columns, body) + made_by(found)


def _others(found: list[Row]) -> str:
    if not found:
        return ""
    text = "As above, 24 epochs, soft histories **with the blur**; not trained again.\n\n"
    columns = ["data", "seed", "test users", "released lists", "model alone", "best baseline", "lists minus baseline"]
    columns += ["counted and refitted to the test"]
    return "## Other data, split by time\n\n" + text + table(columns, [_line(row) for row in found]) + made_by(found)


def _line(row: Row) -> list[Any]:
    test, eve, best = row["test"], row["counts_to_the_test"], row["best_baseline"]
    newest = f"lists {eve['lists'][1]:.4f}, model {eve['model'][1]:.4f}, baseline {eve[best][1]:.4f}"
    figures = [f"{test[name][1]:.4f}" for name in ("lists", "model", best)]
    return [NAMES[row["data"]], row["seed"], row["test_users"], *figures[:2], f"{figures[2]} ({best})", _interval(row["lists - best"]), newest]


def _interval(found: list[float]) -> str:
    return f"{found[0]:+.4f} ({found[1]:+.4f} to {found[2]:+.4f})"
