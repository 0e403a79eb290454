"""`diger demo`: the whole cycle on the embedded catalogue: a first training and release, then a later snapshot that continues from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import json_option, open_store, params_options, store_option
from orchestration.verdict.gate.document import NDCG, VERDICT, GateVerdict

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store

# A gate of fewer users is faster; the demo's next snapshot has no more, so that champion, control and joint model stand in one line of its report.
# Nothing here may change the keys of the stages up to the ID table: `diger lookup`, `diger recommend` and a plain `diger run` find them with
# params.yaml alone.
LATER = ("gate.users=3000",)


@click.command()
@params_options
@store_option
@click.option("--first-only", is_flag=True, help="Stop after the first snapshot.")
@json_option
def demo(params_file: str | None, overrides: tuple[str, ...], store: str, first_only: bool, as_json: bool) -> None:
    """Run the flow on the embedded catalogue, then retrain on its next snapshot: what changed, which IDs stay, whether the gate lets it serve."""
    from diger_core.errors import DigerError
    from orchestration.cli.run import run_snapshot, show
    from orchestration.engine.console import console_progress, print_json

    if not demo_may_come(open_store(store)):
        raise DigerError(f"{store}: holds a shop of your own, which the demo's would be compared with: give the demo another, --store demo-store")
    with console_progress() as progress:
        first, second = demo_snapshots(progress)
        summary = run_snapshot(first, params_file, overrides, store, progress, [])
    if not as_json:
        show(summary, as_json)
    if not first_only and "refused" not in summary:
        with console_progress() as progress:
            progress.message("\nThe shop's next snapshot arrives: retraining continues from the champion")
            later = run_snapshot(second, params_file, (*LATER, *overrides), store, progress, [])
        summary["second"] = {**later, "cycle": cycle(later, store)}
        if not as_json:
            show_cycle(summary["second"])
    if as_json:
        print_json(summary)
    refused = summary.get("refused") or summary.get("second", {}).get("refused")
    if refused:
        raise DigerError(refused)


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
    }


def show_cycle(later: dict[str, Any]) -> None:
    """A few lines for a person: the difference, the IDs, the verdict, the champion."""
    from orchestration.cli.run import show_verdict

    found, champion = later["cycle"], later["champion"]
    print("\nThe next snapshot")
    print(f"  Catalogue: {found['decision']}: {found['reason']}")
    print(f"  Cold start: {found['cold_start_items']:,} new items had IDs before any training")
    if found["ids_kept"] is not None:
        print(f"  IDs: {found['ids_kept']:.1%} kept, {found['ids_kept_weighted']:.1%} by traffic")
    if found["ndcg_10"] is not None:
        row, gain = found["ndcg_10"], found["ndcg_10"]["difference"]
        interval = f"{gain['mean']:+.4f}, 95% interval {gain['low']:+.4f} to {gain['high']:+.4f}"
        print(f"  NDCG@10 on the same users: {row['candidate']:.4f}, the champion {row['champion']:.4f} ({interval})")
    show_verdict(later["verdict"])
    print(f"  Champion: bundle {champion['bundle'][:12]}, entry {champion['number']} (diger champion --history; diger rollback --reason TEXT)")
    print(f"  Report: {later.get('report')}")
    print(f"  Done in {later['seconds']} s; snapshot {later['snapshot']}")


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
