"""Snapshots as Dagster partitions: registered in the store first, which validates the key."""

from __future__ import annotations

import random
import time

import dagster as dg
from sqlalchemy.exc import DBAPIError

from diger_core.errors import DigerError
from orchestration.engine.registry import Registered
from orchestration.on_dagster.instance import dagster_home, opened_instance

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
    with opened_instance() as instance:
        add_partitions(instance, keys)


def add_partitions(instance: dg.DagsterInstance, keys: list[str]) -> None:
    """Makes the keys partitions; those that are so already stay. Dagster looks which are missing and then inserts them all, so of two processes at
    once one is refused by the database: it looks again."""
    for pause in (*(0.05 * (attempt + 1) for attempt in range(20)), None):
        known = set(instance.get_dynamic_partitions(str(SNAPSHOTS.name)))
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if not missing:
            return
        try:
            instance.add_dynamic_partitions(str(SNAPSHOTS.name), missing)
            return
        except DBAPIError as error:  # another process was faster, or holds the database
            if pause is None:
                reason = str(error.orig).splitlines()[0][:200]
                raise DigerError(f"DAGSTER_HOME: its database takes no partition ({reason}): stop what holds it, and run again") from error
            time.sleep(pause * random.uniform(0.5, 1.5))
