"""A forest plot as rows of a table: beside the figures of each row an SVG of its interval, all on one scale with a line at zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT, EDGE = 220.0, 20.0, 8.0  # of a row, in the SVG's units; EDGE stays free on both sides


class Interval(Protocol):
    """What a row is drawn from; no picture where a figure is None."""

    @property
    def name(self) -> str: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def tone(self) -> str: ...
    @property
    def told(self) -> str: ...


@dataclass(frozen=True)
class Scale:
    """Values to places. Zero always lies on it."""

    least: float
    most: float

    @classmethod
    def of(cls, rows: Sequence[Interval]) -> Scale:
        ends = [end for row in rows for end in (row.low, row.high) if end is not None]
        least, most = min([0.0, *ends]), max([0.0, *ends])
        return cls(least, most) if most > least else cls(-1.0, 1.0)

    def __call__(self, value: float) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (value - self.least) / (self.most - self.least)


@dataclass(frozen=True)
class Plot:
    """A forest plot: its rows with their pictures, and the scale below them."""

    against: str
    rows: tuple[tuple[Interval, Markup | None], ...]
    axis: Markup


def plot(against: str, rows: Sequence[Interval], unit: str) -> Plot:
    return Plot(against, tuple(zip(rows, drawn(rows), strict=True)), axis(rows, unit))


def drawn(rows: Sequence[Interval]) -> list[Markup | None]:
    """An <svg> element for each row; None where it has no interval."""
    scale = Scale.of(rows)
    return [_row(row, scale) for row in rows]


def _row(row: Interval, scale: Scale) -> Markup | None:
    from html import escape

    from markupsafe import Markup

    if row.mean is None or row.low is None or row.high is None:
        return None
    low, mean, high, middle = scale(row.low), scale(row.mean), scale(row.high), HEIGHT / 2
    shapes = (
        f'<path class="zero" d="M{scale(0.0):.1f} 0V{HEIGHT:g}"/>'
        f'<path d="M{low:.1f} {middle:g}H{high:.1f}M{low:.1f} {middle - 4:g}v8M{high:.1f} {middle - 4:g}v8"/>'
        f'<circle cx="{mean:.1f}" cy="{middle:g}" r="4.5"/>'
    )
    label = escape(f"{row.name}: {row.told}")
    return Markup(f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}" class="interval {row.tone}">{shapes}</svg>')


def axis(rows: Sequence[Interval], unit: str) -> Markup:
    """The scale below the rows: zero, and its ends where there is room."""
    from markupsafe import Markup

    scale = Scale.of(rows)
    at = scale(0.0)
    ticks = [(value, scale(value)) for value in (scale.least, scale.most) if abs(scale(value) - at) > 45]
    marks = "".join(f'<text x="{place:.1f}" y="12" text-anchor="{"start" if place < at else "end"}">{value:+.3f}</text>' for value, place in ticks)
    label = f"{unit}, from {scale.least:+.3f} to {scale.most:+.3f}; left of zero is worse, right of it better"
    zero = f'<text x="{at:.1f}" y="12" text-anchor="middle">0</text>'
    return Markup(f'<svg viewBox="0 0 {WIDTH:g} 16" role="img" aria-label="{label}" class="interval axis">{zero}{marks}</svg>')
