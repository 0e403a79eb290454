"""The report's part on lists: what is released beside the best baseline and the generative model alone, by the project's own temporal split."""

from __future__ import annotations

from benchmarks.tables import Row, made_by, rows, table

# The runs that change one piece, by the name in their record.
PIECES = {
    "frozen-hard": "look-ups, 40 epochs",
    "frozen-hard-f0": "... without item factors in the vectors",
    "frozen-soft": "soft histories",
    "joint-soft": "... and the tokenizer learns (FrqUD)",
    "frozen-all": "all four tokens of an item",
    "frozen-teach": "the tables as teacher (half of the targets, 2 synthetic histories a row)",
    "frozen-teach256": "... width 256 (.3 of the targets, 3 a row)",
    "frozen-t256all": "... width 256, no dropout, all four tokens (half, 3 a row)",
    "frozen-t256": "**... width 256, no dropout** (half, 3 a row)",
}
# What the pairs over seeds compare.
PAIRED = {
    "joint-pair": "joint, alone",
    "frozen-pair": "frozen, alone",
    "joint-pair:lists": "joint, lists",
    "frozen-pair:lists": "frozen, lists",
    "joint-pair:item_item_text": "item-item + text",
    "frozen-pair:item_item_text": "item-item + text",
    "frozen-pair:repeat": "repeat rule",
}
# Data sets and protocols beside Beauty by time: (data, run) -> (data, protocol).
OTHERS = {
    ("yelp-temporal", "frozen-pair"): ("Yelp", "by time; soft histories"),
    ("beauty-loo", "frozen-t256loo"): ("Beauty", "leave-one-out, file order; taught, width 256"),
    ("beauty-loo-hashed", "frozen-t256loo"): ("Beauty", "leave-one-out, hashed ties; the same"),
}
BASELINES = {"item_item_text": "item-item + text", "repeat": "repeat rule", "item_item": "item-item", "text": "text"}
DATA = {"beauty-temporal": "Beauty", "retail-temporal": "online retail"}
SOUND = "2026-11-29T17:00"  # before, soft input blurred two of three codes


def lists() -> str:
    """What each piece adds on Beauty; then models over seeds. All runs are in the records (`python -m benchmarks.rows lists`)."""
    found = rows("lists", "data", "run", "seed", "commit")
    sound = [row for row in found if row["data"] == "beauty-temporal" and row["time"] > SOUND]
    pieces = [row for row in sound if row["run"].partition(":")[0] in PIECES and row["seed"] == 0]
    pieces.sort(key=lambda row: list(PIECES).index(row["run"].partition(":")[0]))
    newest = [row for row in found if (row["data"], row["run"].partition(":")[0]) in OTHERS and row["seed"] == 0]
    return "\n".join(part for part in (_pieces(pieces), _pairs(), _others(newest)) if part)


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


def _pairs() -> str:
    """Models over seeds; the ranks behind them came from the device that trained."""
    found = [row for row in rows("list_pairs", "data", "first", "second") if len(row["seeds"]) > 1 and {row["first"], row["second"]} <= PAIRED.keys()]
    if not found:
        return ""
    text = (
        "## Over seeds, split by time\n\nNDCG@10, soft histories, FrqUD, 40 epochs (online retail 24); brackets: 95% over seeds and users "
        "together.\n\n"
    )
    columns = ["data", "first", "second", "seeds", "first, by seed", "second, by seed", "first minus second", "verdict"]
    body = [
        [DATA[row["data"]], PAIRED[row["first"]], PAIRED[row["second"]], len(row["seeds"]), _levels(row["first_ndcg"]), _levels(row["second_ndcg"]),
         _interval([row["mean"], row["low"], row["high"]]), row["word"]]
        for row in found
    ]  # fmt: skip
    return text + table(columns, body)


def _others(found: list[Row]) -> str:
    """One line a data set and protocol, the first seed."""
    if not found:
        return ""
    found.sort(key=lambda row: list(OTHERS).index((row["data"], row["run"].partition(":")[0])))
    text = "## Other data, other protocol\n\nOne seed; NDCG@10 unless said; brackets: 95% over users.\n\n"
    columns = ["data", "split and model", "users", "model alone, R@10 / N@10", "best baseline", "released lists, R@10 / N@10", "lists minus baseline"]
    body = [
        [*OTHERS[row["data"], row["run"].partition(":")[0]], f"{row['test_users']:,}", _both(row, "model"),
         f"{row['test'][row['best_baseline']][1]:.4f} ({BASELINES[row['best_baseline']]})", _both(row, "lists"), _interval(row["lists - best"])]
        for row in found
    ]  # fmt: skip
    return text + table(columns, body) + made_by(found)


def _both(row: Row, name: str) -> str:
    return " / ".join(f"{value:.4f}" for value in row["test"][name])


def _levels(found: list[float]) -> str:
    return f"{found[0]:.4f}" if len(set(found)) == 1 else ", ".join(f"{value:.4f}" for value in found)


def _interval(found: list[float]) -> str:
    return f"{found[0]:+.4f} ({found[1]:+.4f} to {found[2]:+.4f})"
