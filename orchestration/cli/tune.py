"""`diger tune`: a study of decay schedules, from its start to its promoted winner."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import Source, json_option, next_steps, source_options

if TYPE_CHECKING:
    from diger_core.progress import Progress
    from diger_core.store.artefacts import Store


@click.command()
@click.option("--trials", type=click.IntRange(min=1), help="Trials of the search [default: decay_search.trials].")
@click.option("--searcher", type=click.Choice(["random", "grid", "optuna"]), help="Where configurations come from [default: decay_search.searcher].")
@click.option("--resume", metavar="STUDY", help="Continue a study, by its name or the beginning of it: same snapshot, same parameters.")
@click.option("--list", "list_only", is_flag=True, help="List the studies of the store.")
@click.option("--promote", is_flag=True, help="Train the joint model in full with the winner's configuration.")
@source_options
@json_option
def tune(trials: int | None, searcher: str | None, resume: str | None, list_only: bool, promote: bool, source: Source, as_json: bool) -> None:
    """Search for a decay schedule by validation NDCG@10.

    The same command continues with a study that was stopped; one that is finished is shown. Trials run beside each other as the cluster has room.
    """
    opened = source.open()
    if list_only:
        list_studies(opened, as_json)
        return
    from orchestration.engine.console import console_progress

    started = time.monotonic()
    if resume is not None and (source.given or source.params_file or source.overrides or trials or searcher):
        raise click.UsageError("--resume takes the study's own snapshot and parameters: give it alone, or with --promote and --store")
    chosen = [f"decay_search.{name}={value}" for name, value in (("trials", trials), ("searcher", searcher)) if value is not None]
    with console_progress() as progress:
        found = _run(opened, source.with_overrides(*chosen), resume, promote, progress)
    show({**found, "seconds": round(time.monotonic() - started, 1)}, as_json)
    if not as_json:
        study = found["study"]["study"][:12]
        step = ("diger run --set SECTION.KEY=VALUE", "use it") if promote else (f"diger tune --resume {study} --promote", "train the winner in full")
        next_steps(source.store_url, step, (f"diger why {found['artefact'][:12]}", "what the study was made from"))


def _run(store: Store, source: Source, resume: str | None, promote: bool, progress: Progress) -> dict[str, Any]:
    import tempfile
    from pathlib import Path

    import yaml

    from orchestration.engine.registry import lookup
    from orchestration.on_dagster.launch import run_flow
    from orchestration.search.journal import described

    target = "tuned_model" if promote else "decay_search"
    with tempfile.TemporaryDirectory() as folder:
        if resume is not None:
            study = described(store, resume)
            entry, source = lookup(store, study["snapshot"]), Source(None, str(Path(folder) / "params.yaml"), (), source.store_url)
            Path(str(source.params_file)).write_text(yaml.safe_dump(study["params"], allow_unicode=True), encoding="utf-8")
        else:
            entry = source.register(store)
        progress.message(f"snapshot {entry.key} ({entry.url})")
        results = run_flow(store, entry, source.params_file, source.overrides, progress, [target])
    artefact = results["decay_search"].artefact
    found = {"study": artefact.json("study.json"), "report": str(artefact.path("report.html")), "artefact": artefact.hash, "snapshot": entry.key}
    return found | ({"promoted": results["tuned_model"].artefact.json("promotion.json")} if promote else {})


def list_studies(store: Store, as_json: bool) -> None:
    """One line a study: what was tried and how far it is."""
    from orchestration.engine.console import print_json, print_table
    from orchestration.search.journal import Journal, studies

    listed = []
    for study in studies(store):
        told = Journal(store, study["study"]).read().values()
        searched = [t for t in told if t.trial.repeats is None]
        settings = study["params"]["decay_search"]
        best = max((t.score for t in searched if t.score is not None), default=None)
        ended = sum(t.state != "running" for t in searched)
        listed.append(
            {
                "study": study["study"],
                "created_at": study["created_at"],
                "snapshot": study["snapshot"],
                "searcher": settings["searcher"],
                "trials": settings["trials"],
                "ended": ended,
                "repetitions": len(told) - len(searched),
                "best": best,
            }
        )
    if as_json:
        print_json(listed)
        return
    if not listed:
        print(f"No study in {store.url} yet: `diger tune` starts one")
        return
    rows = [
        [s["study"][:12], s["created_at"][:16], s["snapshot"], s["searcher"], f"{s['ended']}/{s['trials']}", str(s["repetitions"]), _score(s["best"])]
        for s in listed
    ]
    print_table("Studies", ["study", "started", "snapshot", "searcher", "trials ended", "on more seeds", "best NDCG@10"], rows)
    next_steps(store.url, (f"diger tune --resume {listed[-1]['study'][:12]}", "continue or show the last one"))


def show(found: dict[str, Any], as_json: bool) -> None:
    """The finalists, how to use the winner, and where the report is; or JSON."""
    from orchestration.engine.console import print_json, print_table
    from orchestration.search.space import ordered
    from orchestration.search.terminal import shown

    if as_json:
        print_json(found)
        return
    study = found["study"]
    rows = [
        [str(f["trial"]), _score(f["mean"]), _score(f["spread"]), " ".join(_score(s) for s in f["scores"]), shown(ordered(f["config"]))]
        for f in study["finalists"]
    ]
    print_table(f"Study {study['study'][:12]}: validation NDCG@10 over seeds", ["trial", "mean", "spread", "each seed", "configuration"], rows)
    print("The winner's configuration, for `diger run --set` or params.yaml:")
    for line in study["winner"]["overrides"]:
        print(f"  {line}")
    if "promoted" in found:
        print(f"Promoted: joint model {found['promoted']['joint_model'][:12]}, of study {study['study'][:12]}, trial {study['winner']['trial']}")
    print(f"Report: {found['report']}")
    print(f"Done in {found['seconds']:.0f} s; snapshot {found['snapshot']}")


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
