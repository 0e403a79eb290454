"""Row rules and quarantine: the parts that items and interactions share. Pure Arrow and numpy; Great Expectations is in expectations.py.

A rule marks rows; a marked row leaves the table for the quarantine with the first reason that it met. Checks say what was found:
`critical` ones stop the run, `warning` ones count what was kept or quarantined. Neither names a user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedInteractionsConfig, ValidatedItemsConfig
from orchestration.validation.columns import shortened, shown


class Check(TypedDict):
    """One entry of checks.json. `critical` stops the run; no entry names a user."""

    name: str
    passed: bool
    severity: str  # critical, warning, info
    message: str
    column: NotRequired[str]
    observed: NotRequired[float]  # a count or a share
    expected: NotRequired[str]


class Checks(TypedDict):
    """checks.json: `passed` unless a critical check failed; `counts` of rows by what became of them."""

    passed: bool
    checks: list[Check]
    counts: dict[str, int]


# C0 and C1 controls but tab, line feed and carriage return; zero-width and bidirectional marks; the byte order mark.
CONTROL = r"[\x{0}-\x{8}\x{b}\x{c}\x{e}-\x{1f}\x{7f}-\x{9f}\x{61c}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}]"


@dataclass(frozen=True)
class Validated:
    """What a validation leaves: the kept rows in canonical order, the quarantine (row, item_id as text, reason), checks and counts."""

    table: pa.Table
    quarantine: pa.Table
    checks: list[Check]
    counts: dict[str, int]
    vectors: pa.Table | None = None


def check(
    name: str,
    passed: bool,
    severity: str,
    message: str,
    *,
    column: str | None = None,
    observed: float | None = None,
    expected: str | None = None,
) -> Check:
    """One entry of checks.json, without what is None."""
    made: Check = {"name": name, "passed": bool(passed), "severity": severity, "message": message}
    if column is not None:
        made["column"] = column
    if observed is not None:
        made["observed"] = observed
    if expected is not None:
        made["expected"] = expected
    return made


def report(checks: list[Check], counts: dict[str, int], expected: list[str]) -> Checks:
    """checks.json. A check that was expected and yielded nothing counts as failed; one that nobody expects is a mistake of ours."""
    names = [c["name"] for c in checks]
    unknown = sorted(set(names) - set(expected))
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"checks are repeated or not declared: {unknown or names}")
    missing = [check(name, False, "critical", f"{name} yielded no result; run the stage again") for name in expected if name not in names]
    every = sorted([*checks, *missing], key=lambda c: expected.index(c["name"]))
    return {"passed": all(c["passed"] or c["severity"] != "critical" for c in every), "checks": every, "counts": counts}


def refusal(stage: str, found: Checks) -> str | None:
    """The one line that says why a stage's checks stop the run; None where they pass."""
    failed = [c for c in found["checks"] if not c["passed"] and c["severity"] == "critical"]
    if found["passed"] and not failed:
        return None
    more = f" (and {len(failed) - 1} more: {', '.join(c['name'] for c in failed[1:])})" if len(failed) > 1 else ""
    return f"{stage}: {failed[0]['message'] if failed else 'checks.json says failed'}{more}"


@dataclass
class Quarantine:
    """Marks rows with the first reason that they meet. `reasons` maps a stable key to the text that people read."""

    file: str
    rows: int
    reasons: dict[str, str]
    marks: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.marks = np.zeros(self.rows, np.int8)  # 0: kept; otherwise 1 + the reason's number

    def mark(self, key: str, mask: np.ndarray | pa.ChunkedArray | pa.Array) -> None:
        """Quarantines the rows of `mask` (null counts as no) that no earlier reason has taken."""
        if not isinstance(mask, np.ndarray):
            mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else pc.fill_null(mask, False).to_numpy()
        self.marks[mask.astype(bool) & (self.marks == 0)] = 1 + list(self.reasons).index(key)

    @property
    def kept(self) -> np.ndarray:
        kept: np.ndarray = self.marks == 0
        return kept

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.marks))

    def counts(self) -> dict[str, int]:
        found = np.bincount(self.marks, minlength=len(self.reasons) + 1)
        return {f"quarantined_{key}": int(found[1 + i]) for i, key in enumerate(self.reasons)}

    def table(self, row_numbers: np.ndarray, item_ids: pa.ChunkedArray) -> pa.Table:
        """Quarantined rows by row number (0 is the file's first row)."""
        rows = np.flatnonzero(self.marks)
        texts = pa.array(list(self.reasons.values()), pa.string())
        ids = shortened(item_ids.take(pa.array(rows)))
        return pa.table({"row": pa.array(row_numbers[rows], pa.int64()), "item_id": ids, "reason": texts.take(pa.array(self.marks[rows] - 1))})

    def found(self, quarantined: pa.Table) -> Quarantined:
        """What came of it; `quarantined`: its `table`."""
        first = {}
        for key, reason in self.reasons.items():
            at = pc.index(quarantined["reason"], reason).as_py()
            if at >= 0:
                row = quarantined.slice(at, 1).to_pylist()[0]
                first[key] = (int(row["row"]), row["item_id"])
        return Quarantined(self.rows, self.counts(), first)


@dataclass(frozen=True)
class Quarantined:
    """How many rows each reason took, and its first one (row, item). Those of a file's parts add up, in the parts' order."""

    rows: int
    counts: dict[str, int]
    first: dict[str, tuple[int, str | None]]

    def __add__(self, other: Quarantined) -> Quarantined:
        counts = {key: many + other.counts[key] for key, many in self.counts.items()}
        return Quarantined(self.rows + other.rows, counts, {**other.first, **self.first})

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def checks(self, file: str, reasons: dict[str, str], stage: str, limit: float) -> list[Check]:
        """The share against its limit (critical), and one warning for each reason."""
        share = self.count / self.rows if self.rows else 0.0
        message = f"{self.count} of {self.rows} rows of {file} quarantined"
        if self.count:
            top = max(reasons, key=lambda key: self.counts[f"quarantined_{key}"])
            row, item = self.first[top]
            message += f" ({share:.2%}; at most {limit:.2%}), mostly because {reasons[top]} ({self.counts[f'quarantined_{top}']} rows)"
            message += f", for example row {row}, item {shown(item)}"
        if share > limit:
            message += f"; fix these rows, or raise {stage}.max_quarantined"
        checks = [check("quarantined_share", share <= limit, "critical", message, observed=round(share, 6), expected=f"<= {limit}")]
        for key, reason in reasons.items():
            n = self.counts[f"quarantined_{key}"]
            checks.append(check(f"quarantined_{key}", n == 0, "warning", f"{n} rows of {file} quarantined because {reason}", observed=n))
        return checks


def too_long(column: pa.ChunkedArray, limit: int) -> pa.ChunkedArray | np.ndarray:
    """Rows whose text takes more than `limit` bytes; never for integers."""
    return pc.greater(pc.binary_length(column), limit) if column.type == pa.large_string() else np.zeros(len(column), bool)


def absent(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rows without an id: null, or the empty text that a lost value becomes in CSV."""
    missing = pc.is_null(column)
    return pc.or_(missing, pc.fill_null(pc.equal(pc.binary_length(column), 0), True)) if column.type == pa.large_string() else missing


def look_alikes(unique_ids: pa.ChunkedArray | pa.Array) -> int:
    """How many of the distinct text ids differ from another one only in Unicode form (NFKC) or in surrounding space."""
    return len(unique_ids) - len(pc.unique(plain_forms(unique_ids))) if pa.types.is_large_string(unique_ids.type) else 0


def plain_forms(ids: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Text ids in one Unicode form, without surrounding space; integers as they are."""
    return pc.utf8_trim_whitespace(pc.utf8_normalize(ids, form="NFKC")) if pa.types.is_large_string(ids.type) else ids


def with_control(column: pa.ChunkedArray | pa.Array) -> int:
    """How many texts hold control, zero-width or bidirectional characters."""
    if not pa.types.is_large_string(column.type):
        return 0
    return pc.sum(pc.match_substring_regex(column, CONTROL)).as_py() or 0


def volume(file: str, stage: str, rows: int, previous: Volume | None, config: ValidatedItemsConfig | ValidatedInteractionsConfig) -> Check:
    """Rows received against the rows of the same file in the previous snapshot."""
    if previous is None:
        return check("volume", True, "critical", f"{rows} rows of {file}; no released snapshot before it to compare with", observed=rows)
    low, high = config.min_volume_ratio, config.max_volume_ratio
    ratio = rows / previous.rows
    message = f"{rows} rows of {file}, {ratio:.2f} times the {previous.rows} of snapshot {previous.key}, the last that was accepted"
    if not low <= ratio <= high:
        message += f"; outside {low} to {high}; complete the file, or change {stage}.min_volume_ratio or max_volume_ratio"
    return check("volume", low <= ratio <= high, "critical", message, observed=round(ratio, 6), expected=f"{low} to {high}")
