"""`diger params`: what a run would use."""

from __future__ import annotations

import click

from orchestration.cli.options import params_options


@click.command()
@params_options
def params(params_file: str | None, overrides: tuple[str, ...]) -> None:
    """Show all parameters with defaults filled in, as YAML; wrong keys and values are named."""
    import dataclasses

    import yaml

    from orchestration.params import load_params

    loaded = load_params(params_file, overrides)
    print(yaml.safe_dump(_plain(dataclasses.asdict(loaded)), sort_keys=False, allow_unicode=True), end="")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
