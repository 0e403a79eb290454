"""`diger run`: the whole flow on one snapshot."""

from __future__ import annotations

import shlex
import textwrap
import time
from dataclasses import asdict
from typing import Any

import click

from diger_core.errors import Refused
from orchestration.cli.options import Source, json_option, next_steps, of_snapshot, source_options
from orchestration.verdict.gate.document import VERDICT, GateVerdict


@click.command()
@source_options
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; at the end the verdict and the report's place alone.")
@json_option
def run(source: Source, until: str | None, quiet: bool, as_json: bool) -> None:
    """Run the whole flow on a snapshot: from raw events to the report and, where the gate accepts, the release.

    Stages whose inputs and parameters are unchanged are reused. The run also shows in Dagster's UI (`make ui`), under Runs and under job `retrain`;
    where nothing has changed at all, the earlier run stays the one that it shows.
    Exit code 3 where the gate refuses the candidate: everything ran, and the report says why.
    """
    from orchestration.engine.console import console_progress
    from orchestration.graph import BY_NAME

    if until is not None and until not in BY_NAME:
        raise click.BadParameter(f"{until} is not a stage; the stages are {', '.join(BY_NAME)}", param_hint="--until")
    with console_progress(quiet=quiet) as progress:
        summary = run_snapshot(source, progress, [until] if until else [])
    show(summary, as_json, quiet)
    if not as_json and not quiet:
        next_steps(source.store_url, *follow_up(summary, until, source))
    if "refused" in summary:
        raise Refused(summary["refused"])


def run_snapshot(source: Source, progress: Any, targets: list[str]) -> dict[str, Any]:
    """Registers the snapshot, runs the flow, and returns a summary of plain values."""
    from orchestration.champion.log import current
    from orchestration.on_dagster.launch import RefusedRun, run_flow

    started = time.monotonic()
    store = source.open()
    entry = source.register(store)
    progress.message(f"snapshot {entry.key} ({entry.url})")
    refused: str | None = None
    try:
        results = run_flow(store, entry, source.params_file, source.overrides, progress, targets)
    except RefusedRun as refusal:
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
        told = "none, nothing serves yet" if champion is None else f"{champion['bundle'][:12]}, entry {champion['number']} of the log"
        print(f"Champion: {told}{' (stays)' if champion is not None and 'refused' in summary else ''}")
    if "report" in summary:
        print(f"Report: {summary['report']}")
    if not quiet:
        print(f"Done in {duration(summary['seconds'])}; snapshot {summary['snapshot']}")


def follow_up(summary: dict[str, Any], until: str | None, source: Source, user: str = "ID") -> list[tuple[str, str]]:
    """What to do after a run: read the report, then what its verdict asks for. `user`: somebody to recommend to."""
    of = of_snapshot(source.given)
    if "report" not in summary:
        last = until or list(summary["artefacts"])[-1]
        return [
            (f"diger why {summary['artefacts'][last][:12]}", "what it was made from"),
            (f"diger run{of}", "the whole flow; what is done is reused"),
        ]
    seen = ("diger ui", "the report and all stages in the browser")
    champion = summary.get("champion")
    if "refused" in summary:
        show = (f"diger report show {summary['artefacts']['report'][:12]}", "why, in full")
        if champion and source.params().retraining.start == "scratch":
            return [show, (f"diger run{of} --set retraining.start=warm", "continue from the champion"), seen]
        return [show, (f"diger run{of} --set {'retraining.epochs' if champion else 'training.epochs'}=N", "train longer"), seen]
    first = ("diger why champion", "what it was made from")
    if champion is not None and champion["number"] > 1:
        first = ("diger report compare champion~1 champion", "what changed since the model before")
    return [first, (f"diger recommend{of} --users {shlex.quote(user)}", "a list"), seen]


def duration(seconds: float) -> str:
    """3.2 s, 48 s, 5 min 12 s."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


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
