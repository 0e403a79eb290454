"""`diger drift`: what each snapshot's fresh events say of the champion, over the snapshots of a store, with the limits."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from orchestration.cli.options import json_option, next_steps, open_store, params_options, store_option

if TYPE_CHECKING:
    from orchestration.change.drift_figures import Drift
    from orchestration.change.drift_history import Row
    from orchestration.params.data import DriftConfig

NONE = "-"
MARK = " !"  # behind a figure outside its limits


@click.command()
@click.option("--last", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Only the newest N snapshots.")
@params_options
@store_option
@json_option
def drift(last: int, params_file: str | None, overrides: tuple[str, ...], store: str, as_json: bool) -> None:
    """Show how far each snapshot has drifted from its champion, and which limits (catalogue_diff.drift) it passed. Computes nothing anew."""
    from dataclasses import asdict

    from orchestration.change.drift_history import rows
    from orchestration.engine.console import print_json, print_table, say
    from orchestration.params.load import load_params

    config = load_params(params_file, overrides).catalogue_diff.drift
    found = rows(open_store(store), config, last)
    if as_json:
        print_json({"limits": asdict(config), "snapshots": found})
        return
    print_table("Drift, oldest snapshot first", ["snapshot", *_COLUMNS], [*(_cells(row) for row in found), ["limit", *_limits(config)]])
    for row in found:
        say(f"{row['snapshot']}: {'beside champion ' + row['champion'][:12] + ': ' if row['champion'] else ''}{row['said']}")
    latest = found[-1]
    if latest["passed"]:
        place = shlex.quote(latest["url"])
        next_steps(store, (f"diger run --snapshot {place}", "retrain on it; the gate judges the result"), ("diger champion --history", "what served"))


def _ratio(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else now / before


def _rise(found: Drift) -> float | None:
    now, before = found["concentration"], found["concentration_before"]
    return None if now is None or before is None else now - before


# Title -> (the figure that its limit is about, its value, how it is written). A ratio is over the window before.
_COLUMNS: dict[str, tuple[str, Callable[[Drift], float | None], str]] = {
    "fresh": ("fresh_events", lambda found: found["fresh_events"], "{:,}"),
    "volume": ("event_volume", lambda found: found["event_volume"], "×{:.2f}"),
    "new items": ("new_item_share", lambda found: found["new_item_share"], "{:.1%}"),
    "vectors": ("embedding_drift", lambda found: found["embedding_drift"], "{:.1%}"),
    "coverage": ("coverage", lambda found: _ratio(found["coverage"], found["coverage_before"]), "×{:.2f}"),
    "Gini": ("concentration", _rise, "{:+.2f}"),
    "codes": ("code_usage", lambda found: _ratio(found["code_usage"], found["code_usage_before"]), "×{:.2f}"),
    "N@10": ("list_ndcg_10", lambda found: found["list_ndcg_10"], "{:.4f}"),
    "decay": ("list_decay", lambda found: found["list_decay"], "{:.1%}"),
}


def _cells(row: Row) -> list[str]:
    cells = [row["snapshot"]]
    for figure, value, form in _COLUMNS.values():
        found = None if row["figures"] is None else value(row["figures"])
        cells.append(NONE if found is None else form.format(found) + (MARK if figure in row["passed"] else ""))
    return cells


def _limits(config: DriftConfig) -> list[str]:
    return [
        f"≥ {config.min_events:,}",
        f"×{config.min_volume:.2f}-{config.max_volume:.2f}",
        f"{config.max_new_items:.1%}",
        f"{config.max_embedding_drift:.1%}",
        f"×{config.min_coverage_ratio:.2f}",
        f"{config.max_concentration_rise:+.2f}",
        f"×{config.min_code_usage_ratio:.2f}",
        NONE,
        f"{config.max_list_decay:.1%}",
    ]
