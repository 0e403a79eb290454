"""What a Dagster run may configure: the store, the params file, and single overrides."""

from __future__ import annotations

from contextvars import ContextVar

import dagster as dg
from pydantic import Field

from diger_core.progress import Progress
from diger_core.store.artefacts import Store
from orchestration.engine.console import Lines
from orchestration.engine.registry import lookup
from orchestration.engine.runner import Session
from orchestration.params.load import load_params

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
        store = Store(self.store)
        snapshot = lookup(store, context.partition_key)
        progress = TERMINAL.get() or Lines(context.log.info)
        provenance = {"dagster_run_id": context.run.run_id, "launched_by": "dagster"}
        return Session(store, load_params(self.params_file, self.overrides), snapshot, progress, provenance)
