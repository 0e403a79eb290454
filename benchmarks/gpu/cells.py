"""A run that fills a table: cells that are recorded as soon as they are measured, of which one may fail without costing the others."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.common import record

Found = TypeVar("Found")


def free() -> None:
    """Gives back what the cell before held, captured graphs too: they lie in reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Cells:
    """Lines of one kind; `common` is in each of them."""

    def __init__(self, kind: str, common: dict[str, Any], out: Path) -> None:
        self.kind, self.common, self.out = kind, common, out
        self.failed: list[str] = []

    def cell(self, name: str, work: Callable[[], Found]) -> Found | None:
        """What `work` gives, or None where it failed: that is shown at once, and `close` makes the command fail for it."""
        free()
        try:
            return work()
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.failed.append(f"{name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            return None

    def write(self, **figures: Any) -> None:
        record(self.kind, {**self.common, **figures}, self.out)

    def close(self) -> None:
        """SystemExit where a cell failed, after all others were measured."""
        if self.failed:
            raise SystemExit("\n".join([f"{self.kind}: cells that failed:", *self.failed]))
