"""`diger compare-training`: does one way to train beat another, beyond seeds and users?"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from orchestration.cli.options import Source, json_option, next_steps, source_options

if TYPE_CHECKING:
    from orchestration.search.comparison_document import ComparisonDocument


@click.command("compare-training")
@click.argument("variants", nargs=-1, metavar="[VARIANT…]")
@click.option("--seeds", type=click.IntRange(1, 100), help="Trainings of each variant [default: training_comparison.seeds].")
@source_options
@json_option
def compare_training(variants: tuple[str, ...], seeds: int | None, source: Source, as_json: bool) -> None:
    """Train VARIANTs on several seeds, paired by seed and user, and show the mean differences from the first one.

    A VARIANT is frozen, joint, or "NAME: section.key=value …" (for instance "sdud: joint_model.schedule.name=sdud"); with model=frozen among
    the changes it is a control. Better or worse is said with at least three seeds and an interval, over seeds and users, beyond zero. What is
    trained is found again: the same command continues after an interruption.
    """
    from orchestration.engine.console import console_progress, print_json, print_table
    from orchestration.on_dagster.launch import run_flow
    from orchestration.search.comparison_page import COLUMNS, rows, told, warnings

    started = time.monotonic()
    if len(variants) == 1:
        raise click.UsageError("give at least two variants, the first is what the others are compared with")
    if variants:
        source = source.with_overrides(f"training_comparison.variants={json.dumps(variants)}")
    if seeds is not None:
        source = source.with_overrides(f"training_comparison.seeds={seeds}")
    opened = source.open()
    entry = source.register(opened)
    with console_progress() as progress:
        progress.message(f"snapshot {entry.key} ({entry.url})")
        results = run_flow(opened, entry, source.params_file, source.overrides, progress, ["training_comparison"])
    artefact = results["training_comparison"].artefact
    found: ComparisonDocument = artefact.json("comparison.json")
    seconds, report = round(time.monotonic() - started, 1), str(artefact.path("report.html"))
    if as_json:
        document: dict[str, Any] = {**found, "artefact": artefact.hash, "report": report, "snapshot": entry.key, "seconds": seconds}
        print_json(document)
        return
    print_table(f"{len(found['seeds'])} seeds, {found['users']:,} test users, models alone", COLUMNS, rows(found))
    for gain in found["gains"]:
        print(told(found, gain))
    for warning in warnings(found):
        print(f"Look at: {warning}")
    print(f"Report: {report}")
    print(f"Done in {seconds:.0f} s; snapshot {entry.key}")
    next_steps(
        source.store_url, (f"diger why {artefact.hash[:12]}", "what was compared"), ("diger run --set SECTION.KEY=VALUE", "use the better one")
    )
