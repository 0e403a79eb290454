"""What becomes of a training's checkpoints once its artefact is in the store. Imports no torch, as a reused stage does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store


def remove(store: Store, key: str) -> None:
    """Called once the artefact is in the store, also for a reused one: who made it may have been killed before this."""
    store.root.remove_directory("checkpoints", key)
