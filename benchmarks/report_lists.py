"""The report's part on lists: what is released beside the best baseline and the generative model alone, by the project's own temporal split."""

from __future__ import annotations

from typing import Any

from benchmarks.tables import Row, made_by, rows, table

NAMES = {"beauty-temporal": "Beauty", "retail-temporal": "online retail", "yelp-temporal": "Yelp"}


def lists() -> str:
    """The defaults on each data set and seed. The runs that change one piece are in the records (`python -m benchmarks.rows lists`)."""
    final = [row for row in rows("lists", "data", "run", "seed", "commit") if "model" in row.get("counts_to_the_test", {})]
    if not final:
        return ""
    text = (
        "Training ends at the 80% quantile of the event times, validation at the 90%; a user's target is the first event after that. NDCG@10, full "
        "ranking, 24 epochs, 2+2 layers of width 128, soft histories with one token an item. In brackets: 95% over users.\n\n"
    )
    columns = ["data", "model", "seed", "test users", "released lists", "model alone", "best baseline", "lists minus baseline"]
    columns += ["counted and refitted to the test"]
    return "## Lists and models, split by time\n\n" + text + table(columns, [_line(row) for row in final]) + made_by(final)


def _line(row: Row) -> list[Any]:
    test, eve, best = row["test"], row["counts_to_the_test"], row["best_baseline"]
    newest = f"lists {eve['lists'][1]:.4f}, model {eve['model'][1]:.4f}, baseline {eve[best][1]:.4f}"
    figures = [f"{test[name][1]:.4f}" for name in ("lists", "model", best)]
    baseline = f"{figures[2]} ({best.replace('item_item_text', 'item-item + text')})"
    return [NAMES[row["data"]], row["run"], row["seed"], row["test_users"], *figures[:2], baseline, _interval(row["lists - best"]), newest]


def _interval(found: list[float]) -> str:
    return f"{found[0]:+.4f} ({found[1]:+.4f} to {found[2]:+.4f})"
