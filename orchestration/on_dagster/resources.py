"""What a Dagster run may configure: the store, the params file, and single overrides."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

import dagster as dg
from pydantic import Field

from diger_core.errors import DigerError
from diger_core.progress import Progress
from diger_core.store.artefacts import Store
from orchestration.engine.console import Lines
from orchestration.engine.registry import lookup
from orchestration.engine.runner import Session
from orchestration.params.load import load_params
from orchestration.params.sections import Params

# `diger run` shows bars on its terminal instead of Dagster's log lines.
TERMINAL: ContextVar[Progress | None] = ContextVar("terminal", default=None)

DEFAULT_STORE = "store"


class Pipeline(dg.ConfigurableResource["Pipeline"]):
    """Where a run reads and writes, and its parameters: shared by all assets of a run, so that every stage sees the same."""

    store: str = Field(default=DEFAULT_STORE, description="Where snapshots are registered and artefacts are kept: a directory or an s3:// URL.")
    params_file: str | None = Field(default=None, description="The file of parameters; where nothing is given, params.yaml of the working directory.")
    overrides: list[str] = Field(
        default=[],
        description="Single parameters over the file's, each as section.key=value: for instance training.epochs=2. `diger params` lists them all.",
    )

    def session(self, context: dg.AssetExecutionContext) -> Session:
        """The session of this run's snapshot; the partition key must name a registered snapshot."""
        terminal = TERMINAL.get()
        # What a person has typed into a terminal may lie anywhere; what comes by the UI's launchpad stays in the project.
        store = Store(self.store) if terminal else store_of(self.store)
        params = load_params(self.params_file, self.overrides) if terminal else params_of(self.params_file, self.overrides)
        snapshot = lookup(store, context.partition_key)
        provenance = {"dagster_run_id": context.run.run_id, "launched_by": "dagster"}
        return Session(store, params, snapshot, terminal or Lines(context.log.info), provenance)


def store_of(url: str) -> Store:
    """The store that a run of the UI names: the one that the UI was started with, or a directory of the project. DigerError for any other."""
    own = os.environ.get("DIGER_STORE", DEFAULT_STORE)
    store = None if "://" in url and url != own else Store(url)  # its base, not its name, says what would be opened: `~` is a name, too
    if store is None or (url != own and not (store.root.is_local and _within(store.root.base))):
        raise DigerError(f"pipeline.store: a run of the UI uses the store that the UI was started with ({own}), or a directory below {Path.cwd()}")
    return store


def params_of(file: str | None, overrides: Sequence[str]) -> Params:
    """The params that a run of the UI names: a YAML file of the project. DigerError for any other."""
    if file is not None and (Path(file).suffix not in (".yaml", ".yml") or not _within(file)):
        raise DigerError(f"pipeline.params_file: a run of the UI reads its parameters from a .yaml file below {Path.cwd()} alone")
    return load_params(file, overrides)


def _within(path: str) -> bool:
    """Whether a path, its links followed, lies in the working directory: the project's root."""
    try:
        return Path(path).resolve().is_relative_to(Path.cwd().resolve())
    except (ValueError, OSError, RuntimeError):  # a NUL byte, a name that is too long, a link to itself
        return False
