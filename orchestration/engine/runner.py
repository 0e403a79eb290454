"""Computes a stage once: the same code under Dagster, `diger run`, `dagster asset materialize` and `dvc repro`.

A stage's key is a pure function of its version, its params sections, and its inputs' hashes; inputs are found through their own keys. So
"which artefact belongs to this run" needs no scheduler's memory, and a lone click finds exactly what it asks for, or says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from diger_core.store import lease
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.store.canonical import canonical_json, digest
from diger_core.store.durable import make_directories
from diger_core.store.record import Record
from orchestration.engine.memory import PeakMemory
from orchestration.engine.registry import Registered
from orchestration.engine.removal import refuse_forgotten, refuse_return
from orchestration.engine.scratch import private_directory
from orchestration.engine.stage_run import StageRun
from orchestration.graph import BY_NAME
from orchestration.params.sections import Params
from orchestration.stage import Stage


@dataclass(frozen=True)
class Result:
    """A stage's artefact, and whether it was there already."""

    stage: Stage
    key: str
    artefact: Artefact
    reused: bool
    seconds: float


class MissingInput(DigerError):
    """An upstream artefact does not exist for these params and this snapshot."""


@dataclass
class Session:
    """One snapshot, one set of params, one store."""

    store: Store
    params: Params
    snapshot: Registered
    progress: Progress = field(default_factory=Silent)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _known: dict[str, tuple[str, Artefact]] = field(default_factory=dict)

    def resolve(self, stage: Stage, *, fit: bool = False) -> tuple[str, dict[str, Artefact]]:
        """The stage's record key and its input artefacts; `MissingInput` where one was never made."""
        inputs = {name: self.find(BY_NAME[name]) for name in stage.inputs}
        for artefact in inputs.values():
            refuse_failed(artefact)
        if stage.extra_inputs is not None:
            found = stage.extra_inputs(self.params, self.store, inputs, snapshot=self.snapshot, fit=fit)
            if found is None:
                raise MissingInput(f"{stage.name} was never made for snapshot {self.snapshot.key} with these params: materialise {stage.name} first")
            inputs = {**inputs, **found}
        named = {name: artefact.hash for name, artefact in inputs.items()}
        if not stage.inputs:
            named["snapshot"] = self.snapshot.file_hash(stage.name)
        if stage.names_snapshot:
            named["snapshot_key"] = self.snapshot.key
        if stage.volume_of is not None:
            named["previous_rows"] = str(self.snapshot.previous_of(stage.volume_of))
        return self.key_of(stage, named), inputs

    def key_of(self, stage: Stage, named: Mapping[str, str]) -> str:
        """The record key of a stage over inputs (name -> hash) that need not be there any more."""
        section = section_of(stage, self.params, named)
        return digest("record", stage.name, stage.version, canonical_json(section), canonical_json(named))

    def find(self, stage: Stage) -> Artefact:
        """The artefact that this session's params and snapshot lead to, or `MissingInput`."""
        if stage.name not in self._known:
            key, inputs = self.resolve(stage)
            found = self.store.lookup(stage.name, key)
            if found is None:
                told = stage.missing(self.store, inputs) if stage.missing is not None else None
                raise MissingInput(
                    told
                    or f"{stage.name} was never made for snapshot {self.snapshot.key} with these params: materialise {stage.name} first "
                    "(with the same overrides, if any)"
                )
            self._known[stage.name] = (key, found)
        return self._known[stage.name][1]

    def materialise(self, stage: Stage) -> Result:
        """Finds or computes the stage's artefact. A second launch of the same work waits for the first and reuses its result."""
        started = time.monotonic()
        key, inputs = self.resolve(stage, fit=True)
        made_by_job = self._remotely(stage, key)  # outside the lock, which the job takes
        artefact = self.store.lookup(stage.name, key)  # without a lock: what is stored can be used in a store that nobody may write
        reused = artefact is not None and not made_by_job
        if artefact is None:
            with _one_at_a_time(self.store, key):
                artefact = self.store.lookup(stage.name, key)
                reused = artefact is not None
                if artefact is None:
                    artefact = self._compute(stage, key, inputs)
                self._published(stage, key)
        else:
            self._published(stage, key)
        self._known[stage.name] = (key, artefact)
        seconds = time.monotonic() - started
        done = "unchanged, reused" if reused else f"done in {seconds:.1f} s,"
        self.progress.message(f"{stage.name}: {done} {artefact.hash[:12]}")
        return Result(stage, key, artefact, reused, seconds)

    def _published(self, stage: Stage, key: str) -> None:
        if stage.published is not None:
            stage.published(self.store, key)  # also for a reused artefact: who made it may have been killed before this

    def _remotely(self, stage: Stage, key: str) -> bool:
        """Where the cluster is behind a job server, a submitted job makes what is missing; whether one has."""
        from orchestration.on_ray.jobs import is_remote, run_as_job

        if not is_remote(stage, self.params, self.snapshot) or self.store.lookup(stage.name, key) is not None:
            return False
        run_as_job(stage, key, self.params, self.store, self.snapshot, self.progress, self.provenance)
        if self.store.lookup(stage.name, key) is None:
            raise DigerError(f"{stage.name}: its job succeeded, but {self.store.url} holds no result: the cluster must see the same store (s3://…)")
        return True

    def _compute(self, stage: Stage, key: str, inputs: Mapping[str, Artefact]) -> Artefact:
        self.store.root.writable()
        what = f"stage {stage.name} of snapshot {self.snapshot.key}"
        with lease.hold(self.store.root, "stage", what, tell=self.progress.message) as held:
            refuse_forgotten(self.store, what, inputs.values())  # while it waited
            started, clock, memory = datetime.now(UTC), time.monotonic(), PeakMemory()
            scratch = private_directory(f"diger-{stage.name}-")
            try:
                with self.store.writer(stage.name) as out:
                    run = StageRun(stage, key, inputs, self.params, out, self.store, self.snapshot, scratch, self.progress)
                    stage.compute(run)
                    held.confirm()
                    refuse_forgotten(self.store, what, inputs.values())
                    artefact = self.store.publish(out)
                refuse_return(self.store, what, artefact)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            cost = {"seconds": round(time.monotonic() - clock, 3), **memory.mebibytes()}
            self._record(stage, key, inputs, artefact, run.notes, started, cost)
        return artefact

    def _record(
        self, stage: Stage, key: str, inputs: Mapping[str, Artefact], artefact: Artefact, notes: Any, started: datetime, cost: Mapping[str, float]
    ) -> None:
        from orchestration.engine import provenance

        record: Record = {
            "artefact": artefact.hash,
            "manifest": artefact.manifest_hash,
            "inputs": {name: a.hash for name, a in inputs.items()},
            "snapshot": self.snapshot.key,
            "params": section_of(stage, self.params, inputs),
            "code_version": stage.version,
            "started_at": started.isoformat(),
            "code": provenance.code(),
            "machine": provenance.machine(),
            "cluster": self.params.section(["cluster"])["cluster"],
            "notes": notes,
        }
        if not stage.inputs:
            record["snapshot_file"] = self.snapshot.file_hash(stage.name)
        self.store.append_record(stage.name, key, {**record, **cost, **self.provenance})


def section_of(stage: Stage, params: Params, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The params that the stage's result depends on. How to continue from a baseline says nothing where there is none: a first training."""
    return params.section(name for name in stage.params if name != "retraining" or "baseline" in inputs)


def refuse_failed(artefact: Artefact) -> None:
    """Raises where the artefact's stored verdict is "failed", however its consumer was launched."""
    stage = BY_NAME.get(artefact.stage)
    if stage is not None and stage.refuse is not None:
        stage.refuse(artefact)


@contextlib.contextmanager
def _one_at_a_time(store: Store, key: str) -> Iterator[None]:
    """On one machine, a lock per record key: the kernel frees it when the holder dies. Across machines the first record wins."""
    if not store.root.is_local:
        yield
        return
    import fcntl

    path = store.root.at("locks", f"{key}.lock")
    with store.root.faults("locks"):
        make_directories(os.path.dirname(path))
        handle = open(path, "ab")  # noqa: SIM115 - opened where a fault is told, held outside
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
