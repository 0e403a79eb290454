"""`diger params`: what a run would use, and the reference of every key."""

from __future__ import annotations

import click

from orchestration.cli.options import params_options


@click.command()
@params_options
@click.option("--markdown", "as_reference", is_flag=True, help="Print the reference of all sections and keys (docs/configuration.md) instead.")
@click.option("--suggest", metavar="SNAPSHOT", help="Print values for a snapshot by its size instead, with reasons: a params.yaml to start from.")
def params(params_file: str | None, overrides: tuple[str, ...], as_reference: bool, suggest: str | None) -> None:
    """Show all parameters with defaults filled in, as YAML; wrong keys and values are named."""
    if suggest is not None:
        from orchestration.params.suggest import suggestion
        from orchestration.validation.snapshot_size import snapshot_size

        print(suggestion(snapshot_size(suggest)), end="")
        return
    import dataclasses

    import yaml

    from orchestration.params.load import load_params

    if as_reference:
        from orchestration.params.reference import markdown

        print(markdown(), end="")
        return
    loaded = load_params(params_file, overrides)
    print(yaml.safe_dump(_plain(dataclasses.asdict(loaded)), sort_keys=False, allow_unicode=True), end="")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
