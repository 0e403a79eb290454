"""`diger serve`: the champion's lists over HTTP."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from orchestration.cli.options import open_store, params_options, store_option

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store
    from orchestration.champion.log import Entry
    from orchestration.params.rules import RulesConfig
    from orchestration.params.sections import Params
    from orchestration.serving.online.follow import Follower
    from orchestration.serving.online.live import LiveChampion


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; any other than loopback is reachable from the network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one, which is printed.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name under which the service may be asked, beside loopback's and that of --host; may be repeated.",
)
@click.option("--snapshot", metavar="DIR_OR_URL", help="Its events are the histories [default: the newest that was prepared for the champion].")
@params_options
@store_option
def serve(
    host: str, port: int, hosts: tuple[str, ...], snapshot: str | None, params_file: str | None, overrides: tuple[str, ...], store: str
) -> None:
    """Serve the present champion's lists over HTTP, and follow the champion log: releases and rollbacks take over between two requests.

    POST /recommend {"user": ID} or {"history": [ITEM, …]}, GET /similar, /health, /version, /metrics, /openapi.json. The lists are those of
    `diger recommend`. Limits: section serve of params.yaml.
    """
    from diger_core.errors import DigerError

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise DigerError(f"diger serve needs {', '.join(missing)}: pip install 'diger[serve]'")
    from orchestration.params.load import load_params
    from orchestration.serving.http.server import serve as run

    params = load_params(params_file, overrides)
    follower = following(open_store(store), params, snapshot)

    def ready(url: str) -> None:
        live = follower.live
        told = f"champion {live.bundle[:12]} (entry {live.entry.number}); {live.why_seen}" if live else follower.problem
        print(f"{url}: {told}", flush=True)

    run(follower, params.serve, host, port, hosts, ready)


def following(store: Store, params: Params, snapshot: str | None) -> Follower:
    """Follows the store: its champion log, the files of the rules, users who are forgotten and, unless a snapshot is named, the snapshots that are
    prepared for the champion.

    A snapshot that is named is brought as far as cold start first.
    """
    from diger_core.store.artefacts import Store
    from orchestration.champion.log import current
    from orchestration.engine.removal import left_of, present
    from orchestration.serving.online.follow import Follower
    from orchestration.serving.online.live import LiveChampion, Sources
    from orchestration.serving.online.newest import newest_sources, store_stamp

    pinned = None if snapshot is None else prepared(store, params, snapshot)
    made: list[tuple[LiveChampion, str]] = []  # the last one that was opened, and of which state of the rules' files

    def opened(entry: Entry) -> LiveChampion:
        fresh, files = Store(store.url), stamp(params.rules)
        if pinned is None:
            sources = newest_sources(fresh, params, entry.bundle)
        else:
            sources = Sources(entry.bundle, **{name: present(fresh, name, hash_).hash for name, hash_ in pinned.items()})
        if made and (made[0][0].entry, made[0][0].sources, made[0][1]) == (entry, sources, files):
            return made[0][0]
        live = LiveChampion(fresh, entry, sources, params.recommendations, params.rules, params.training.teacher.text)
        made[:] = [(live, files)]
        return live

    def state() -> str:
        fresh = Store(store.url)
        left = left_of(fresh, made[0][0].sources.sequences) if made else ""  # changes when a user in it is forgotten
        return "; ".join([stamp(params.rules), left, "" if pinned is not None else store_stamp(fresh)])

    def outdated(live: LiveChampion) -> bool:
        return left_of(Store(store.url), live.sources.sequences) != live.sources.sequences

    return Follower(lambda: current(Store(store.url)), opened, params.serve, state, outdated)


def stamp(rules: RulesConfig) -> str:
    """Changes when a file that the rules name is written or goes away."""
    found = []
    for name in (rules.allow, rules.deny):
        state = os.stat(name) if name and os.path.exists(name) else None
        found.append(f"{state.st_ino} {state.st_mtime_ns} {state.st_size}" if state else "")
    return "; ".join(found)


def prepared(store: Store, params: Params, snapshot: str) -> dict[str, str]:
    """Stage -> hash of the artefacts of a snapshot that lists are made of; what is missing of them is computed, nothing is trained."""
    from orchestration.engine.console import console_progress
    from orchestration.engine.registry import register
    from orchestration.engine.runner import Session, refuse_failed
    from orchestration.graph import BY_NAME, STAGES, upstream

    wanted = ("sequences", "neighbours", "validated_items", "cold_start")
    needed = upstream(set(wanted))
    with console_progress() as progress:
        session = Session(store, params, register(store, snapshot), progress, {"launched_by": "diger serve"})
        for stage in STAGES:
            if stage.name in needed:
                refuse_failed(session.materialise(stage).artefact)
    return {name: session.find(BY_NAME[name]).hash for name in wanted}
