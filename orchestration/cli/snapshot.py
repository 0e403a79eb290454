"""`diger snapshot`: the snapshots that a store knows."""

from __future__ import annotations

import shlex

import click

from orchestration.cli.options import json_option, next_steps, open_store, store_option


@click.group()
def snapshot() -> None:
    """Register and list snapshots."""


@snapshot.command()
@click.argument("urls", nargs=-1, required=True, metavar="DIR_OR_URL...")
@store_option
def add(urls: tuple[str, ...], store: str) -> None:
    """Register snapshots as partitions, so that the UI can materialise them."""
    from orchestration.on_dagster.partitions import add_snapshots

    open_store(store)
    added = add_snapshots(store, list(urls))
    for entry in added:
        print(f"{entry.key}  {entry.url}")
    next_steps(store, (f"diger run --snapshot {shlex.quote(added[-1].url)}", "train, judge, release"), ("diger ui", "the same in the browser"))


@snapshot.command(name="list")
@store_option
@json_option
def list_(store: str, as_json: bool) -> None:
    """List the registered snapshots, oldest first."""
    from orchestration.engine.console import print_json, print_table
    from orchestration.engine.registry import registered

    entries = registered(open_store(store))
    if as_json:
        print_json([dict(entry.__dict__) for entry in entries])
        return
    rows = [
        [
            e.key,
            e.url,
            f"{e.files['items.parquet']['rows']:,}",
            f"{e.files['interactions.parquet']['rows']:,}",
            e.registered_at[:16].replace("T", " "),
        ]
        for e in entries
    ]
    print_table("Snapshots", ["key", "where", "items", "events", "registered"], rows)
    if entries:
        next_steps(store, (f"diger run --snapshot {shlex.quote(entries[-1].url)}", "train, judge, release"), ("diger ui", "the same in the browser"))
