"""The report's part on lists: what is released beside the best baseline and the generative model alone, by the project's own temporal split."""

from __future__ import annotations

from benchmarks.lists import COUNTS, EVE, PLACED
from benchmarks.tables import Row, lines, made_by, rows, table

# The runs that change one piece, by the name in their record.
PIECES = {
    "frozen-hard": "look-ups, 40 epochs",
    "frozen-soft": "soft histories",
    "joint-soft": "... and the tokenizer learns (FrqUD)",
    "frozen-all": "all four tokens of an item",
    "frozen-teach": "the tables as teacher (half of the targets, 2 synthetic histories a row)",
    "frozen-t256": "... width 256, no dropout (half, 3 a row)",
    "frozen-t256a": "**... its histories age as the best baseline's** (tau 1.5 instead of 5; 75 epochs instead of 51)",
}
# What the pairs over seeds compare: lists and baselines as they are counted on the eve of the test, models as they were trained.
PAIRED = {
    "joint-pair": "joint (FrqUD), alone",
    "joint-pair-sdud": "joint (SDUD), alone",
    "frozen-pair": "frozen, alone",
    "frozen-pair:lists, to the test": "lists, frozen",
    "frozen-pair:item_item_text": "item-item + text, training events",
    "frozen-pair:item_item_text, to the test": "item-item + text",
    "frozen-pair:repeat, to the test": "repeat rule",
    "frozen-pair:repeat": "repeat rule, training events",
    "frozen-t256a": "frozen, wide and taught, alone",
    f"frozen-t256a:{PLACED}": "frozen, wide and taught, alone, new items placed",
    "frozen-t256a:item_item_text": "item-item + text, training events",
    "frozen-t256a:item_item_text, to the test": "item-item + text",
    "frozen-t256a:lists, to the test": "lists, frozen, wide, taught and refitted",
    "frozen-t256a:model, to the test": "frozen, wide, taught and refitted, alone",
    "counts:lists, to the test": "lists, no model",
}
LISTS = f":lists{EVE}"
DATA = {"beauty-temporal": "Beauty", "retail-temporal": "online retail", "yelp-temporal": "Yelp", "ml-temporal": "MovieLens 100k"}
SOUND = "2026-11-29T17:00"  # before, soft input blurred two of three codes
FACTOR = "2026-11-30T10:35"  # before, the lists had no factor for new items
# The published protocol, by the order of events of one moment: what of the records is in the table.
PUBLISHED = {
    ("beauty-loo-hashed", "frozen-t256loo"): "hashed order",
    ("beauty-loo-hashed", "frozen-t256loo-unseen"): "hashed order, seen items left out",
    ("beauty-loo", "frozen-t256loo"): "the file's order",
    ("beauty-loo", "frozen-t256loo-unseen"): "the file's order, seen items left out",
}


def lists() -> str:
    """What each piece adds on Beauty; then models over seeds. All runs are in the records (`python -m benchmarks.rows lists`)."""
    found = rows("lists", "data", "run", "seed", "commit")
    sound = [row for row in found if row["data"] == "beauty-temporal" and row["time"] > SOUND]
    first = {row["run"].partition(":")[0]: row for row in reversed(sound) if row["seed"] == 0 and "validation_model" in row}
    pieces = [first[name] for name in PIECES if name in first]
    return "\n".join(part for part in (_released(found), _published(found), _pairs(), _pieces(pieces)) if part)


def _is_released(row: Row) -> bool:
    """Lists beside a baseline, both counted up to the test."""
    return row["first"].endswith(LISTS) and row["second"].endswith(EVE) and LISTS not in row["second"]


def _is_added(row: Row) -> bool:
    """Lists with a model beside lists without one."""
    return row["first"].endswith(LISTS) and row["second"] == COUNTS + LISTS


def _released(found: list[Row]) -> str:
    """The lists beside the best baseline, and beside lists without a model."""
    counts = {row["data"]: row for row in found if row["run"] == COUNTS}
    pairs = _of_pairs(period=False)
    with_model = [row for data in counts for row in pairs if row["data"] == data and _is_released(row)]
    if not with_model:
        return ""
    added = {(row["data"], row["first"]): row for row in pairs if _is_added(row)}
    text = (
        "Settings are chosen on validation, then lists and baselines are counted up to the test period, as on the day that they would serve. Models "
        "are trained to the validation period; *refitted*: then on all events before the test. NDCG@10 of each user's first event after that; full "
        "ranking; brackets: 95% over seeds and users.\n\n"
    )
    columns = ["data, users", "best baseline", "lists without a model, minus the baseline", "lists with a model", "by seed", "minus the baseline",
               "... over all events", "minus lists without a model", "... over all events"]  # fmt: skip
    body = []
    for row in with_model:
        eve = counts[row["data"]]["to_the_test"]
        without = f"{eve['test']['lists'][1]:.4f}, {_interval(eve['lists - best'])}"
        best = f"{row['second_ndcg'][0]:.4f} ({PAIRED[row['second']]})"
        more = added[row["data"], row["first"]]
        body.append(
            [f"{DATA[row['data']]}, {eve['test_users']:,}", best, without, PAIRED[row["first"]].removeprefix("lists, "),
             _levels(row["first_ndcg"]), *_judged(row), *_judged(more)]
        )  # fmt: skip
    return "## Released lists beside counting\n\n" + text + table(columns, body) + made_by([*counts.values(), *with_model, *added.values()])


def _judged(row: Row) -> list[str]:
    """The difference of each user's first event, and of all events, with their verdicts."""
    whole = {(each["data"], each["first"], each["second"]): each for each in _of_pairs(period=True)}[row["data"], row["first"], row["second"]]
    return [f"{_interval([each['mean'], each['low'], each['high']])}, {each['word']}" for each in (row, whole)]


def _published(found: list[Row]) -> str:
    """Leave one out: lists and the model alone, trained to the validation events or refitted up to the test."""
    kinds = {kind: [row for row in found if (row["data"], row["run"].partition(":")[0]) == kind and row["time"] > FACTOR] for kind in PUBLISHED}
    body = []
    for kind, each in kinds.items():
        seeds = sorted(each, key=lambda row: row["seed"])
        eves = [row["to_the_test"] for row in seeds]
        if eves:
            cells = [[_both(eve["test"]["lists"]) for eve in eves], [_interval(eve["lists - best"]) for eve in eves],
                     [_both(row["test"]["model"]) for row in seeds], [_both(eve["test"]["model"]) for eve in eves]]  # fmt: skip
            best = f"{_both(eves[0]['test'][eves[0]['best_baseline']])} (item-item + text)"
            body.append([PUBLISHED[kind], best, *("; ".join(cell) for cell in cells)])
    if not body:
        return ""
    text = (
        "Each user's last event is the test, the one before it the validation; 22,363 users. A wide model with a teacher (width 256, no dropout, "
        "48 epochs), three seeds. R@10 / NDCG@10; lists and baseline counted up to the test, the model in the lists refitted on the same events; "
        "brackets: 95% over users.\n\n"
    )
    columns = ["events of one moment", "best baseline", "lists", "minus the baseline, NDCG@10", "model alone", "... refitted"]
    return (
        "## Lists and a taught model, leave-one-out: Beauty\n\n"
        + text
        + table(columns, body)
        + made_by([row for each in kinds.values() for row in each])
    )


def _both(found: list[float]) -> str:
    return f"{found[0]:.4f} / {found[1]:.4f}"


def _pieces(found: list[Row]) -> str:
    if not found:
        return ""
    text = (
        "Training ends at the 80% quantile of the event times, validation at the 90%; a user's target is the first event after that. NDCG@10, full "
        "ranking, 2+2 layers of width 128 with one token an item where nothing else is said, one seed. Brackets: 95% over users. Item-item + text is "
        "counted in training events, as the models are trained.\n\n"
    )
    columns = ["model", "validation, alone", "test, alone", "... on new items", "alone minus item-item + text"]
    body = []
    for row in found:
        for part, name in (("model", PIECES[row["run"].partition(":")[0]]), (PLACED, "... and its new items placed, by the rule of the lists")):
            if part in row["test"] and (part == "model" or row is found[-1]):
                body.append(
                    [name, f"{row['validation_model']:.4f}" if part == "model" else "", f"{row['test'][part][1]:.4f}",
                     f"{row['new_items'][part]:.4f}", _interval(row[f"{part} - item_item_text"])]
                )  # fmt: skip
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
    found = [row for row in _of_pairs(period=False) if not (_is_released(row) or _is_added(row)) and row["first"] != "frozen-t256a" + LISTS]
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
