"""A generated store of thousands of artefacts with real records: what the audit's commands are timed on."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from diger_core.store.artefact import FORMAT, artefact_hash
from diger_core.store.artefacts import Store
from diger_core.store.canonical import canonical_json, digest, jsonable
from diger_core.store.record import seal
from orchestration.engine.registry import FILES_OF, snapshot_key
from orchestration.graph import STAGES
from orchestration.params.sections import Params
from orchestration.snapshot.files import content_hash

_START = datetime(2026, 1, 1, tzinfo=UTC)
_CODE = {"commit": "0" * 40, "dirty_diff": None, "lock": "1" * 64}
_MACHINE = {
    "host": "generated",
    "system": "Linux",
    "processor": "none",
    "cpus": 2,
    "accelerators": [],
    "python": "3.11",
    "torch": "2.13",
    "numpy": "2",
}


def generate(store: Store, artefacts: int) -> list[dict[str, str]]:
    """Runs of the whole graph, one snapshot each, until there are about so many artefacts; every run after the first knows the bundle of the one
    before. Returns each run's stage -> artefact hash."""
    files: list[tuple[bytes, tuple[str, ...]]] = []
    runs: list[dict[str, str]] = []
    params = Params()
    for number in range(max(1, artefacts // len(STAGES))):
        runs.append(_run(files, number, params, runs[-1] if runs else {}))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: store.root.create(file[0], *file[1]), files))
    return runs


def _run(files: list[tuple[bytes, tuple[str, ...]]], number: int, params: Params, before: dict[str, str]) -> dict[str, str]:
    at = _START + timedelta(days=number)
    sha = {name: _sha(f"{number} {name}") for names in FILES_OF.values() for name in names if name != "vectors.parquet"}
    content = content_hash(sha)
    key = snapshot_key(f"/data/day-{number}", content)
    entry = {
        "key": key,
        "url": f"/data/day-{number}",
        "content_hash": content,
        "files": {name: {"sha256": value, "bytes": 1, "rows": 1} for name, value in sha.items()},
        "previous": None,
        "registered_at": at.isoformat(),
    }
    files.append((json.dumps(entry).encode(), ("snapshots", f"{key}.json")))
    made: dict[str, str] = {}
    for position, stage in enumerate(STAGES):
        document = {"run": number, "stage": stage.name}
        if stage.name == "gate":
            document |= {"verdict": "accept", "candidate": made.get("bundle"), "champion": before.get("bundle"), "rules": []}
        name, body = "verdict.json" if stage.name == "gate" else "data.json", canonical_json(document)
        file = {"name": name, "path": name, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "sort_by": []}
        listed = [{**file, "canonical": digest("json", body)}]
        facts = {"items": number}
        made[stage.name] = hash_ = artefact_hash(stage.name, listed, facts)
        manifest = {"format": FORMAT, "stage": stage.name, "hash": hash_, "facts": facts, "files": listed}
        inputs = {source: made[source] for source in stage.inputs if source in made}
        if stage.name == "tokenizer" and "bundle" in before:
            inputs["baseline"] = before["bundle"]
        source = {} if stage.inputs else {"snapshot_file": " ".join(f"{n}={sha[n]}" for n in FILES_OF[stage.name] if n in sha)}
        record: dict[str, Any] = {
            **{"format": FORMAT, "stage": stage.name, "key": _sha(f"{number} {stage.name} key"), "number": 1, "artefact": hash_, "inputs": inputs},
            **{"snapshot": key, **source, "params": params.section(stage.params), "code_version": stage.version},
            **{"started_at": (at + timedelta(minutes=position)).isoformat(), "seconds": 1.0, "code": _CODE, "machine": _MACHINE},
            **{"cluster": params.section(["cluster"])["cluster"], "notes": {}, "dagster_run_id": f"run-{number}"},
        }
        record = jsonable(record)
        record["seal"] = seal(record)
        files.append((body, ("artefacts", stage.name, hash_, name)))
        files.append((canonical_json(manifest), ("artefacts", stage.name, hash_, "manifest.json")))
        files.append((json.dumps(record, indent=1).encode(), ("records", stage.name, record["key"], "000001.json")))
    return made


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
