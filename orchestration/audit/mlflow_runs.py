"""The store's trainings as runs of an MLflow tracking server.

    record of a training     -> a run of experiment NAME, from its beginning to its end
    its parameters           -> params section.key
    curves.json              -> metrics, one step an epoch; a figure of a level is NAME/LEVEL, levels from 1
    what the artefact says   -> metrics result/NAME (of the epoch that was kept) and tags
    what it cost             -> metrics cost/NAME
    hashes, snapshot, commit -> tags diger.NAME; diger.input.NAME is the diger.artefact of the run that made that input

A run is known by the tag diger.record, which is the record's seal: wherever the store lies, what was sent is found again. It is FINISHED last, so the
next call completes one that an interruption left behind. What a user did is in no run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from requests import RequestException
from requests.utils import get_netrc_auth

from diger_core.errors import DigerError
from orchestration.audit.index import Index, Made
from orchestration.graph import STAGES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from diger_core.store.artefact import Artefact
    from diger_core.store.record import Record

TRAININGS = tuple(stage.name for stage in STAGES if stage.group == "training")
RECORD = "diger.record"  # the tag that names a run's record
COSTS = ("seconds", "training_seconds", "rows_per_second", "peak_memory_mb", "peak_gpu_memory_mb")
LAUNCHED = ("launched_by", "dagster_run_id", "study", "decay_search", "trial", "comparison")
PAGE = 1000  # runs in one answer
SHORT = 12  # digits of a hash in names that people read
# MLflow's client tries for minutes where nobody answers.
_CLIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}

Outcome = Literal["sent", "there", "untrained", "removed"]


def key_given(url: str) -> str | None:
    """Where the client would take a key for this address from, or None."""
    _prepare()
    from mlflow.utils.credentials import get_default_host_creds

    found = get_default_host_creds(url)
    if found.token:
        return "MLFLOW_TRACKING_TOKEN"
    if found.username or found.password:
        return "MLFLOW_TRACKING_USERNAME (or ~/.mlflow/credentials)"
    if found.auth:
        return "MLFLOW_TRACKING_AUTH"
    return ".netrc" if get_netrc_auth(url) else None


@dataclass
class Tracking:
    """An experiment of a tracking server. `known`: a record's seal -> its run, as the server told it at first. `runs`: artefact -> id of its run."""

    url: str
    client: MlflowClient
    experiment_id: str
    known: Mapping[str, Run]
    runs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, url: str, experiment: str) -> Tracking:
        """The experiment, which is made where there is none. DigerError where the server cannot be reached, refuses, or has deleted it."""
        _prepare()
        from mlflow import MlflowClient

        url = url.rstrip("/")
        with _told(url):
            client = MlflowClient(tracking_uri=url, registry_uri=url)
            found = client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage != "active":
                raise DigerError(f"--experiment {experiment}: it is deleted at {url}: restore it there (mlflow experiments restore), or name another")
            id_ = found.experiment_id if found is not None else client.create_experiment(experiment)
            return cls(url, client, id_, {run.data.tags[RECORD]: run for run in _runs(client, id_)})

    @property
    def page(self) -> str:
        """Where a browser shows the experiment."""
        return f"{self.url}/#/experiments/{self.experiment_id}"

    def send(self, index: Index, one: Made) -> Outcome:
        """Sends the record as a run, unless it is there, trained nothing, or has lost its artefact and so its curves."""
        record = index.record(one)
        run = self.known.get(record["seal"])
        with _told(self.url):
            if run is not None and _complete(run):
                self.runs[one.artefact] = run.info.run_id
                return "there"
            artefact = index.artefact(one.artefact)
            if artefact is None:
                return "removed"
            curves = artefact.json("curves.json")
            if not curves:
                return "untrained"
            self.runs[one.artefact] = self._write(one, record, artefact, curves, run.info.run_id if run is not None else None)
            return "sent"

    def _write(self, one: Made, record: Record, artefact: Artefact, curves: list[dict[str, Any]], begun: str | None) -> str:
        from mlflow.entities import Metric, Param, RunTag

        start = round(datetime.fromisoformat(record["started_at"]).timestamp() * 1000)
        end = start + round(1000 * record.get("seconds", 0.0))
        name = f"{one.stage} {one.artefact[:SHORT]} {one.snapshot}"
        run = begun or self.client.create_run(self.experiment_id, start, {RECORD: record["seal"]}, name).info.run_id
        figures = [*_curves(curves), *((name, value, 0) for name, value in _results(record, artefact))]
        self.client.log_batch(
            run,
            [Metric(name, value, end, step) for name, value, step in figures],  # an epoch's own time is not stored: all have the end's
            [Param(name, value) for name, value in _flat(record.get("params") or {})],
            [RunTag(name, value) for name, value in {**_tags(one, record, artefact), "mlflow.note.content": self._note(one)}.items()],
            synchronous=True,
        )
        self.client.set_terminated(run, "FINISHED", end)
        return run

    def _note(self, one: Made) -> str:
        """The run's description in Markdown: its inputs, those that are trainings with a link to their run, and the command that says the rest."""
        told = []
        for name, hash_ in sorted(one.inputs.items()):
            short = hash_[:SHORT]
            told.append(f"- {name} " + (f"[{short}]({self.page}/runs/{self.runs[hash_]})" if hash_ in self.runs else short))
        return "\n".join(["Trained from", "", *told, "", f"`diger why {one.artefact[:SHORT]} --verify` follows it back to the snapshot's bytes."])


def _prepare() -> None:
    """Before the first import of mlflow, which starts to report its own use then."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What MLflow's client raises, as a DigerError of one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        lost = isinstance(error.__context__, RequestException)
        told = f"cannot be reached ({type(error.__context__).__name__})" if lost else f"refuses: {' '.join(str(error).split())[:200]}"
        denied = not lost and error.get_http_status_code() in (401, 403)
        remedy = "check MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD." if denied else "is it an MLflow tracking server?"
        raise DigerError(f"--to {url}: {told}: {remedy} What was sent stays; the same command sends the rest") from error


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    """Those that this module has made, also what somebody has deleted at the server: it stays deleted."""
    from mlflow.entities import ViewType

    page = None
    while page is None or page.token:
        token = page.token if page is not None else None
        page = client.search_runs([experiment_id], f"tags.`{RECORD}` LIKE '%'", ViewType.ALL, max_results=PAGE, page_token=token)
        yield from page


def _complete(run: Run) -> bool:
    return bool(run.info.status == "FINISHED" or run.info.lifecycle_stage != "active")


def _curves(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float, int]]:
    """(name, value, epoch) of each figure that an epoch has; what was not measured in it (None) and words are left out."""
    for row in rows:
        for name, value in row.items():
            if name == "epoch":
                continue
            several = isinstance(value, list)
            for level, each in enumerate(value if several else [value], 1):
                if _is_figure(each):
                    yield (f"{name}/{level}" if several else name), float(each), int(row["epoch"])


def _results(record: Record, artefact: Artefact) -> Iterator[tuple[str, float]]:
    costs: Mapping[str, Any] = {**record.get("notes", {}), **record}
    for group, found, names in (("cost", costs, COSTS), ("result", artefact.facts, tuple(artefact.facts))):
        yield from ((f"{group}/{name}", float(found[name])) for name in names if _is_figure(found.get(name)))


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tags(one: Made, record: Record, artefact: Artefact) -> dict[str, str]:
    code, machine = record.get("code") or {}, record.get("machine") or {}
    told: dict[str, Any] = {
        **{name: value for name, value in artefact.facts.items() if isinstance(value, str | bool)},
        **{name: record.get(name) for name in LAUNCHED},
        **{f"input.{name}": hash_ for name, hash_ in one.inputs.items()},
        **{"stage": one.stage, "key": one.key, "artefact": one.artefact, "snapshot": one.snapshot, "version": record.get("code_version")},
        **{"commit": code.get("commit"), "uncommitted": code.get("dirty_diff"), "lock": code.get("lock")},
        **{"torch": machine.get("torch"), "accelerators": ", ".join(machine.get("accelerators") or ())},
    }
    ours = {f"diger.{name}": str(value) for name, value in told.items() if value not in (None, "")}
    commit = {"mlflow.source.git.commit": str(code["commit"])} if code.get("commit") else {}
    return {**ours, "mlflow.source.name": "diger", "mlflow.source.type": "JOB", **commit}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """section.key -> the value as JSON, text as it is."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
