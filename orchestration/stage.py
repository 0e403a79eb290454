"""What a stage is: its name, group, inputs, parameters and hooks. graph.py declares the stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

GROUPS = ("snapshot", "validation", "features", "change", "training", "ids", "verdict", "serving", "search")
Group = Literal["snapshot", "validation", "features", "change", "training", "ids", "verdict", "serving", "search"]


@dataclass(frozen=True)
class Hook:
    """A function of the stage's own module, imported when it is first called."""

    target: str  # "package.module:function"

    def load(self) -> Callable[..., Any]:
        """The function itself. ImportError or AttributeError where there is none."""
        found: Callable[..., Any] = resolve_name(self.target)
        return found

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.load()(*arguments, **named)


@dataclass(frozen=True)
class Preview:
    """The table that an artefact is about, for the UI. `rows`: its first rows may be shown; never of what people did."""

    file: str
    rows: bool = False
    counted: bool = True  # False: the file is one part of several, so its row count says nothing


@dataclass(frozen=True)
class Stage:
    """One stage, with all that anything needs to know of it.

    `version` is part of every record's key: raise it when a change alters the stage's result.
    """

    name: str
    title: str  # what its artefact is, in a few words: lineage of the report
    group: Group  # the folder of its file, and the group in the UI
    compute: Hook  # (StageRun) -> None: writes the artefact's files
    inputs: tuple[str, ...]
    params: tuple[str, ...]  # sections of params.yaml that the result depends on
    kinds: tuple[str, ...]  # badges in the UI
    description: str
    version: str = "1"
    on_demand: str | None = None  # when somebody asks for it: it is no part of a retraining
    after: tuple[str, ...] = ()  # stages whose work it finds in the champion log: where both run, they run first; no input artefact
    snapshot_files: tuple[str, ...] = ()  # files of the snapshot that it takes, in the order of their importance
    names_snapshot: bool = False  # its result carries the snapshot's key, which is then part of its own
    volume_of: str | None = None  # the file whose row count is compared with the previous snapshot's, which is then part of its key
    remote: bool = False  # runs as a job where the cluster is behind a job server
    blocks: bool = False  # a snapshot of more than `cluster.block_events` events is worked on in blocks, on Ray; then it runs as a job, too
    pool: str | None = None  # at most one stage of a pool runs at a time
    low_priority: bool = False  # "Materialize all" has the others first
    extra_inputs: Hook | None = None  # (params, store, inputs, snapshot, fit) -> further inputs, or None where they are not decided yet
    missing: Hook | None = None  # (store, inputs) -> why it is missing where its inputs are there, or None
    published: Hook | None = None  # (store, key): after the artefact is in the store, also for a reused one
    refuse: Hook | None = None  # (artefact): raises where the artefact's stored verdict is "failed"
    presented: Hook | None = None  # (artefact) -> metadata of the UI
    checks: Hook | None = None  # () -> the asset checks that it declares
    preview: Preview | None = None
    holds_ids: bool = False  # its artefact holds an ID table: an assignment
    fits_events: bool = False  # something in it was learnt from users' events
    dvc_metrics: tuple[str, ...] = ()  # files that `dvc metrics show` reads
