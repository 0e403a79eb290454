"""Options that several subcommands share, and what they all say at their end."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from diger_core.progress import Progress
    from diger_core.store.artefacts import Store
    from orchestration.engine.registry import Registered
    from orchestration.engine.runner import Session
    from orchestration.params.sections import Params

DEFAULT_STORE = "store"
_PRESET = "diger.preset"  # in the click context: the overrides of --preset
STORE_HELP = "Where artefacts are kept: a directory or an s3:// URL."


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--store", default=DEFAULT_STORE, show_default=True, envvar="DIGER_STORE", metavar="DIR_OR_URL", help=STORE_HELP)(command)


def params_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        callback=_after_preset,
        help="Override one parameter; may be repeated. Of one key given twice the last counts.",
    )(command)
    command = click.option(
        "--preset",
        metavar="NAME",
        expose_value=False,
        is_eager=True,
        callback=_preset,
        help="Train as the paper does: beauty, instruments or yelp (they want an accelerator); small: the defaults. --set comes after it.",
    )(command)
    return click.option("--params", "params_file", metavar="FILE", callback=not_empty, help="Parameters [default: params.yaml, if it exists].")(
        command
    )


def _preset(context: click.Context, option: click.Parameter, name: str | None) -> None:
    if name is not None:
        from diger_core.presets import preset

        context.meta[_PRESET] = tuple(preset(name).overrides())


def _after_preset(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    last: dict[str, str] = {}
    for override in given:
        key, _, value = override.partition("=")
        if key.strip() in last:
            print(f"--set {key.strip()} is given more than once: {value} counts, {last[key.strip()]} does not", file=sys.stderr)
        last[key.strip()] = value
    found: tuple[str, ...] = context.meta.get(_PRESET, ())
    return found + given


def not_empty(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """An option that is given empty, as by a variable of a script that was never set, is not one that was left out."""
    if value is not None and not value.strip():
        raise click.BadParameter("is empty; leave the option out for its default", param=option)
    return value


def local_path(_: click.Context, option: click.Parameter, value: str | None) -> Path | None:
    """The path of an option whose files are written to this machine alone; a URL would silently become directories called `s3:`."""
    if value is not None and "://" in value:
        raise click.BadParameter(f"{value} is a URL, and this writes to a local path alone: give one, and copy it to the URL", param=option)
    return None if value is None else Path(value)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON.")(command)


@dataclass(frozen=True)
class Source:
    """What a command works on: a snapshot, parameters and a store, as `source_options` ask for them."""

    given: str | None  # --snapshot
    params_file: str | None
    overrides: tuple[str, ...]
    store_url: str

    def with_overrides(self, *more: str) -> Source:
        return Source(self.given, self.params_file, (*self.overrides, *more), self.store_url)

    def params(self) -> Params:
        """The parameters, checked. DigerError names what is wrong."""
        from orchestration.params.load import load_params

        return load_params(self.params_file, self.overrides)

    def open(self) -> Store:
        return open_store(self.store_url)

    @property
    def named(self) -> str | None:
        """The snapshot that the command line names, by --snapshot or --set snapshot=…; None where it names none."""
        set_ = [value.strip() for key, _, value in (each.partition("=") for each in self.overrides) if key.strip() == "snapshot"]
        return self.given or (set_[-1] if set_ else None)

    def snapshot(self) -> str:
        """The snapshot's place: the one that was given, or that of the parameters."""
        return self.given or self.params().snapshot

    def register(self, store: Store) -> Registered:
        from orchestration.engine.registry import register

        return register(store, self.snapshot())

    def session(self, store: Store, progress: Progress, command: str) -> Session:
        """The session of this snapshot for a command that runs stages without Dagster."""
        from orchestration.engine.runner import Session

        return Session(store, self.params(), self.register(store), progress, {"launched_by": command})

    def champion_session(self, store: Store, progress: Progress, command: str, *, own: bool = False) -> Session:
        """The session of the snapshot that the champion's answers are about, where the command line names none and something serves.

        That is the snapshot of `diger serve`; `own`: the one that the champion was made from. A line says which.
        """
        from orchestration.champion.log import current
        from orchestration.engine.runner import Session
        from orchestration.serving.champion_snapshot import made_from, served

        entry = None if self.named else current(store)
        if entry is None:
            return self.session(store, progress, command)
        params = self.params()
        found = (made_from(store, entry.bundle) if own else None) or served(store, params, entry.bundle)
        progress.message(f"snapshot {found.key} ({found.url}), that of the champion #{entry.number}; --snapshot names another")
        return Session(store, params, found, progress, {"launched_by": command})


def prepare(session: Session, wanted: set[str]) -> None:
    """Brings the session's snapshot as far as the wanted stages. DigerError, with --snapshot as the remedy, where its files are gone and needed."""
    from diger_core.errors import DigerError
    from orchestration.engine.runner import refuse_failed
    from orchestration.graph import STAGES, upstream

    needed = upstream(wanted)
    for stage in STAGES:
        if stage.name in needed:
            try:
                found = session.materialise(stage).artefact
            except DigerError as error:
                if stage.inputs:
                    raise
                raise DigerError(f"snapshot {session.snapshot.key}: {error}, or name it or another one here (--snapshot DIR_OR_URL)") from error
            refuse_failed(found)


def source_options(command: Callable[..., Any], default: str = "from params") -> Callable[..., Any]:
    """--snapshot, --params, --preset, --set and --store, which the command gets as one `source`. `default`: what --help says of the snapshot."""

    @functools.wraps(command)
    def called(*arguments: Any, snapshot: str | None, params_file: str | None, overrides: tuple[str, ...], store: str, **named: Any) -> Any:
        return command(*arguments, source=Source(snapshot, params_file, overrides, store), **named)

    return click.option("--snapshot", metavar="DIR_OR_URL", callback=not_empty, help=f"Directory or s3:// URL of the snapshot [default: {default}].")(
        params_options(store_option(called))
    )


def champion_source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`source_options` of a command that answers about the champion (`Source.champion_session`)."""
    return source_options(command, "the champion's; without one, from params")


def open_store(url: str) -> Store:
    """The store of a command. The project's own one (the default, or $DIGER_STORE) first takes up what `dvc pull` has brought."""
    from diger_core.store.artefacts import Store
    from orchestration.graph import PIPELINE

    store = Store(url)
    if store.root.is_local and url in (DEFAULT_STORE, os.environ.get("DIGER_STORE")) and Path(PIPELINE).is_dir():
        from orchestration.on_dvc import adopt

        adopt(store)
    return store


def of_snapshot(given: str | None) -> str:
    """The --snapshot of a command that follows another one's; nothing where that took the one of the parameters."""
    return f" --snapshot {shlex.quote(given)}" if given else ""


def next_steps(store_url: str, *steps: tuple[str, str]) -> None:
    """What a person may do next, as commands that name this store where it is not the one that they would take by themselves."""
    from orchestration.engine.console import print_next

    own = os.environ.get("DIGER_STORE", DEFAULT_STORE)
    there = "" if store_url == own else f" --store {shlex.quote(store_url)}"
    print_next([(f"{command}{there}" if command.startswith("diger ") else command, why) for command, why in steps])
