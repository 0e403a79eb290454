"""What ingest left out or changed, counted as it reads, and the report line that tells it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diger_core.errors import DigerError

Mask = npt.NDArray[np.bool_]
EXAMPLE = 60  # characters of a value in a message


@dataclass(frozen=True)
class Place:
    """Where a batch's column stands: the file, the column, and the number of the batch's first row, from 1."""

    path: Path
    column: str
    first: int

    def row(self, index: int) -> str:
        return f"{self.path.name}, row {self.first + index}: column {self.column}"


@dataclass
class Notes:
    """Filled while a file is read. `drop_invalid`: rows at fault are left out and counted, otherwise the first one is an error.

    dropped: reason -> rows; floored: times whose fraction of a second was cut; merged: rows of items that came before; said: other findings.
    """

    drop_invalid: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    floored: int = 0
    merged: int = 0
    merged_example: str = ""
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        if text not in self.said:
            self.said.append(text)

    def at_fault(self, bad: Mask, reason: str, found: str, where: Place, remedy: str = "") -> Mask:
        """`bad` where such rows are dropped, counted under `reason`; DigerError that names the first of them otherwise.

        `found` completes "column x holds …"; `remedy` comes before the common one.
        """
        if bad.any():
            if not self.drop_invalid:
                self.refuse(bad, found, where, f"{remedy or 'fix the row'}, or pass --drop-invalid to leave such rows out")
            self.dropped[reason] += int(np.count_nonzero(bad))
        return bad

    def refuse(self, bad: Mask, found: str, where: Place, remedy: str) -> None:
        raise DigerError(f"{where.row(int(np.argmax(bad)))} holds {found}; {remedy}")

    def lines(self) -> list[str]:
        """One line of what was dropped, floored and merged, then one for each other finding."""
        parts = [f"dropped {count:,} {'row' if count == 1 else 'rows'} ({reason})" for reason, count in sorted(self.dropped.items())]
        if self.floored:
            parts.append(f"floored {self.floored:,} timestamps to whole seconds")
        if self.merged:
            parts.append(
                f"merged {self.merged:,} repeated {'row' if self.merged == 1 else 'rows'} of items (first {self.merged_example}): the first row of "
                "an item in the file wins, as what comes later is taken for a repetition"
            )
        return ["; ".join(parts) if parts else "nothing was dropped, floored or merged", *self.said]

    def counts(self) -> dict[str, int]:
        """For ingest.json."""
        found = {f"dropped: {reason}": count for reason, count in sorted(self.dropped.items())}
        return found | {"timestamps_floored": self.floored}
