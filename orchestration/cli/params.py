"""`diger params`: what a run would use, what each key means, what is not the default, and the reference of every key."""

from __future__ import annotations

import click

from orchestration.cli.options import params_options


@click.command()
@click.argument("sections", nargs=-1, metavar="[SECTION…]")
@params_options
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.option("--bare", is_flag=True, help="Without meanings and defaults.")
@click.option("--markdown", "as_reference", is_flag=True, help="Print the reference of all sections and keys (docs/configuration.md) instead.")
@click.option("--suggest", metavar="SNAPSHOT", help="Print values for a snapshot by its size instead, with reasons: a params.yaml to start from.")
def params(
    sections: tuple[str, ...],
    params_file: str | None,
    overrides: tuple[str, ...],
    changed: bool,
    bare: bool,
    as_reference: bool,
    suggest: str | None,
) -> None:
    """Show all parameters, or those of SECTIONs, as YAML: each with its meaning and, where it is not the default, with the default.

    What is printed can be used as a params.yaml. Wrong keys and values are named.
    """
    if suggest is not None:
        from orchestration.params.suggest import suggestion
        from orchestration.validation.snapshot_size import snapshot_size

        print(suggestion(snapshot_size(suggest)), end="")
        return
    if as_reference:
        from orchestration.params.reference import markdown

        print(markdown(), end="")
        return
    from orchestration.params.load import load_params
    from orchestration.params.shown import shown

    print(shown(load_params(params_file, overrides), sections, changed=changed, meanings=not bare), end="")
