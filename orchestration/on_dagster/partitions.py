"""Snapshots as Dagster partitions: registered in the store first, which validates the key."""

from __future__ import annotations

import dagster as dg

from orchestration.engine.registry import Registered
from orchestration.on_dagster.instance import dagster_home

SNAPSHOTS = dg.DynamicPartitionsDefinition(name="snapshots")


def add_snapshots(store_url: str, urls: list[str]) -> list[Registered]:
    """Registers snapshots in the store and as partitions of the Dagster instance."""
    from diger_core.store.artefacts import Store
    from orchestration.engine.registry import register

    store = Store(store_url)
    entries = [register(store, url) for url in urls]
    show_snapshots([entry.key for entry in entries])
    return entries


def show_snapshots(keys: list[str]) -> None:
    """Makes registered snapshots partitions of the Dagster instance."""
    dagster_home()
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(SNAPSHOTS.name), keys)
