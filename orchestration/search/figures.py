"""Pictures of a study: parallel coordinates, each trial's noise and code usage beside its NDCG, the finalists with intervals, the Pareto set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.search.journal import Told
from orchestration.search.ranking import Finalist, Importance
from orchestration.search.space import ORDER
from orchestration.verdict.report.drawing import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Panel,
    draw_lines,
    empty,
    percent,
    series,
    thousands,
    whole_epochs,
)

if TYPE_CHECKING:
    from orchestration.verdict.report.drawing import Axes

LABELS = {"codebook_learning_rate": "codebook rate", "lambda_": "λ", "sigma_0": "σ₀", "tau": "τ"}
END = {"pruned": GREY, "collapsed": VERMILLION, "diverged": VERMILLION, "failed": FAINT}


def label(name: str) -> str:
    return LABELS.get(name, name)


def parallel_coordinates(trials: Sequence[Told], pareto: Sequence[int], winner: int) -> Panel:
    """One axis a dimension, NDCG@10 last; one line a trial, dotted over the axes that its schedule does not read."""
    names = [name for name in ORDER if any(name in t.trial.config for t in trials)]

    def draw(ax: Axes) -> str:
        scored = [t for t in trials if t.score is not None]
        if not scored:
            ax.set_axis_off()
            return "No trial has a score"
        columns = [_Axis(name, [t.trial.config[name] for t in trials if name in t.trial.config]) for name in names]
        columns.append(_Axis("NDCG@10", [t.score or 0.0 for t in scored]))
        for index, column in enumerate(columns):
            ax.axvline(index, color=GREY, linewidth=0.8, zorder=1)
            for text, height in column.ticks():
                away: dict[str, Any] = {"xytext": (-5, 0), "ha": "right", "va": "center"} if column.names is not None else {}
                away = away or {"xytext": (0, 6 if height > 0.5 else -6), "ha": "center", "va": "bottom" if height > 0.5 else "top"}
                ax.annotate(text, (index, height), textcoords="offset points", fontsize=8, zorder=4, **away)
        order = sorted(scored, key=lambda t: (t.trial.number == winner, t.trial.number in pareto, t.state == "finished"))
        for told in order:
            points = [(i, column.height(told.trial.config[column.name])) for i, column in enumerate(columns[:-1]) if column.name in told.trial.config]
            points.append((len(columns) - 1, columns[-1].height(told.score or 0.0)))
            colour, width = _line(told, pareto, winner)
            for (x, y), (x_next, y_next) in pairwise(points):  # dotted where it passes over an axis that the schedule does not read
                style = "-" if x_next == x + 1 else ":"
                ax.plot([x, x_next], [y, y_next], style, color=colour, linewidth=width, marker="o", markersize=2.5, zorder=2 + width / 10)
        ax.set_xticks(range(len(columns)), [label(column.name) for column in columns])
        ax.set_yticks([])
        ax.set_ylim(-0.12, 1.12)
        ax.set_xlim(-0.6 if columns[0].names is not None else -0.2, len(columns) - 0.75)
        ax.grid(False)
        ax.spines[["left", "bottom"]].set_visible(False)
        return (
            f"The winner, trial {winner}, in orange; the rest of the Pareto set in blue, others trained to the end in green, "
            "pruned ones in grey, collapsed ones in red"
        )

    return draw


def _line(told: Told, pareto: Sequence[int], winner: int) -> tuple[str, float]:
    if told.trial.number == winner:
        return ORANGE, 2.6
    if told.trial.number in pareto:
        return BLUE, 2.0
    if told.state == "finished":
        return GREEN, 1.2
    return END.get(told.state, GREY), 0.8


class _Axis:
    """Heights 0 to 1 of one dimension's values: names evenly, numbers by size, wide ranges by their logarithm."""

    def __init__(self, name: str, values: Sequence[float | str]) -> None:
        self.name = name
        self.names = list(dict.fromkeys(str(v) for v in values)) if any(isinstance(v, str) for v in values) else None
        numbers = [float(v) for v in values if not isinstance(v, str)] or [0.0]
        self.log = self.names is None and min(numbers) > 0 and max(numbers) / min(numbers) > 20
        self.low, self.high = self._scale(min(numbers)), self._scale(max(numbers))

    def _scale(self, value: float) -> float:
        return float(np.log10(value)) if self.log else value

    def height(self, value: float | str) -> float:
        if self.names is not None:
            return (self.names.index(str(value)) + 0.5) / len(self.names)
        return 0.5 if self.high == self.low else (self._scale(float(value)) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[str, float]]:
        if self.names is not None:
            return [(name, self.height(name)) for name in self.names]
        ends = {self.low: 0.5} if self.low == self.high else {self.low: 0.0, self.high: 1.0}
        return [(f"{10**value if self.log else value:.3g}", height) for value, height in ends.items()]


def curves(trials: Sequence[Told], key: str, unit: str, what: str, winner: int, level: int | None = None) -> Panel:
    """One line a trial over the epochs: the winner's in orange, pruned ones in grey where they stop."""

    def draw(ax: Axes) -> str:
        shown = [t for t in trials if t.rows]
        if not shown:
            return f"{what}: nothing was recorded"
        for told in sorted(shown, key=lambda t: (t.trial.number == winner, t.state == "finished")):
            x, y = series(told.curve, key, level)
            best = told.trial.number == winner
            colour = ORANGE if best else BLUE if told.state == "finished" else END.get(told.state, GREY)
            ax.plot(x, y, color=colour, linewidth=2.4 if best else 1.1, marker="o" if len(x) == 1 else None, markersize=3)
        whole_epochs(ax)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.set_ylabel(unit)
        return what

    return draw


def trial_panel(told: Told, levels: int, epochs: int) -> Panel:
    """A trial alone: NDCG, noise and the first level's perplexity, each against its own largest value; the axis is a full trial's."""

    def draw(ax: Axes) -> str:
        ax.set_ylim(-0.05, 1.1)  # before the lines: their labels are kept apart by it
        ax.set_xlim(0.9, max(2, epochs) + 0.1)
        lines = []
        for key, name, colour, level in (
            ("validation_ndcg_10", "NDCG@10", BLUE, None), ("sigma", "σ", ORANGE, None), ("perplexity", "perplexity", GREEN, 0 if levels else None)
        ):  # fmt: skip
            x, y = series(told.curve, key, level)
            if len(y):
                lines.append((f"{name} ≤ {y.max():.3g}", colour, x, y / (y.max() or 1.0)))
        draw_lines(ax, lines)
        whole_epochs(ax)
        ax.set_ylabel("share of its own maximum")
        return f"Trial {told.trial.number}: {told.state}" + ("" if told.score is None else f", NDCG@10 {told.score:.4f}")

    return draw


def finalists_panel(finalists: Sequence[Finalist]) -> Panel:
    """Each finalist's seeds as points, its mean and the 95% interval of the mean."""

    def draw(ax: Axes) -> str:
        for row, finalist in enumerate(reversed(finalists)):
            colour = ORANGE if finalist is finalists[0] else BLUE
            if finalist.interval is not None:
                ax.plot(finalist.interval, (row, row), color=colour, linewidth=2)
            ax.plot(finalist.scores, [row] * len(finalist.scores), "o", color=colour, markersize=4, alpha=0.6)
            ax.plot([finalist.mean], [row], "D", color=colour, markersize=7)
        ax.set_yticks(range(len(finalists)), [f"trial {f.trial}" for f in reversed(finalists)])
        ax.set_ylim(-0.6, len(finalists) - 0.4)
        ax.set_xlabel("validation NDCG@10: seeds, mean, 95% interval")
        best = finalists[0]
        if len(finalists) < 2 or best.interval is None or finalists[1].interval is None:
            return f"Trial {best.trial} reaches {best.mean:.4f} on {len(best.scores)} seed(s)"
        apart = best.interval[0] > finalists[1].interval[1]
        return f"Trial {best.trial} leads with {best.mean:.4f}; the intervals {'lie apart' if apart else 'overlap, so the lead is not established'}"

    return draw


def pareto_panel(trials: Sequence[Told], pareto: Sequence[int], key: str, unit: str, winner: int) -> Panel:
    """NDCG@10 against another objective; the Pareto set in blue."""

    def draw(ax: Axes) -> str:
        ended = [t for t in trials if t.state == "finished" and t.best is not None]
        for told in sorted(ended, key=lambda t: t.trial.number in pareto):
            best: Mapping[str, float] = told.best or {}
            inside = told.trial.number in pareto
            colour = ORANGE if told.trial.number == winner else BLUE if inside else GREY
            ax.plot([best[key]], [told.score or 0.0], "o", color=colour, markersize=7 if inside else 4)
            if inside:
                ax.annotate(
                    str(told.trial.number), (best[key], told.score or 0.0), xytext=(6, 3), textcoords="offset points", color=colour, fontsize=9
                )
        if ended and all(isinstance((t.best or {})[key], int) for t in ended):
            thousands(ax.xaxis)
        else:
            percent(ax.xaxis)
        ax.set_xlabel(unit)
        ax.set_ylabel("validation NDCG@10")
        return f"{len(pareto)} of {len(ended)} trials trained to the end are in the Pareto set"

    return draw


def importance_panel(found: Sequence[Importance]) -> Panel:
    """Bars of the explained share of rank variance; faint where chance gives as much in over 5% of the shuffles."""
    if not found:
        return empty("Too few trials to say which dimension matters")

    def draw(ax: Axes) -> str:
        ordered = list(reversed(found))
        ax.barh(range(len(ordered)), [i.share for i in ordered], color=[BLUE if i.p <= 0.05 else FAINT for i in ordered], height=0.6)
        for row, i in enumerate(ordered):
            ax.annotate(
                f"p = {i.p:.2f}" if i.p >= 0.005 else "p < 0.005",
                (i.share, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=GREY,
            )
        ax.set_yticks(range(len(ordered)), [label(i.name) for i in ordered])
        ax.set_xlim(0, 1.15)
        ax.set_xlabel("share of the variance of ranks")
        clear = [label(i.name) for i in found if i.p <= 0.05]
        return f"Beyond chance: {', '.join(clear)}" if clear else "No dimension stands out from chance with this few trials"

    return draw
