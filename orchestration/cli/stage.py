"""`diger stage`: one stage alone, the command of dvc.yaml."""

from __future__ import annotations

import click

from orchestration.cli.options import open_store, params_options, store_option


@click.command()
@click.argument("name")
@click.option("--snapshot", metavar="DIR_OR_URL", help="The snapshot [default: from params].")
@params_options
@store_option
@click.option("--link", metavar="DIR", help="Link the artefact's files into this directory (what DVC tracks).")
def stage(name: str, snapshot: str | None, params_file: str | None, overrides: tuple[str, ...], store: str, link: str | None) -> None:
    """Run the stage NAME; its inputs must exist (dvc.yaml runs them in order)."""
    from orchestration.engine.console import console_progress
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session, refuse_failed
    from orchestration.graph import BY_NAME
    from orchestration.on_dvc import link_artefact
    from orchestration.params.load import load_params

    if name not in BY_NAME:
        raise click.BadParameter(f"{name} is not a stage; the stages are {', '.join(BY_NAME)}", param_hint="NAME")
    params = load_params(params_file, overrides)
    opened = open_store(store)
    with console_progress() as progress:
        session = Session(opened, params, register(opened, snapshot or params.snapshot), progress, {"launched_by": "diger stage"})
        result = session.materialise(BY_NAME[name])
        refuse_failed(result.artefact)
    if link:
        link_artefact(opened, result, link)
