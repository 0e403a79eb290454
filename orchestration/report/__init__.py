"""The report: one self-contained HTML page, a Markdown summary and pictures, made from stored artefacts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ReportConfig:
    """Stage `report`. Everything on the page is content: no times, hosts or run ids."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    title: str = "Joint semantic IDs: retraining report"
    examples: int = 5  # users shown with history, recommendations and truth, under pseudonyms; 0: none
    tree_items_per_prefix: int = 5  # titles shown under each prefix of the ID tree

    def __post_init__(self) -> None:
        if not 0 <= self.examples <= 26:
            raise ValueError(f"examples = {self.examples!r}: must be between 0 (off) and 26")
        if not 0 <= self.tree_items_per_prefix <= 50:
            raise ValueError(f"tree_items_per_prefix = {self.tree_items_per_prefix!r}: must be between 0 and 50")
        if not self.title.strip() or len(self.title) > 200:
            raise ValueError(f"title = {self.title[:40]!r}…: must have 1 to 200 characters")
