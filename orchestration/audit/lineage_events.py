"""The store's records as OpenLineage events, for a catalogue of the company's data (Marquez, DataHub, Atlan and others read them).

    record       -> a run of job NAMESPACE/STAGE: START and COMPLETE
    artefact     -> a dataset STORE/artefacts/STAGE, whose version is the artefact's hash
    snapshot     -> the file that a first stage read, whose version is its canonical hash

A run's id follows from the store's address and the record's path, so that events that are sent twice are the same events. Datasets are named by
place, not by content: a catalogue then shows one box a stage, with a version for each artefact. What a user did is in no event.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from importlib.metadata import version
from urllib.parse import urlsplit

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    RunFacet,
    dataset_version_dataset,
    documentation_job,
    job_type_job,
    parent_run,
    processing_engine_run,
    tags_run,
)
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider
from requests import RequestException

from diger_core.errors import DigerError
from orchestration.audit.index import Index, Made
from orchestration.graph import BY_NAME

PRODUCER = f"urn:diger:{version('diger')}"
TIMEOUT = 30.0  # seconds for one request
RETRIES = {"total": 3, "backoff_factor": 0.5}  # of a request that nobody answered


def events(index: Index, made: Iterable[Made], namespace: str) -> Iterator[RunEvent]:
    """START and COMPLETE of each record, in the order given."""
    for one in made:
        record = index.record(one)
        run, job = _run(index, one, namespace), _job(one, namespace)
        inputs, outputs = _inputs(index, one), [OutputDataset(*_place(index, one.stage), facets=_version(one.artefact))]
        begun = datetime.fromisoformat(one.at)
        ended = begun + timedelta(seconds=float(record.get("seconds", 0.0)))
        for kind, at in ((RunState.START, begun), (RunState.COMPLETE, ended)):
            yield RunEvent(eventTime=at.isoformat(), producer=PRODUCER, run=run, job=job, eventType=kind, inputs=inputs, outputs=outputs)


def as_json(event: RunEvent) -> str:
    """The event in one line."""
    return str(Serde.to_json(event))


def sender(url: str, api_key: str | None) -> HttpTransport:
    """Sends to URL/api/v1/lineage; `api_key` goes into the header `Authorization`."""
    auth = ApiKeyTokenProvider({"api_key": api_key}) if api_key else TokenProvider({})
    return HttpTransport(HttpConfig(url=url, auth=auth, timeout=TIMEOUT, retry=RETRIES))


def send(transport: HttpTransport, event: RunEvent) -> None:
    """DigerError where the receiver cannot be reached or refuses the event."""
    try:
        transport.emit(event)
    except RequestException as error:
        answer = getattr(error, "response", None)
        told = f"answered {answer.status_code} {answer.reason}" if answer is not None else f"cannot be reached ({type(error).__name__})"
        remedy = "check OPENLINEAGE_API_KEY." if answer is not None and answer.status_code in (401, 403) else "is it an OpenLineage receiver?"
        raise DigerError(
            f"--to {transport.url}: {told}: {remedy} What was sent stays; the same command sends it again, which changes nothing there"
        ) from error


def _run(index: Index, one: Made, namespace: str) -> Run:
    record = index.record(one)
    told = {"key": one.key, "snapshot": one.snapshot, "commit": one.commit, "version": record.get("code_version"), "by": record.get("launched_by")}
    tags = [tags_run.TagsRunFacetFields(name, str(value), "DIGER") for name, value in told.items() if value]
    facets: dict[str, RunFacet] = {
        "tags": tags_run.TagsRunFacet(tags, producer=PRODUCER),
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(version("diger"), "DIGER", producer=PRODUCER),
    }
    launched = str(record.get("dagster_run_id", ""))
    if _is_uuid(launched):
        parent = parent_run.Job(namespace, "retrain")
        facets["parent"] = parent_run.ParentRunFacet(parent_run.Run(launched), parent, producer=PRODUCER)
    return Run(str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(_address(f"{index.store.url}/records/{one.path}")))), facets)


def _job(one: Made, namespace: str) -> Job:
    facets: dict[str, JobFacet] = {"jobType": job_type_job.JobTypeJobFacet("BATCH", "DIGER", "STAGE", producer=PRODUCER)}
    if one.stage in BY_NAME:
        facets["documentation"] = documentation_job.DocumentationJobFacet(BY_NAME[one.stage].description, producer=PRODUCER)
    return Job(namespace, one.stage, facets)


def _inputs(index: Index, one: Made) -> list[InputDataset]:
    found = [InputDataset(*_place(index, index.stage_of(hash_, name)), facets=_version(hash_)) for name, hash_ in sorted(one.inputs.items())]
    if one.source and one.snapshot in index.snapshots:
        file, _, hash_ = one.source.partition("=")
        found.append(InputDataset(*_address(f"{index.snapshots[one.snapshot]['url']}/{file}"), facets=_version(hash_)))
    return found


def _version(hash_: str) -> dict[str, DatasetFacet]:
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(hash_, producer=PRODUCER)}


def _place(index: Index, stage: str) -> tuple[str, str]:
    """(namespace, name) of a stage's artefacts."""
    return _address(f"{index.store.url}/artefacts/{stage}")


def _address(url: str) -> tuple[str, str]:
    """(namespace, name) by OpenLineage's naming: file and its absolute path, or scheme://host and the path."""
    if "://" not in url:
        return "file", os.path.realpath(url)
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
