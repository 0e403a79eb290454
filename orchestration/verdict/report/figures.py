"""The project's pictures, for the report and for the Dagster UI: `*_panels` draw, the functions beside them return PNG bytes.

matplotlib is imported inside functions; the same numbers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.verdict.models import EARLIER, NAMES, ordered
from orchestration.verdict.report.drawing import (
    CONTROL,
    DATA,
    HEIGHT,
    INK,
    JOINT,
    LISTS,
    NOISE,
    Panel,
    Rows,
    draw_lines,
    empty,
    percent,
    plain_logarithmic,
    png,
    series,
    thousands,
    whole_epochs,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diger_core.evaluation.metrics import Metrics

COLOURS = {
    "lists": LISTS,
    "lists_earlier": LISTS,
    "joint_model": JOINT,
    "frozen_model": CONTROL,
    "lists_frozen": CONTROL,
}  # the others only count: DATA
LINES = {"joint_model": "joint", "frozen_model": "frozen"}  # at the end of a line there is room for one word

# What the warm-up records, with its unit: losses are squared distances between standardised vectors.
UNITS = {
    "loss": "loss (squared distance)",
    "loss_recon": "reconstruction loss (squared distance)",
    "loss_vq": "codebook loss (squared distance)",
    "collisions": "items that share all codes",
    "unique_prefixes": "distinct prefixes",
}

# ---- learning curves ----


def learning_panels(curves: Mapping[str, Rows]) -> list[Panel]:
    """NDCG@10, noise and loss over the epochs of each model: {"joint_model": rows, "frozen_model": rows}."""
    return [_ndcg(curves), _sigma(curves.get("joint_model") or next(iter(curves.values()), ())), _loss(curves)]


def _ndcg(curves: Mapping[str, Rows]) -> Panel:
    def draw(ax: Axes) -> str:
        lines = [(LINES.get(name, name), COLOURS.get(name, JOINT), *series(rows, "validation_ndcg_10")) for name, rows in curves.items()]
        draw_lines(ax, lines)
        whole_epochs(ax)
        ax.set_ylabel("validation NDCG@10")
        best = {label: (float(y.max()), int(x[y.argmax()])) for label, _, x, y in lines if len(y)}
        if not best:
            return "No validation NDCG was recorded"
        return "Validation NDCG@10 peaks at " + ", ".join(f"{value:.4f} ({_named(label)}epoch {epoch})" for label, (value, epoch) in best.items())

    return draw


def _named(label: str) -> str:
    return f"{label}, " if label else ""


def _sigma(rows: Rows) -> Panel:
    def draw(ax: Axes) -> str:
        x, sigma = series(rows, "sigma")
        x_share, share = series(rows, "noisy_share")
        lines = [("σ", NOISE, x, sigma)]
        if len(share) != len(sigma) or not np.allclose(share, sigma):  # at a scale of 1 the mean is the share of items with noise: one line
            lines.append(("share of items", NOISE, x_share, share))
        draw_lines(ax, lines, from_zero=True, dashes=("-", "--"))
        whole_epochs(ax)
        ax.set_ylabel("mean over the items")
        if not len(sigma):
            return "No noise was recorded"
        if not sigma.any():
            return "No noise: codes are chosen without exploration throughout"
        ending = "is off at the end" if sigma[-1] == 0 else f"ends at {sigma[-1]:.3g}"
        return f"Exploration noise σ, a mean over the items, starts at {sigma[0]:.3g} and {ending}"

    return draw


def _loss(curves: Mapping[str, Rows]) -> Panel:
    def draw(ax: Axes) -> str:
        lines = [(LINES.get(name, name), COLOURS.get(name, JOINT), *series(rows, "loss_gen")) for name, rows in curves.items()]
        draw_lines(ax, lines)
        whole_epochs(ax)
        ax.set_ylabel("training loss (nats per token)")
        ends = [f"{y[0]:.2f} to {y[-1]:.2f}" + (f" ({label})" if label else "") for label, _, _, y in lines if len(y)]
        return "The recommendation loss goes from " + ", ".join(ends) if ends else "No loss was recorded"

    return draw


def learning_curves(curves: Rows | Mapping[str, Rows], columns: int = 3) -> bytes:
    """PNG of NDCG@10, noise and loss. `curves`: one model's rows, or rows by model name."""
    return png(learning_panels(curves if isinstance(curves, Mapping) else {"joint_model": curves}), columns=columns)


def tokenizer_panels(curves: Rows) -> list[Panel]:
    """One panel for each number that the warm-up records (at most four)."""
    keys = [key for key in dict.fromkeys(k for row in curves for k in row) if key not in ("epoch", "step") and len(series(curves, key)[1])]
    return [_one_curve(curves, key) for key in keys[:4]] or [empty("The warm-up recorded no curve")]


def _one_curve(rows: Rows, key: str) -> Panel:
    def draw(ax: Axes) -> str:
        x, y = series(rows, key)
        draw_lines(ax, [("", DATA, x, y)])
        whole_epochs(ax)
        name = key.replace("_", " ")
        if all(float(value).is_integer() for value in y):
            thousands(ax.yaxis)
        ax.set_ylabel(UNITS.get(key, name))
        return f"Warm-up: {name} goes from {y[0]:.4g} to {y[-1]:.4g}"

    return draw


def tokenizer_curves(curves: Rows) -> bytes:
    return png(tokenizer_panels(curves))


# ---- metrics ----


def metrics_panels(metrics: Metrics) -> list[Panel]:
    """Recall@10 and NDCG@10 (or the nearest that exist) of every model, with intervals."""
    return [_dots(metrics["models"], metric) for metric in headline_metrics(metrics)]


def headline_metrics(metrics: Metrics) -> list[str]:
    """["recall@10", "ndcg@10"], or of each kind the cut-off nearest to 10 that was measured."""
    names = [name for model in metrics["models"].values() for name in model if "@" in name]
    chosen = []
    for kind in ("recall", "ndcg"):
        cuts = sorted({int(n.split("@")[1]) for n in names if n.startswith(f"{kind}@")}, key=lambda k: (abs(k - 10), k))
        chosen += [f"{kind}@{cuts[0]}"] if cuts else []
    return chosen


def judged_metric(metrics: Metrics) -> str:
    """The one metric that verdicts are about: NDCG@10, or the nearest that was measured."""
    return headline_metrics(metrics)[-1]


def metric_label(metric: str) -> str:
    kind, _, cut = metric.partition("@")
    return f"{ {'recall': 'Recall', 'ndcg': 'NDCG'}.get(kind, kind) }@{cut}"


def _dots(models: Mapping[str, Mapping[str, Any]], metric: str) -> Panel:
    def draw(ax: Axes) -> str:
        names = [name for name in ordered(models) if metric in models[name] and name not in EARLIER]
        for row, name in enumerate(names):
            value, colour = models[name][metric], COLOURS.get(name, DATA)
            low, high = models[name].get("intervals", {}).get(metric, (value, value))
            ax.plot([low, high], [row, row], color=colour, linewidth=3)
            ax.plot([value], [row], marker="o", markersize=8, color=colour, linestyle="")
            ax.annotate(f"{value:.4f}", (high, row), xytext=(8, 0), textcoords="offset points", va="center", color=colour, fontweight="bold")
        ax.set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlim(left=0)
        ax.margins(x=0.2)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(f"{metric_label(metric)} on test targets (95% interval)")
        best = max(names, key=lambda name: models[name][metric])
        return f"{metric_label(metric)}: {NAMES.get(best, best)}{' are' if best == 'lists' else ' is'} highest, {models[best][metric]:.4f}"

    return draw


def metrics_height(metrics: Metrics) -> float:
    """Inches: a quarter for each model."""
    return max(HEIGHT, 0.9 + 0.24 * len(metrics["models"]))


def metrics_bars(metrics: Metrics) -> bytes:
    """PNG of the headline metrics of every model with their intervals; a row a model, however many there are."""
    return png(metrics_panels(metrics), height=metrics_height(metrics))


# ---- what the lists listen to ----


def weights_panel(weights: Mapping[str, float], halves: Sequence[Mapping[str, float]], names: Mapping[str, str], shares: bool) -> Panel:
    """A bar a part, the largest first, and a mark where each half of the validation users would have put it. `shares`: the weights sum to 1."""

    def draw(ax: Axes) -> str:
        parts = sorted(weights, key=lambda part: -weights[part])
        ax.barh(range(len(parts)), [weights[part] for part in parts], color=LISTS, height=0.62)
        for half in halves:
            ax.plot([half.get(part, 0.0) for part in parts], range(len(parts)), linestyle="", marker="|", markersize=13, markeredgewidth=2, color=INK)
        told = {part: f"{weights[part]:.0%}" if shares else f"{weights[part]:g}" for part in parts}  # not beside the bar: there the marks are
        ax.set_yticks(range(len(parts)), [f"{names.get(part, part)}  {told[part]}" for part in parts])
        ax.set_ylim(len(parts) - 0.4, -0.6)
        ax.set_xlim(left=0)
        ax.margins(x=0.15)
        ax.grid(visible=False, axis="y")
        if shares:
            percent(ax.xaxis)
        ax.set_xlabel("share of the mixture" if shares else "weight of the part's score")
        first = parts[0]
        return f"The lists listen most to {names.get(first, first)}: {'' if shares else 'weight '}{told[first]}"

    return draw


def weights_bars(weights: Mapping[str, float], halves: Sequence[Mapping[str, float]], names: Mapping[str, str], shares: bool) -> bytes:
    return png([weights_panel(weights, halves, names, shares)], width=6.4)


# ---- data ----


def popularity_panel(counts_N: np.ndarray) -> Panel:
    def draw(ax: Axes) -> str:
        ordered = np.sort(counts_N)[::-1]
        seen = ordered[ordered > 0]
        if not len(seen):
            ax.set_axis_off()
            return "No item has an event"
        ranks = np.unique(np.geomspace(1, len(seen), 300).astype(int))
        ax.plot(ranks, seen[ranks - 1], color=DATA)
        ax.set_xscale("log")
        ax.set_yscale("log")
        plain_logarithmic(ax)
        ax.set_xlabel("item, by popularity (rank)")
        ax.set_ylabel("events")
        head = seen[: max(1, len(counts_N) // 5)].sum() / seen.sum()
        return f"The most popular fifth of the items draws {100 * head:.0f}% of the events; {(ordered == 0).sum():,} items have none"

    return draw


def sequence_lengths_panel(offsets_U1: np.ndarray) -> Panel:
    def draw(ax: Axes) -> str:
        lengths = np.diff(offsets_U1)
        if not len(lengths):
            ax.set_axis_off()
            return "There are no users"
        top = max(int(np.quantile(lengths, 0.99)), 3)
        ax.hist(np.minimum(lengths, top), bins=np.arange(0.5, top + 1.5, max(1, top // 40)).tolist(), color=DATA)
        thousands(ax.yaxis)
        ax.set_xlabel("events of a user (the last bar holds all longer ones)")
        ax.set_ylabel("users")
        return f"Half of the users have at most {int(np.median(lengths))} events; {(lengths < 3).sum():,} have fewer than 3"

    return draw


def embedding_panel(vectors_ND: np.ndarray, points: int = 2000) -> Panel:
    def draw(ax: Axes) -> str:
        chosen = np.linspace(0, len(vectors_ND) - 1, min(points, len(vectors_ND))).astype(int)
        centred = np.asarray(vectors_ND, dtype=np.float64)[chosen]
        centred = centred - centred.mean(axis=0)
        variance, axes = np.linalg.eigh(centred.T @ centred)
        plane = axes[:, ::-1][:, :2]
        plane = plane * np.where(
            plane[np.abs(plane).argmax(axis=0), range(plane.shape[1])] < 0, -1.0, 1.0
        )  # the sign of an axis is arbitrary: fix it
        at = centred @ plane
        ax.scatter(at[:, 0], at[:, -1], s=5, color=DATA, alpha=0.45, linewidths=0)
        first, second = (variance[::-1][:2] / max(variance.sum(), 1e-30)).tolist() if len(variance) > 1 else (1.0, 0.0)
        ax.set_xlabel(f"first principal component ({first:.0%} of the variance)")
        ax.set_ylabel(f"second ({second:.0%})")
        kept = first + second
        return f"{len(vectors_ND):,} items; this plane shows {100 * kept:.0f}% of the variance of their {vectors_ND.shape[1]} dimensions"

    return draw
