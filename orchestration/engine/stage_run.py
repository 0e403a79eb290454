"""What a stage function gets: its inputs, its params, and where to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diger_core.progress import Progress
from diger_core.store.artefact import Artefact
from diger_core.store.artefact_writer import ArtefactWriter
from diger_core.store.artefacts import Store
from orchestration.engine.registry import Registered
from orchestration.params.sections import Params
from orchestration.stage import Stage


@dataclass
class StageRun:
    """What a stage function gets: its inputs, its params, and where to write."""

    stage: Stage
    key: str
    inputs: Mapping[str, Artefact]
    params: Params
    out: ArtefactWriter
    store: Store
    snapshot: Registered
    scratch: Path
    progress: Progress
    notes: dict[str, Any] = field(default_factory=dict)

    def facts(self, **values: Any) -> None:
        """Small deterministic facts: part of the content hash, shown as metadata. Never user data."""
        self.out.facts.update(values)

    def note(self, **values: Any) -> None:
        """Provenance for the record: times, workers, hosts. Not hashed."""
        self.notes.update(values)
