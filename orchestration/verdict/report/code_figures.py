"""Pictures of the codes in use: perplexity and dead codes by epoch, every code over the epochs, and the final table's codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from orchestration.verdict.report.drawing import DASHES, GREY, INK, WORSE, Panel, Rows, draw_lines, levels, png, series, thousands, whole_epochs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAT = "#5b6b80"
FULL = 4  # times an even share of the items
MOST_LINES, MOST_EPOCHS = 512, 300  # of a heat map over time; more are drawn together, or left out


def usage_curve_panels(rows: Rows) -> list[Panel]:
    """Perplexity and dead codes per level over the epochs of joint training."""

    def draw(key: str, unit: str, message: Callable[[list[np.ndarray]], str]) -> Panel:
        def panel(ax: Axes) -> str:
            lines = [(f"level {j + 1}", INK, *series(rows, key, j)) for j in range(levels(rows, key))]
            draw_lines(ax, lines, from_zero=True, dashes=DASHES)
            whole_epochs(ax)
            thousands(ax.yaxis)
            ax.set_ylabel(unit)
            return message([y for *_, y in lines if len(y)])

        return panel

    def perplexity(ys: list[np.ndarray]) -> str:
        return "Codes effectively in use at the end: " + ", ".join(f"{y[-1]:.0f}" for y in ys) + " (by level)" if ys else "No usage was recorded"

    def dead(ys: list[np.ndarray]) -> str:
        return "Codes that no item uses at the end: " + ", ".join(f"{y[-1]:.0f}" for y in ys) + " (by level)" if ys else "No dead codes were recorded"

    return [draw("perplexity", "codes effectively in use (perplexity)", perplexity), draw("dead_codes", "codes without an item", dead)]


def usage_map_panels(usage_EMK: np.ndarray) -> list[Panel]:
    """A heat map for each level: epochs from left to right, a line for each code. `usage_EMK`: items on each code, epoch 0 before training."""
    return [_usage_over_time(usage_EMK[:, level], level) for level in range(usage_EMK.shape[1])]


def _usage_over_time(usage_EK: np.ndarray, level: int) -> Panel:
    def draw(ax: Axes) -> str:
        first, last = usage_EK[0], usage_EK[-1]
        shown = np.unique(np.linspace(0, len(usage_EK) - 1, min(len(usage_EK), MOST_EPOCHS)).astype(int))
        order = np.lexsort((np.arange(len(first)), -first))
        together = math.ceil(len(first) / MOST_LINES)
        lines_LE = np.add.reduceat(usage_EK[shown][:, order].T, np.arange(0, len(first), together), axis=0)
        image, (height, width) = _cells(lines_LE, first.sum() / len(lines_LE)), lines_LE.shape
        ax.imshow(image, interpolation="none", aspect="auto", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        ax.grid(visible=False)
        ticks = np.unique(np.linspace(0, len(shown) - 1, min(len(shown), 7)).astype(int))
        ax.set_xticks(ticks, [str(shown[tick]) for tick in ticks])
        ax.set_yticks([0, len(lines_LE) - 1], ["fullest", "emptiest"])
        ax.set_ylabel(f"{'codes' if together == 1 else f'{together} codes a line'}, as at epoch 0")
        ax.set_xlabel("epoch")
        _key(ax)
        moved = np.abs(last - first).sum() / 2 / max(first.sum(), 1)
        unused = f"{_codes(first)} unused before training, {(last == 0).sum()} after"
        return f"Level {level + 1}: {unused}; at least {100 * moved:.1f}% of the items changed code"

    return draw


def _codes(usage_K: np.ndarray) -> str:
    number = int((usage_K == 0).sum())
    return f"{number} code{'s' * (number != 1)}"


def _cells(counts: np.ndarray, even: float) -> np.ndarray:
    """RGBA of counts: full strength at `FULL` times the even share, so that one crowded code does not hide the others; an unused code stands out.
    Transparency, so that the same picture reads on light and on dark; the root spreads the small counts."""
    from matplotlib.colors import to_rgb

    image = np.zeros((*counts.shape, 4))
    image[..., :3] = np.where((counts == 0)[..., None], to_rgb(WORSE), to_rgb(HEAT))
    image[..., 3] = np.where(counts == 0, 0.5, 0.15 + 0.85 * np.sqrt(np.minimum(counts / max(FULL * even, 1e-9), 1.0)))
    return image


def _key(ax: Axes) -> None:
    """The key of a heat map, above it: from no item to four times an even share."""
    key = ax.inset_axes((0.0, 1.16, 1.0, 0.05))
    steps = np.array([[0.0, 0.25, 0.5, 1.0, 2.0, FULL]])
    key.imshow(_cells(steps, 1.0), interpolation="none", aspect="auto", extent=(0.0, 6.0, 0.0, 1.0))
    key.set_xticks([0.5, 3.5, 5.5], ["no item", "even share", f"{FULL}× or more"], color=GREY)
    key.xaxis.tick_top()
    key.tick_params(labelsize=8, pad=1)
    key.set_yticks([])
    key.grid(visible=False)
    for side in key.spines.values():
        side.set_visible(False)


def code_usage_panels(codes_NM: np.ndarray, codes: int) -> list[Panel]:
    """A heat map for each level: one cell a code, stronger the more items it holds."""
    return [_heat_map(np.bincount(codes_NM[:, level], minlength=codes), level) for level in range(codes_NM.shape[1])]


def _heat_map(usage_K: np.ndarray, level: int) -> Panel:
    def draw(ax: Axes) -> str:
        columns = math.ceil(math.sqrt(len(usage_K) * 1.6))
        rows = math.ceil(len(usage_K) / columns)
        image = np.zeros((rows * columns, 4))
        image[: len(usage_K)] = _cells(usage_K, usage_K.mean())
        ax.imshow(image.reshape(rows, columns, 4), interpolation="none", aspect="auto", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
        dead = np.flatnonzero(usage_K == 0)
        ax.plot(dead % columns, dead // columns, linestyle="", marker="x", color=WORSE, markersize=4)
        ax.grid(visible=False)
        ax.set_xticks([0, columns - 1], ["0", f"{columns - 1}"])
        ax.set_yticks([0, rows - 1], ["0", f"{(rows - 1) * columns}"])
        ax.set_xlabel("code (row by row); × = unused")
        _key(ax)
        share = usage_K.max() / max(usage_K.sum(), 1)
        return f"Level {level + 1}: {(usage_K > 0).sum()} of {len(usage_K)} codes in use; the fullest holds {usage_K.max():,} items ({share:.1%})"

    return draw


def code_usage(codes_NM: np.ndarray, codes: int) -> bytes:
    """PNG of the heat maps of all levels. `codes_NM` integers [N, M] in 0..codes-1."""
    return png(code_usage_panels(codes_NM, codes), columns=3)
