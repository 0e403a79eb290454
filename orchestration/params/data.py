"""Sections of the stages that read and prepare a snapshot: `validated_items`, `validated_interactions`, `sequences`, `catalogue_diff`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar, Literal

from diger_core.config import STRICT, check


@dataclass(frozen=True)
class ValidatedItemsConfig:
    """Stage `validated_items`."""

    __pydantic_config__: ClassVar = STRICT
    max_quarantined: float = 0.05  # share of the rows; more stops the run
    min_items: int = 2  # fewer stop the run
    max_id_bytes: int = 16_384  # of an item_id; rows with a longer one are quarantined
    max_text_bytes: int = 1_048_576  # of one text of one item
    text_columns: tuple[str, ...] | None = None  # None: every text column but item_id
    require_text: bool = False  # refuse a catalogue without text and vectors, whose IDs would come from behaviour alone
    warn_equal_texts: float = 0.1  # share of items whose whole text another item has, too
    min_volume_ratio: float = 0.5  # rows against the previous snapshot's; 0 switches it off
    max_volume_ratio: float = 10.0  # likewise, at most

    def __post_init__(self) -> None:
        check(0 <= self.max_quarantined < 1, "max_quarantined", self.max_quarantined, "in [0, 1)")
        check(self.min_items >= 2, "min_items", self.min_items, "at least 2")
        check(self.max_id_bytes >= 1, "max_id_bytes", self.max_id_bytes, "at least 1")
        check(self.max_text_bytes >= 1, "max_text_bytes", self.max_text_bytes, "at least 1")
        check(self.text_columns is None or "item_id" not in self.text_columns, "text_columns", self.text_columns, "without item_id, or null")
        check(0 <= self.warn_equal_texts <= 1, "warn_equal_texts", self.warn_equal_texts, "in [0, 1]")
        _check_ratios(self)


@dataclass(frozen=True)
class ValidatedInteractionsConfig:
    """Stage `validated_interactions`. Weights are validated where the column exists; `sequences.use_weights` puts them to use."""

    __pydantic_config__: ClassVar = STRICT
    max_quarantined: float = 0.05  # share of the selected rows; more stops the run
    max_id_bytes: int = 16_384  # of a user_id; rows with a longer one are quarantined
    event_types: tuple[str, ...] | None = None  # None: all rows, whatever their event_type
    earliest: str | None = "1990-01-01"  # ISO date; events before it are quarantined; null: no limit
    # ISO date, the last day of the data; later events are in the future. Null: a day from the clock at computation. Both give the same
    # result for data without future events; set it where a run must stay reproducible for data that have them.
    latest: str | None = None
    min_volume_ratio: float = 0.5  # rows against the previous snapshot's; 0 switches it off
    max_volume_ratio: float = 10.0  # likewise, at most

    def __post_init__(self) -> None:
        check(0 <= self.max_quarantined < 1, "max_quarantined", self.max_quarantined, "in [0, 1)")
        check(self.max_id_bytes >= 1, "max_id_bytes", self.max_id_bytes, "at least 1")
        check(self.event_types is None or len(self.event_types) > 0, "event_types", self.event_types, "a list of at least one type, or null")
        for key in ("earliest", "latest"):
            check(_is_date(getattr(self, key)), key, getattr(self, key), "an ISO date such as '2024-12-31' (in quotes), or null")
        _check_ratios(self)


@dataclass(frozen=True)
class SequencesConfig:
    """Stage `sequences`: the order of events, and what is held out of them."""

    __pydantic_config__: ClassVar = STRICT
    # temporal: train up to a date, ask for what came after it. leave_one_out: each user's last event, the published protocol, which flatters.
    # auto: temporal where there are times and enough users to judge by, otherwise leave_one_out, with a line that says why.
    split: Literal["auto", "temporal", "leave_one_out"] = "auto"
    train_until: float | str = 0.8  # share of the events, by time; or an ISO date, with that day
    validate_until: float | str = 0.9  # likewise; what comes after it is the test
    min_test_users: int = 100  # of a temporal split; fewer say too little
    use_weights: bool = False  # scale each training row's loss by the event's weight

    def __post_init__(self) -> None:
        for key in ("train_until", "validate_until"):
            value = getattr(self, key)
            wanted = "a share above 0 and below 1, or an ISO date such as '2024-12-31' (in quotes)"
            check(_is_date(value) if isinstance(value, str) else 0 < value < 1, key, value, wanted)
        if isinstance(self.train_until, float) and isinstance(self.validate_until, float):
            check(self.train_until < self.validate_until, "validate_until", self.validate_until, f"above train_until, {self.train_until}")
        check(self.min_test_users >= 1, "min_test_users", self.min_test_users, "at least 1")


@dataclass(frozen=True)
class DriftConfig:
    """When a snapshot's fresh events, those newer than the champion's newest, are worth a warning. The window before them is as long."""

    __pydantic_config__: ClassVar = STRICT
    action: Literal["warn", "retrain"] = "warn"  # what a figure outside its limits asks for: a warning in the log and the UI, or a retraining
    min_events: int = 100  # fresh events; of fewer, only the vectors are judged
    min_volume: float = 0.5  # fresh events over those of the window before
    max_volume: float = 2.0  # likewise
    max_new_items: float = 0.2  # share of the fresh events that are on items which the champion lacks
    max_concentration_rise: float = 0.1  # of the Gini coefficient of the events over the items
    min_coverage_ratio: float = 0.8  # share of the items with an event, over that of the window before
    min_code_usage_ratio: float = 0.8  # perplexity of the first codes of the events' items, over that of the window before
    max_embedding_drift: float = 0.05  # 1 - mean cosine between the old and the new vectors of common items
    max_list_decay: float = 0.1  # share of its NDCG@10 at the release that the champion's lists lost on fresh events, where the loss is real
    list_users: int = 2000  # users whose lists are judged, at most, drawn by a fixed seed; 0: none

    def __post_init__(self) -> None:
        for key in (
            "min_events", "min_volume", "max_new_items", "max_concentration_rise", "min_coverage_ratio", "min_code_usage_ratio",
            "max_embedding_drift", "max_list_decay", "list_users",
        ):  # fmt: skip
            check(getattr(self, key) >= 0, key, getattr(self, key), "at least 0")
        check(self.max_volume >= self.min_volume, "max_volume", self.max_volume, f"at least min_volume, {self.min_volume}")


@dataclass(frozen=True)
class CatalogueDiffConfig:
    """Stage `catalogue_diff`: when a retraining is worth its cost. Shares of the starting bundle's items or events; each decides alone."""

    __pydantic_config__: ClassVar = STRICT
    retrain_events: float = 0.02  # events more than the starting bundle had
    retrain_added: float = 0.02  # new items
    retrain_removed: float = 0.10  # items gone
    retrain_changed: float = 0.10  # items whose text changed
    retrain_drift: float = 0.05  # 1 - mean cosine between the old and the new vectors of common items
    remapped: float = 0.5  # ids count as re-mapped where more than this share of the items stands under other ids than before
    allow_remap: bool = False  # continue although the ids look re-mapped
    drift: DriftConfig = field(default_factory=DriftConfig)  # limits of what fresh events say of the champion

    def __post_init__(self) -> None:
        for key in ("retrain_events", "retrain_added", "retrain_removed", "retrain_changed", "retrain_drift", "remapped"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"{key} = {getattr(self, key)!r}: must be at least 0")


def _check_ratios(config: ValidatedItemsConfig | ValidatedInteractionsConfig) -> None:
    check(0 <= config.min_volume_ratio <= 1, "min_volume_ratio", config.min_volume_ratio, "in [0, 1]")
    check(config.max_volume_ratio >= 1, "max_volume_ratio", config.max_volume_ratio, "at least 1")


def _is_date(value: str | None) -> bool:
    try:
        return value is None or bool(date.fromisoformat(value))
    except ValueError:
        return False
