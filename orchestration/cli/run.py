"""`diger run`: the whole flow on one snapshot."""

from __future__ import annotations

import textwrap
import time
from dataclasses import asdict
from typing import Any

import click

from diger_core.errors import DigerError
from orchestration.cli.options import json_option, open_store, params_options, store_option
from orchestration.verdict.gate.document import VERDICT, GateVerdict


@click.command()
@click.option("--snapshot", metavar="DIR_OR_URL", help="Directory or s3:// URL with interactions.parquet and items.parquet [default: from params].")
@params_options
@store_option
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; at the end the verdict and the report's place alone.")
@json_option
def run(snapshot: str | None, params_file: str | None, overrides: tuple[str, ...], store: str, until: str | None, quiet: bool, as_json: bool) -> None:
    """Run the whole flow on a snapshot: from raw events to the report and, where the gate accepts, the release.

    Stages whose inputs and parameters are unchanged are reused. The run also shows in Dagster's UI (`make ui`).
    """
    from orchestration.engine.console import console_progress
    from orchestration.graph import BY_NAME
    from orchestration.params.load import load_params

    if until is not None and until not in BY_NAME:
        raise click.BadParameter(f"{until} is not a stage; the stages are {', '.join(BY_NAME)}", param_hint="--until")
    source = snapshot or load_params(params_file, overrides).snapshot
    with console_progress(quiet=quiet) as progress:
        summary = run_snapshot(source, params_file, overrides, store, progress, [until] if until else [])
    show(summary, as_json, quiet)
    if "refused" in summary:
        raise DigerError(summary["refused"])


def run_snapshot(
    source: str, params_file: str | None, overrides: tuple[str, ...], store_url: str, progress: Any, targets: list[str]
) -> dict[str, Any]:
    """Registers the snapshot, runs the flow, and returns a summary of plain values."""
    from orchestration.champion.log import current
    from orchestration.engine.registry import register
    from orchestration.on_dagster.launch import Refused, run_flow

    started = time.monotonic()
    store = open_store(store_url)
    entry = register(store, source)
    progress.message(f"snapshot {entry.key} ({entry.url})")
    refused: str | None = None
    try:
        results = run_flow(store, entry, params_file, overrides, progress, targets)
    except Refused as refusal:
        results, refused = refusal.results, str(refusal)
    summary: dict[str, Any] = {
        "snapshot": entry.key,
        "artefacts": {name: result.artefact.hash for name, result in results.items()},
        "seconds": round(time.monotonic() - started, 1),
    }
    stored: GateVerdict | None = results["gate"].artefact.json(VERDICT) if "gate" in results else None
    if "evaluation" in results:
        from orchestration.verdict.report.verdict import verdict

        summary["metrics"] = results["evaluation"].artefact.json("metrics.json")
        summary["verdict"] = verdict(summary["metrics"], stored).plain()
    if "report" in results:
        summary["report"] = str(results["report"].artefact.path("report.html"))
    if stored is not None:
        from orchestration.verdict.report.gate import conclusion

        summary["gate"] = conclusion(stored)
        champion = current(store)
        summary["champion"] = asdict(champion) if champion else None
    if refused is not None:
        summary["refused"] = refused
    return summary


def show(summary: dict[str, Any], as_json: bool, quiet: bool = False) -> None:
    """The table of models, the verdict and the report's path, or JSON; quiet: the verdict and the path alone."""
    from orchestration.engine.console import print_json, print_table
    from orchestration.verdict.models import NAMES, ordered

    if as_json:
        print_json(summary)
        return
    if "metrics" in summary and not quiet:
        models = summary["metrics"]["models"]
        names = [n for n in ("recall@10", "ndcg@10") if all(n in m for m in models.values())]
        rows = [[NAMES.get(model, model), *(_cell(models[model], name) for name in names)] for model in ordered(models)]
        print_table(f"Test events, full ranking, {summary['metrics']['users']:,} users (± half of the 95% interval)", ["", *names], rows)
    if "verdict" in summary:
        show_verdict(summary["verdict"], quiet)
    if "champion" in summary and not quiet:
        champion = summary["champion"]
        print(f"Champion: {'none' if champion is None else champion['bundle'][:12] + ', entry ' + str(champion['number']) + ' of the log'}")
    if "report" in summary:
        print(f"Report: {summary['report']}")
    if not quiet:
        print(f"Done in {summary['seconds']} s; snapshot {summary['snapshot']}")


def show_verdict(found: dict[str, Any], quiet: bool = False) -> None:
    """The first line is the verdict; below it a sentence for each question, and what to look at."""
    print(f"Verdict: {found['title']}")
    for part in () if quiet else found["parts"]:
        print(
            textwrap.fill(
                f"{part['label']}: {part['word']}: {part['sentence']}", 80, initial_indent="  ", subsequent_indent="    ", break_long_words=False
            )
        )
    for warning in () if quiet else found["warnings"]:
        print(textwrap.fill(f"Look at: {warning}", 80, initial_indent="  ", subsequent_indent="    ", break_long_words=False))


def _cell(values: dict[str, Any], name: str) -> str:
    """Short enough for four columns on 80 characters; the report shows both ends of the interval."""
    interval = values.get("intervals", {}).get(name)
    return f"{values[name]:.4f}" + (f" ±{(interval[1] - interval[0]) / 2:.4f}" if interval else "")
