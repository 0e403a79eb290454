"""How panels become pictures: PNG for the Dagster UI, SVG that follows the page's colours for the report.

A panel draws on given axes and returns the sentence that says what there is to see. The same panel gives the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes

Rows = Sequence[Mapping[str, Any]]
Panel = Callable[["Axes"], str]

# Okabe and Ito's colours, which remain distinct under the common colour-vision deficiencies.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
INK, FAINT, GREY = "#2b2f36", "#d5d9df", "#737a85"
# One colour a meaning, on every page: better and worse (also: a code that no item uses), the model of the run, its lists, its frozen control, noise.
# What only counts, and data, is grey; levels of an ID are lines of one colour, told apart by their dashes.
BETTER, WORSE = GREEN, VERMILLION
LISTS, JOINT, CONTROL, NOISE, DATA = BLUE, SKY, PURPLE, ORANGE, GREY
DASHES = ("-", "--", ":", "-.")
# In the page each colour is a CSS variable, so that dark mode can choose a lighter tone.
CSS_COLOURS = {
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    VERMILLION: "vermillion",
    PURPLE: "purple",
    SKY: "sky",
    INK: "ink",
    FAINT: "faint",
    GREY: "grey",
}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "diger",
}
WIDTH, HEIGHT = 4.6, 2.9  # inches of one panel


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """The project's style alone, whatever the user's matplotlibrc says: pictures are hashed content."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def png(panels: Sequence[Panel], columns: int = 2, width: float = WIDTH, height: float = HEIGHT) -> bytes:
    """The panels side by side, each under its sentence, as a PNG of at most 64 colours (a few ten kB)."""
    from matplotlib.figure import Figure
    from PIL import Image

    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    with _style():
        figure = Figure(figsize=(width * columns, (height + 0.3) * rows), dpi=100, layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
        for panel, ax in zip(panels, axes, strict=False):
            ax.set_title(_wrap(panel(ax)))
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        raw = io.BytesIO()
        # tight: long names on the left leave an axis narrower than its title and label, which the layout does not count.
        figure.savefig(raw, format="png", facecolor="white", metadata={"Software": None}, bbox_inches="tight")
    small = io.BytesIO()
    Image.open(raw).convert("RGB").quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def svg(panel: Panel, name: str, width: float = WIDTH, height: float = HEIGHT) -> tuple[str, str]:
    """(the panel's sentence, an <svg> element for inlining). `name` prefixes every id, so that pictures cannot clash."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(width, height), layout="constrained")
        ax = figure.subplots()
        sentence = panel(ax)
        figure.patch.set_visible(False)
        ax.patch.set_visible(False)
        raw = io.BytesIO()
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return sentence, _inline(raw.getvalue().decode(), name, sentence)


def _inline(text: str, name: str, label: str) -> str:
    """matplotlib's file as an element of the page: no prologue, no addresses, own ids, the page's font and colours."""
    from html import escape

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # it would hold for the whole page
    text = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r"font: (?:(\d+) )?([\d.]+px) [^;\"]*", lambda m: f"font-size: {m[2]}" + (f"; font-weight: {m[1]}" if m[1] else ""), text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for colour, variable in CSS_COLOURS.items():
        text = re.sub(f"({colour})(?![0-9a-f])", f"var(--{variable}, {colour})", text, flags=re.I)
    text = re.sub(r">\s+<", "><", text)
    opening, rest = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', opening)
    return f'<svg {view[0] if view else ""} role="img" aria-label="{escape(label)}" class="chart">{rest.strip()}'


def _wrap(sentence: str, width: int = 58) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(sentence, width)[:3])


# ---- small helpers ----


def series(rows: Rows, key: str, level: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(epochs, values) of the rows that have a finite number under `key` (of `level`, where the value is a list per level)."""
    points = []
    for index, row in enumerate(rows):
        value = row.get(key)
        if level is not None:
            value = value[level] if isinstance(value, (list, tuple)) and level < len(value) else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            points.append((float(row.get("epoch", index)), float(value)))
    array = np.array(points, dtype=float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def levels(rows: Rows, key: str) -> int:
    """How many levels the lists under `key` have."""
    return max((len(row[key]) for row in rows if isinstance(row.get(key), (list, tuple))), default=0)


def whole_epochs(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    ax.set_xlabel("epoch")


def plain_logarithmic(ax: Axes) -> None:
    """Powers of ten written out on both axes: the default labels are formulas, which the style switches off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(base=10, numticks=8))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())


def thousands(axis: Any) -> None:
    """At most five ticks, with separators."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def percent(axis: Any) -> None:
    """At most five ticks of shares, as percentages."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def draw_lines(ax: Axes, lines: Sequence[tuple[str, str, np.ndarray, np.ndarray]], from_zero: bool = False, dashes: Sequence[str] = ("-",)) -> None:
    """Lines of (label, colour, x, y), each labelled at its end instead of in a legend; labels are kept apart. `dashes`: of the lines, in turn."""
    drawn = [line for line in lines if len(line[2])]
    if not drawn:
        ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", color=GREY)
        return
    for place, (_, colour, x, y) in enumerate(drawn):
        ax.plot(x, y, color=colour, linestyle=dashes[place % len(dashes)], marker="o" if len(x) == 1 else None, markersize=5)
    if from_zero:
        ax.set_ylim(bottom=0)
    low, high = ax.get_ylim()
    gap, previous = 0.085 * (high - low), -math.inf
    for label, colour, x, y in sorted(drawn, key=lambda line: line[3][-1]):
        height = max(y[-1], previous + gap)
        previous = height
        ax.annotate(
            label, (x[-1], height), xytext=(6, 0), textcoords="offset points", va="center", color=colour, annotation_clip=False, fontweight="bold"
        )


def empty(text: str) -> Panel:
    def draw(ax: Axes) -> str:
        ax.set_axis_off()
        return text

    return draw
