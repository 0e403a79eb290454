"""Options that several subcommands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store

DEFAULT_STORE = "store"
_PRESET = "diger.preset"  # in the click context: the overrides of --preset
STORE_HELP = "Where artefacts are kept: a directory or an s3:// URL."


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--store", default=DEFAULT_STORE, show_default=True, envvar="DIGER_STORE", metavar="DIR_OR_URL", help=STORE_HELP)(command)


def params_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", callback=_after_preset, help="Override one parameter; may be repeated."
    )(command)
    command = click.option(
        "--preset",
        metavar="NAME",
        expose_value=False,
        is_eager=True,
        callback=_preset,
        help="Train as the paper does: beauty, instruments or yelp (they want an accelerator); small: the defaults. --set comes after it.",
    )(command)
    return click.option("--params", "params_file", metavar="FILE", help="Parameters [default: params.yaml, if it exists].")(command)


def _preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    if name is not None:
        from diger_core.presets import preset

        context.meta[_PRESET] = tuple(preset(name).overrides())


def _after_preset(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    found: tuple[str, ...] = context.meta.get(_PRESET, ())
    return found + given


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON.")(command)


def open_store(url: str) -> Store:
    """The store of a command. The project's own one (the default, or $DIGER_STORE) first takes up what `dvc pull` has brought."""
    from diger_core.store.artefacts import Store
    from orchestration.on_dvc import adopt

    store = Store(url)
    if store.root.is_local and url in (DEFAULT_STORE, os.environ.get("DIGER_STORE")):
        adopt(store)
    return store
