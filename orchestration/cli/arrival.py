"""`diger arrival`: what the arrival sensor would find now, without a daemon and without changing anything."""

from __future__ import annotations

import click

from diger_core.errors import DigerError
from orchestration.cli.options import json_option, next_steps, open_store, params_options, store_option


@click.command()
@params_options
@store_option
@json_option
def arrival(params_file: str | None, overrides: tuple[str, ...], store: str, as_json: bool) -> None:
    """Look at the watched place: which snapshot would be processed, and why others would not. Registers and launches nothing."""
    from orchestration.engine.console import print_json
    from orchestration.on_dagster.sensors import dry_look
    from orchestration.params.load import load_params

    config = load_params(params_file, overrides).arrival
    if config.watch is None:
        raise DigerError("arrival.watch names no place: set it in params.yaml, or give --set arrival.watch=DIR_OR_URL")
    found = dry_look(config, open_store(store))
    if as_json:
        print_json({"process": found.launch.key if found.launch else None, "known": list(found.keys), "said": list(found.said)})
        return
    for line in found.said:
        print(line)
    print(f"next: {found.launch.key}" if found.launch else "next: nothing")
    if found.launch is not None:
        next_steps(store, ("diger ui", "its sensor processes it, where arrival.enabled is true"), ("diger run --snapshot DIR", "process it now"))
