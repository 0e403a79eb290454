"""`diger snapshot`: the snapshots that a store knows."""

from __future__ import annotations

import click

from orchestration.cli.options import json_option, open_store, store_option


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
    for entry in add_snapshots(store, list(urls)):
        print(f"{entry.key}  {entry.url}")


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
        [e.key, e.url, f"{e.files['items.parquet']['rows']:,}", f"{e.files['interactions.parquet']['rows']:,}", e.registered_at[:19]] for e in entries
    ]
    print_table("Snapshots", ["key", "where", "items", "events", "registered"], rows)
