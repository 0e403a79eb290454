"""What may be asked of the online room, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

Id: TypeAlias = int | str


@dataclass(frozen=True)
class Query:
    """One list: that of a user of the snapshot, or the one after a given history (item ids, oldest first). None: as `recommendations` is configured.

    ValueError where neither or both of `user` and `history` are given.
    """

    user: Id | None = None
    history: tuple[Id, ...] | None = None
    k: int | None = None
    seen: Literal["keep", "remove"] | None = None

    def __post_init__(self) -> None:
        if (self.user is None) == (self.history is None):
            raise ValueError("give either user or history")


class ListedItem(TypedDict):
    """One place of a list. `score` is null where a popular item fills a place that the mixture left empty."""

    item_id: Id
    rank: int
    score: float | None


@dataclass(frozen=True)
class Answer:
    """A list. `events`: how many events of the history count; `unknown_items`: how many were left out because the catalogue lacks their item;
    `known_user`: None where a history was given."""

    items: list[ListedItem]
    events: int
    unknown_items: int
    known_user: bool | None
    remove_seen: bool
