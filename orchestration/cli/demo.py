"""`diger demo`: the whole cycle on the embedded catalogue: a first training and release, then a later snapshot that continues from it."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diger_core.errors import DigerError, Refused
from orchestration.cli.options import Source, json_option, next_steps, open_store, params_options, store_option
from orchestration.cli.run import duration
from orchestration.verdict.gate.document import NDCG, VERDICT, GateVerdict
from orchestration.verdict.models import strongest_baseline

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store


@click.command()
@params_options
@store_option
@click.option("--first-only", is_flag=True, help="Stop after the first snapshot.")
@json_option
def demo(params_file: str | None, overrides: tuple[str, ...], store: str, first_only: bool, as_json: bool) -> None:
    """Run the flow on the embedded catalogue, then retrain on its next snapshot: what changed, which IDs stay, whether the gate lets it serve."""
    from orchestration.cli.run import follow_up, run_snapshot, show
    from orchestration.engine.console import console_progress, print_json

    if not demo_may_come(open_store(store)):
        raise DigerError(f"{store}: holds a shop of your own, which the demo's would be compared with: give the demo another, --store demo-store")
    # Read when torch is imported, and by Ray's workers: the shop's products are so small that a second thread costs more than it computes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with console_progress() as progress:
        first, second = (Source(place, params_file, overrides, store) for place in demo_snapshots(progress))
        progress.message("1 of 2: a shop's first snapshot: nothing serves yet")
        summary = run_snapshot(first, progress, [])
    if not as_json:
        show(summary, as_json)
    if not first_only and "refused" not in summary:
        with console_progress() as progress:
            progress.message("\n2 of 2: the shop's next snapshot arrives: retraining continues from the champion")
            later = run_snapshot(Source(second.given, params_file, overrides, store), progress, [])
        summary["second"] = {**later, "cycle": cycle(later, store)}
    if as_json:
        print_json(summary)
    elif "second" in summary:
        for line in story(summary):
            print(line)
        next_steps(store, *follow_up(summary["second"], None, second, somebody(second)))
    else:
        next_steps(store, *follow_up(summary, None, first, somebody(first)))
    refused = summary.get("refused") or summary.get("second", {}).get("refused")
    if refused:
        raise Refused(refused)


def cycle(summary: dict[str, Any], store_url: str) -> dict[str, Any]:
    """What the cycle's stages found: the decision, the shares of IDs that were kept, and the figures of both models."""
    store = open_store(store_url)
    found = {name: store.artefact(name, summary["artefacts"][name]) for name in ("catalogue_diff", "cold_start", "id_diff", "gate")}
    changes, ids = found["catalogue_diff"].facts, found["id_diff"].facts
    verdict: GateVerdict = found["gate"].json(VERDICT)
    everything = verdict["metrics"].get("slices", {}).get("all")
    return {
        "decision": changes["decision"],
        "reason": changes["reason"],
        "cold_start_items": found["cold_start"].facts["new_items"],
        "ids_kept": ids.get("kept"),
        "ids_kept_weighted": ids.get("kept_weighted"),
        "ndcg_10": everything.get(NDCG) if everything is not None else None,
        "fresh_targets": verdict["metrics"].get("fresh_targets"),
        "rules": len(verdict["rules"]),
        "rules_met": sum(rule["passed"] for rule in verdict["rules"]),
    }


def story(summary: dict[str, Any]) -> list[str]:
    """The demo's end: what was compared, what won, what changed, what to open. Ten lines of at most 80 columns, a long path apart."""
    later = summary["second"]
    found, champion, seconds = later["cycle"], later["champion"], summary["seconds"] + later["seconds"]
    met = f"{found['rules_met']} of {found['rules']} rules met"
    says = f"refused, {met}: the champion stays"
    if "refused" not in later:
        says = f"accepted, {met}: released as champion #{champion['number']}"
    kept = f"{found['ids_kept']:.1%} kept; {found['cold_start_items']:,} new items had IDs before training" if found["ids_kept"] is not None else ""
    lines = [
        ("Compared", f"the model retrained on {later['snapshot']} with the one before"),
        ("Gate", says),
        *_models(later),
        ("Changed", re.sub(r" \([^)]*\)", "", found["reason"])),  # without the thresholds
        ("IDs", kept),
        ("Open", str(later.get("report"))),
    ]
    rows = [
        textwrap.fill(told, 80, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15, break_long_words=False) for name, told in lines if told
    ]
    return [f"\nThe demo in short ({duration(seconds)}; NDCG@10 on test events, with 95% intervals)", *rows]


def _models(later: dict[str, Any]) -> list[tuple[str, str]]:
    """The lists beside the champion's, then lists and generative model alone beside the best counting baseline."""
    from orchestration.verdict.report.compared import compared, over_the_period
    from orchestration.verdict.report.figures import judged_metric

    row, metrics = later["cycle"]["ndcg_10"], later["metrics"]
    told = []
    if row is not None:
        told.append(("New lists", _gain(row["candidate"], "before", row["champion"], row["difference"])))
    metric = judged_metric(metrics)
    best = strongest_baseline(metrics["models"], metric)
    # the model has seen training events alone, and so has what stands beside it
    trained = "baseline_earlier" if "baseline_earlier" in metrics["models"] else best
    for title, model, base in (("Same lists", "lists", best), ("Model alone", "joint_model", trained)):
        found = compared(metrics, model, base, metric)
        if found is not None:
            told.append((title, _gain(found.value, "counting", found.base, asdict(found))))
            period = over_the_period(metrics, model, base, metric)
            if model == "lists" and period is not None:
                told.append(("All events", _gain(period.value, "counting", period.base, asdict(period))))
        elif model in metrics["models"] and base is not None:
            told.append((title, f"{metrics['models'][model][metric]:.4f}, counting {metrics['models'][base][metric]:.4f}"))
    return told


def _gain(value: float, against: str, base: float, found: Mapping[str, float]) -> str:
    word = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "not clear"
    return f"{value:.4f}, {against} {base:.4f}: {word}, {found['mean']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def somebody(source: Source) -> str:
    """A user of the demo's snapshot, for an example: the one of its first event."""
    import pyarrow.parquet as pq

    rows = pq.ParquetFile(Path(source.snapshot()) / "interactions.parquet").iter_batches(batch_size=1, columns=["user_id"])
    return str(next(rows)["user_id"][0].as_py())


def demo_may_come(store: Store) -> bool:
    """Whether the demo's snapshots belong in this store: it is empty, or holds only them. Beside a shop of one's own they would be a previous
    snapshot that it is compared with."""
    from orchestration.engine.registry import is_demo, readable

    entries, damaged = readable(store)
    return not damaged and all(is_demo(entry.url) for entry in entries)


def demo_snapshots(progress: object) -> list[str]:
    """Writes the two demo snapshots where they are missing, tracked by DVC where the project is a repository."""
    from orchestration.engine.registry import DEMO
    from orchestration.on_dvc import track
    from orchestration.snapshot.demo_shop import write_demo_snapshots

    paths = [Path(each) for each in DEMO]
    if not all((path / "_SUCCESS").exists() for path in paths):
        write_demo_snapshots(paths[0].parent)
        track(*paths)
    return [str(path) for path in paths]
