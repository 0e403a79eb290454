"""The report's part on lists: what is released beside the best baseline and the generative model alone, by the project's own temporal split."""

from __future__ import annotations

from benchmarks.lists import COUNTS, EVE
from benchmarks.tables import Row, lines, made_by, rows, table

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
# What the pairs over seeds compare: lists and baselines as they are counted on the eve of the test, models as they were trained.
PAIRED = {
    "joint-pair": "joint (FrqUD), alone",
    "joint-pair-sdud": "joint (SDUD), alone",
    "joint-pair-none": "joint (no noise), alone",
    "frozen-pair": "frozen, alone",
    "joint-pair:lists, to the test": "lists, joint",
    "frozen-pair:lists, to the test": "lists, frozen",
    "frozen-pair:item_item_text": "item-item + text, training events",
    "frozen-pair:item_item_text, to the test": "item-item + text",
    "frozen-pair:repeat, to the test": "repeat rule",
    "frozen-pair:repeat": "repeat rule, training events",
    "frozen-pair:lists": "lists, training events",
}
LISTS = f":lists{EVE}"
DATA = {"beauty-temporal": "Beauty", "retail-temporal": "online retail", "yelp-temporal": "Yelp", "ml-temporal": "MovieLens 100k"}
SOUND = "2026-11-29T17:00"  # before, soft input blurred two of three codes


def lists() -> str:
    """What each piece adds on Beauty; then models over seeds. All runs are in the records (`python -m benchmarks.rows lists`)."""
    found = rows("lists", "data", "run", "seed", "commit")
    sound = [row for row in found if row["data"] == "beauty-temporal" and row["time"] > SOUND]
    pieces = [row for row in sound if row["run"].partition(":")[0] in PIECES and row["seed"] == 0]
    pieces.sort(key=lambda row: list(PIECES).index(row["run"].partition(":")[0]))
    return "\n".join(part for part in (_released(found), _pairs(), _pieces(pieces)) if part)


def _released(found: list[Row]) -> str:
    """The lists beside the best baseline, with a model and without one."""
    counts = {row["data"]: row for row in found if row["run"] == COUNTS}
    with_model = [
        row
        for row in _of_pairs(period=False)
        if row["first"].endswith(LISTS) and row["second"].endswith(EVE) and LISTS not in row["second"] and row["data"] in counts
    ]
    if not with_model:
        return ""
    whole = {(row["data"], row["first"], row["second"]): row for row in _of_pairs(period=True)}
    text = (
        "Settings are chosen on validation, then lists and baselines are counted up to the test period, as on the day that they would serve. Models "
        "are trained to the validation period. NDCG@10 of each user's first event after that; full ranking; brackets: 95% over seeds and users.\n\n"
    )
    columns = ["data", "users", "best baseline", "lists, no model", "... minus it", "lists, frozen model, by seed", "... minus it", "verdict",
               "over all events of the period"]  # fmt: skip
    body = []
    for row in with_model:
        alone, all_events = counts[row["data"]], whole[row["data"], row["first"], row["second"]]
        eve = alone["to_the_test"]
        body.append(
            [DATA[row["data"]], f"{eve['test_users']:,}", f"{row['second_ndcg'][0]:.4f} ({PAIRED[row['second']]})", f"{eve['test']['lists'][1]:.4f}",
             _interval(eve["lists - best"]), _levels(row["first_ndcg"]), _interval([row["mean"], row["low"], row["high"]]), row["word"],
             f"{_interval([all_events['mean'], all_events['low'], all_events['high']])}, {all_events['word']}"]
        )  # fmt: skip
    return "## Released lists beside counting\n\n" + text + table(columns, body) + made_by([*counts.values(), *with_model])


def _pieces(found: list[Row]) -> str:
    if not found:
        return ""
    text = (
        "Training ends at the 80% quantile of the event times, validation at the 90%; a user's target is the first event after that. NDCG@10, full "
        "ranking, 2+2 layers of width 128 with one token an item where nothing else is said, one seed. Brackets: 95% over users. Item-item + text is "
        "counted in training events, as the models are trained.\n\n"
    )
    columns = ["model", "validation, alone", "test, alone", "... on new items", "alone minus item-item + text"]
    body = [
        [PIECES[row["run"].partition(":")[0]], f"{row['validation_model']:.4f}", f"{row['test']['model'][1]:.4f}", f"{row['new_items']['model']:.4f}",
         _interval(row["model - item_item_text"])]
        for row in found
    ]  # fmt: skip
    return "## What each piece adds: Beauty, split by time\n\n" + text + table(columns, body) + made_by(found)


def _of_pairs(period: bool) -> list[Row]:
    """The newest of each pair that has several seeds."""
    told = [
        row
        for row in lines("list_pairs")
        if len(row["seeds"]) > 1 and bool(row.get("period")) is period and {row["first"], row["second"]} <= PAIRED.keys()
    ]
    return list({(row["data"], row["first"], row["second"]): row for row in told}.values())


def _pairs() -> str:
    """Models over seeds; the ranks behind them came from the device that trained."""
    found = [
        row
        for row in _of_pairs(period=False)
        if not row["first"].endswith(LISTS) or not row["second"].startswith("frozen-pair:") or LISTS in row["second"]
    ]
    if not found:
        return ""
    text = (
        "## Over seeds, split by time\n\nNDCG@10, soft histories, 40 epochs (others than Beauty 24); lists counted up to the test, models alone and "
        "what is said to be counted in training events to its training end; brackets: 95% over seeds and users together.\n\n"
    )
    columns = ["data", "first", "second", "seeds", "first, by seed", "second, by seed", "first minus second", "verdict"]
    body = [
        [DATA[row["data"]], PAIRED[row["first"]], PAIRED[row["second"]], len(row["seeds"]), _levels(row["first_ndcg"]), _levels(row["second_ndcg"]),
         _interval([row["mean"], row["low"], row["high"]]), row["word"]]
        for row in found
    ]  # fmt: skip
    return text + table(columns, body)


def _levels(found: list[float]) -> str:
    return f"{found[0]:.4f}" if len(set(found)) == 1 else ", ".join(f"{value:.4f}" for value in found)


def _interval(found: list[float]) -> str:
    return f"{found[0]:+.4f} ({found[1]:+.4f} to {found[2]:+.4f})"
