"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

STORE_HELP = "Where artefacts are kept: a directory or an s3:// URL."


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--store", default="store", show_default=True, envvar="DIGER_STORE", metavar="DIR_OR_URL", help=STORE_HELP)(command)


def params_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one parameter; may be repeated.")(command)
    return click.option("--params", "params_file", metavar="FILE", help="Parameters [default: params.yaml, if it exists].")(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON.")(command)
