"""`diger stage`: one stage alone, the command of dvc.yaml."""

from __future__ import annotations

import click

from orchestration.cli.options import Source, source_options


@click.command()
@click.argument("name")
@source_options
@click.option("--link", metavar="DIR", help="Link the artefact's files into this directory (what DVC tracks).")
def stage(name: str, source: Source, link: str | None) -> None:
    """Run the stage NAME; its inputs must exist (dvc.yaml runs them in order).

    Exit code 3 where the gate refuses the candidate: a verdict, no fault of the pipeline.
    """
    from orchestration.engine.console import console_progress
    from orchestration.engine.runner import refuse_failed
    from orchestration.graph import BY_NAME
    from orchestration.on_dvc import link_artefact

    if name not in BY_NAME:
        raise click.BadParameter(f"{name} is not a stage; the stages are {', '.join(BY_NAME)}", param_hint="NAME")
    opened = source.open()
    with console_progress() as progress:
        result = source.session(opened, progress, "diger stage").materialise(BY_NAME[name])
        refuse_failed(result.artefact)
    if link:
        link_artefact(opened, result, link)
