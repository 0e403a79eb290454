"""`diger demo`: the whole flow on the embedded catalogue."""

from __future__ import annotations

import click

from orchestration.cli.options import json_option, params_options, store_option

DIRECTORY = "data/snapshots"


@click.command()
@params_options
@store_option
@json_option
def demo(params_file: str | None, overrides: tuple[str, ...], store: str, as_json: bool) -> None:
    """Run the whole flow on the embedded catalogue and print the metrics table."""
    from orchestration.cli.run import run_snapshot, show
    from orchestration.console import console_progress

    with console_progress() as progress:
        first = demo_snapshots(progress)[0]
        summary = run_snapshot(first, params_file, overrides, store, progress, [])
    show(summary, as_json)


def demo_snapshots(progress: object) -> list[str]:
    """Writes the two demo snapshots where they are missing, tracked by DVC where the project is a repository."""
    from pathlib import Path

    from orchestration.demo_shop import SNAPSHOTS, write_demo_snapshots
    from orchestration.dvc import track

    paths = [Path(DIRECTORY) / name for name in SNAPSHOTS]
    if not all((path / "_SUCCESS").exists() for path in paths):
        write_demo_snapshots(Path(DIRECTORY))
        track(*paths)
    return [str(path) for path in paths]
