"""Parameters for a real catalogue by its size, with reasons: what `diger params --suggest SNAPSHOT` prints, and the table of docs/data.md.

Starting points, not optima: `diger compare-training` says whether another value is better on the data at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diger_core.config import TokenizerConfig
from diger_core.tokenizer.rqvae import choose_codes
from orchestration.params.data import SequencesConfig
from orchestration.validation.snapshot_size import SnapshotSize

REPEATS = 0.05  # share of repeated events from which on people repeat


@dataclass(frozen=True)
class Tier:
    """A model and a budget for so many training rows (events with a predecessor), `rows` at most."""

    rows: int
    name: str
    layers: int
    d_model: int
    d_ff: int
    d_head: int
    dropout: float
    batch_size: int
    learning_rate: float
    epochs: int
    where: str
    synthetic: int = 0  # histories drawn from the tables for each training row; with them half of the targets are drawn


TIERS = (
    Tier(20_000, "up to 20,000", 1, 64, 128, 16, 0.0, 128, 0.003, 10, "minutes on two cores"),
    Tier(100_000, "up to 100,000", 2, 64, 256, 16, 0.1, 256, 0.001, 20, "an hour on eight cores; minutes on an accelerator"),
    Tier(2_000_000, "up to 2,000,000", 2, 256, 1024, 64, 0.0, 512, 0.002, 75, "an accelerator: minutes", 3),
    Tier(10**18, "more", 6, 128, 512, 64, 0.1, 1024, 0.001, 20, "an accelerator: hours"),
)
ROWS_OF_KEEP = ((100_000, 300, 100), (1_000_000, 200, 50), (10**18, 100, 30))  # items at most, neighbours.keep, neighbours.text_keep


def tier(rows: int) -> Tier:
    """The smallest tier that holds so many training rows."""
    return next(each for each in TIERS if rows <= each.rows)


def table() -> str:
    """The tiers as Markdown, for docs/data.md."""
    lines = [
        "| training rows | layers | `d_model` | `d_ff` | `d_head` | dropout | `batch_size` | `learning_rate` | `epochs` | `teacher` | where |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    lines += [
        f"| {t.name} | {t.layers}+{t.layers} | {t.d_model} | {t.d_ff} | {t.d_head} | {t.dropout} | {t.batch_size} | {t.learning_rate} | {t.epochs} "
        f"| {'yes' if t.synthetic else ''} | {t.where} |"
        for t in TIERS
    ]
    return "\n".join(lines)


def history(size: SnapshotSize) -> int:
    """Items of a history: what nine users of ten have, at least 5 and at most 50."""
    return next(length for length in (5, 10, 20, 50) if length >= min(size.long_events, 50))


def suggestion(size: SnapshotSize) -> str:
    """params.yaml with a reason behind every value. Keys that are left out keep their defaults."""
    return "\n".join(_lines(size)) + "\n"


def _lines(size: SnapshotSize) -> Iterator[str]:
    chosen, codes = tier(size.rows), choose_codes(size.items, TokenizerConfig())
    _, keep, text_keep = next(row for row in ROWS_OF_KEEP if size.items <= row[0])
    told = "no times" if size.days is None else f"{size.days:,} days"
    yield f"# Suggested by `diger params --suggest` for {size.items:,} items, {size.users:,} users, {size.events:,} events, {told}."
    yield "# Starting points by size; keys that are left out keep their defaults (`diger params`)."
    yield "# Whether another value is better on these data: `diger compare-training`."
    yield f"snapshot: {_quoted(size.url)}"
    yield "sequences:"
    yield f"  split: {_split(size)}"
    if not size.text or size.vectors:
        yield "embeddings:"
        yield f"  encoder: {'vectors # the snapshot brings vectors.parquet' if size.vectors else 'tfidf # items.parquet has no text column: add one'}"
    yield "neighbours:"
    yield f"  window: {10 if size.events > 50_000_000 else 20} # events between the two of a pair; time grows with events x window"
    yield f"  keep: {keep} # neighbours of an item; {size.items:,} items x keep are stored"
    yield f"  text_keep: {text_keep}"
    yield f"  half_life_days: null # {_half_life(size)}"
    yield "tokenizer:"
    yield f"  levels: {3 if size.items <= 1_000_000 else 4} # {codes} codes a level name {codes**3:,} prefixes with three levels"
    yield f"  codes: {codes} # the largest power of two up to 256 that leaves at least four items a code"
    yield f"  epochs: {100 if size.items <= 100_000 else 30} # of the warm-up, over the items"
    yield "recommender:"
    yield f"  encoder_layers: {chosen.layers} # about {size.rows:,} training rows: the tier '{chosen.name}' of docs/data.md"
    yield f"  decoder_layers: {chosen.layers}"
    yield f"  d_model: {chosen.d_model}"
    yield f"  d_ff: {chosen.d_ff}"
    yield f"  d_head: {chosen.d_head}"
    yield f"  dropout: {chosen.dropout}"
    if chosen.synthetic:
        yield "  history_input: hard # as the teacher's gain was measured; soft alone made no difference there"
    yield f"  history: {history(size)} # items; nine users of ten have {size.long_events:,} events or fewer, half have {size.median_events:,}"
    yield "training:"
    yield f"  epochs: {chosen.epochs} # at most: it stops after `patience` evaluations without a better one"
    yield f"  batch_size: {chosen.batch_size}"
    yield f"  learning_rate: {chosen.learning_rate}"
    yield f"  patience: {max(3, chosen.epochs // 3)}"
    yield f"  evaluation_users: {'null # all' if size.users <= 20_000 else '5000 # for validation after each epoch; the test ranks all'}"
    if chosen.synthetic:
        yield "  teacher: # the item-to-item tables draw targets: on Beauty the model alone gained 30%, and it knows new items (docs/tuning.md)"
        yield "    share: 0.5 # of the training rows' targets"
        yield f"    synthetic: {chosen.synthetic} # histories for each training row; 0 makes an epoch so much shorter"
        yield "    tau: 1.5 # how fast a history ages: on Beauty as the best baseline's; the report shows your data's under Weights"
        yield "    temperature: 0.3"
        yield "    candidates: 20"
    yield f"  # {chosen.where}. On an accelerator also `precision: bf16` and `compile: true`."
    yield "retraining:"
    yield f"  epochs: {max(1, chosen.epochs // 3)} # a warm start needs fewer"
    yield "gate:"
    yield f"  users: {'null # all' if size.users <= 100_000 else '50000 # ranked by every model; more narrow the interval little'}"
    yield "recommendations:"
    yield f"  {_repeats(size)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _split(size: SnapshotSize) -> str:
    fewest = SequencesConfig().min_test_users
    if size.days is None:
        return "leave_one_out # there are no times; it flatters: it trains on events later than its targets"
    if size.test_users < fewest:
        return f"leave_one_out # a temporal split would leave {size.test_users} test users, under the {fewest} of sequences.min_test_users"
    return f"temporal # {size.test_users:,} test users after the newest tenth began"


def _half_life(size: SnapshotSize) -> str:
    if size.days is None:
        return "there are no times"
    if size.days < 180:
        return f"{size.days} days: too short for pairs to age"
    return "all pairs count the same; try 90 where seasons or fashions pass, and compare the baselines' rows of the report"


def _repeats(size: SnapshotSize) -> str:
    if size.repeats >= REPEATS:
        return f"seen: keep # {size.repeats:.0%} of the events repeat an item of the same user"
    return f"seen: remove # only {size.repeats:.1%} of the events repeat an item of the same user"
