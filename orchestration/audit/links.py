"""The links between stored things: each fault is one line that names both ends and what to do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from diger_core.errors import DigerError
from diger_core.store.content_hash import table_hash
from diger_core.store.record import seal
from orchestration.audit.index import Index, manifest_path
from orchestration.verdict.gate.document import VERDICT

if TYPE_CHECKING:
    from diger_core.store.artefact import Artefact
    from orchestration.champion.bundle import BundleDocument

ASSIGNMENT = "diger.assignment_hash"
_TABLES = ("id_table.parquet", "semantic_ids.parquet")


def manifest(index: Index, found: Artefact) -> list[str]:
    """The manifest against the hash that the records of the artefact seal: its own name does not cover the files' bytes."""
    makers = index.makers.get(found.hash, [])
    said = []
    for made in makers:
        with contextlib.suppress(DigerError):  # a damaged record is named where records are verified
            said.append(str(index.record(made).get("manifest") or ""))
    if not makers or found.manifest_hash in said:
        return []
    where = f"{manifest_path(index.store, found.stage, found.hash)}: edited or replaced: it hashes to {found.manifest_hash[:12]}"
    names = ", ".join(sorted({value[:12] for value in said if value})) or "nothing about it"
    return [f"{where}, its records say {names}: restore it (dvc pull), or remove {found.directory} and run stage {found.stage} again"]


def unrecorded(index: Index) -> list[str]:
    """Complete artefacts that no record mentions: nothing says what made them."""
    return [
        f"{index.store.url}/artefacts/{stage}/{hash_}: no record of stage {stage} mentions it, so nothing says what made it: restore the records "
        f"from a copy of the store (dvc pull), run stage {stage} again, which records it, or let `diger gc --delete` remove it"
        for hash_, stage in index.present.items()
        if hash_ not in index.makers and index.complete(hash_)
    ]


def unentered(index: Index) -> list[str]:
    """Releases that were made, but that left no entry in the champion log. One whose bundle was champion by another entry needs none of its own."""
    entered = {name for entry in index.releases for name in (entry.release, entry.bundle)}
    made = {artefact.hash: artefact.facts.get("bundle") for artefact in index.artefacts(["release"]) if artefact.hash in index.makers}
    return [
        f"{index.store.url}/artefacts/release/{hash_}: no entry of the champion log names this release: it was interrupted before its entry: run "
        "release again; if an entry was deleted, restore champion/ from a copy of the store"
        for hash_, bundle in made.items()
        if hash_ not in entered and bundle not in entered
    ]


def artefact(index: Index, found: Artefact) -> list[str]:
    """Links inside one artefact whose bytes are sound: model, table and bundle name the same ID assignment; a bundle's parts are its components'."""
    try:
        return [*_assignment(found), *_bundle(index, found), *_raw(index, found)]
    except DigerError as error:
        return [str(error)]


def _assignment(found: Artefact) -> list[str]:
    """Every place that names an assignment against the table's own content."""
    said: dict[str, str] = {}
    if "assignment_hash" in found.facts and found.stage != "gate":
        said["manifest.json"] = str(found.facts["assignment_hash"])
    if "model.safetensors" in found.names:
        said["model.safetensors (header)"] = str(header(found, "model.safetensors").get(ASSIGNMENT))
    held = ""
    for name in _TABLES:
        if name in found.names:
            table = found.table(name)
            metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            said[f"{name} (metadata)"] = str(metadata.get(ASSIGNMENT))
            columns = ["item_id", *sorted(c for c in table.column_names if c.startswith("code_")), "suffix"]
            held = table_hash(table.select(columns).replace_schema_metadata(None), sort_by=("item_id",))
            said[f"{name} (rows)"] = held
    if len(set(said.values())) < 2:
        return []
    parts = ", ".join(f"{where} says {value[:12]}" for where, value in said.items())
    return [f"{found.directory}: its parts name different ID assignments: {parts}: a mix of two models; remove it and run stage {found.stage} again"]


def header(found: Artefact, name: str) -> dict[str, str]:
    """A safetensors file's metadata; from an object store, only the first bytes are read."""
    if found.root.is_local:
        return found.tensors_metadata(name)
    path = found.root.at("artefacts", found.stage, found.hash, found.files[name]["path"])
    with found.root.faults(name), found.root.fs.open(path, "rb", block_size=1 << 20) as f:
        return dict(json.loads(f.read(int.from_bytes(f.read(8), "little"))).get("__metadata__", {}))


def _bundle(index: Index, found: Artefact) -> list[str]:
    """A bundle's copies against the artefacts that bundle.json names, as far as those are still in the store."""
    if "bundle.json" not in found.names:
        return []
    document: BundleDocument = found.json("bundle.json")
    faults = []
    if document["assignment_hash"] != found.facts.get("assignment_hash"):
        faults.append(f"bundle.json names assignment {document['assignment_hash'][:12]}, the manifest {str(found.facts.get('assignment_hash'))[:12]}")
    copies = {
        "refit": {"model.safetensors": "model.safetensors", "id_table.parquet": "id_table.parquet"},
        "joint_model": {"judged.safetensors": "model.safetensors"},
        "encoder": {"encoder.json": "encoder.json", "encoder.safetensors": "encoder.safetensors"},
        "fusion": {"fusion.json": "fusion.json"},
    }
    for stage, names in copies.items():
        source = index.artefact(document["components"][stage])
        for name, original in names.items() if source is not None else ():
            theirs, ours = ({} if a is None else a.files.get(of, {}) for a, of in ((source, original), (found, name)))
            if theirs.get("canonical") != ours.get("canonical"):
                faults.append(f"{name} is not that of {stage} {document['components'][stage][:12]}, which bundle.json names")
    return [f"{found.directory}: mixed parts: {fault}: roll back to a sound bundle and run bundle again" for fault in faults]


def _raw(index: Index, found: Artefact) -> list[str]:
    """A raw artefact's bytes against what its snapshot registered."""
    faults = []
    for made in index.makers.get(found.hash, []) if found.stage.startswith("raw_") else ():
        registered = index.snapshots.get(str(made.snapshot), {}).get("files", {})
        for name, entry in found.files.items():
            wanted = registered.get(name, {}).get("sha256", entry["sha256"])
            if wanted != entry["sha256"] and not index.record(made).get("forgotten"):
                faults.append(
                    f"{found.directory}/{name}: expected SHA-256 {wanted}, as snapshot {made.snapshot} registered it, found {entry['sha256']}: "
                    "register the snapshot again, or restore the snapshots folder from a copy of the store"
                )
    return faults


def snapshot(index: Index, key: str) -> list[str]:
    """The entry against its own key: both come from the files' hashes."""
    from orchestration.engine.registry import snapshot_key
    from orchestration.snapshot.files import content_hash

    entry, where = index.snapshots[key], f"{index.store.url}/snapshots/{key}.json"
    try:
        content = content_hash({name: file["sha256"] for name, file in entry["files"].items()})
        sound = content == entry["content_hash"] and entry["key"] == key and snapshot_key(entry["url"], content)[-8:] == key[-8:]
    except (KeyError, TypeError, AttributeError):
        sound, content = False, "unreadable"
    if sound:
        return []
    return [
        f"{where}: edited or damaged: its files hash to {content[:12]}, its key ends in {key[-8:]}: restore it from a copy of the store (dvc pull)"
    ]


def release(index: Index, number: int) -> list[str]:
    """A log entry against its seal, its neighbour, its verdict and its bundle."""
    name = f"{number:06d}.json"
    where, value = f"{index.store.url}/champion/{name}", index.document("champion", name)
    if value.get("seal") != seal(value) or value.get("number") != number:
        return [f"{where}: edited or damaged: it does not fit its own seal: restore it from a copy of the store"]
    entry, faults = next(e for e in index.releases if e.number == number), []
    before = {e.number: e.bundle for e in index.releases}.get(number - 1)
    if entry.previous != before:
        faults.append(
            f"{where}: names {str(entry.previous)[:12]} as the champion before it, the log says {str(before)[:12]}: restore the missing entry"
        )
    named: list[tuple[str, str | None]] = [("bundle", entry.bundle), ("verdict", entry.verdict), ("release", entry.release)]
    for what, hash_ in named:
        if hash_ and hash_ not in index.present and hash_ not in index.removed:
            faults.append(f"{where}: its {what} {hash_[:12]} is not in the store: restore it (dvc pull)")
    document = None
    with contextlib.suppress(DigerError, ValueError):  # a damaged verdict is named among the artefacts
        verdict = index.artefact(entry.verdict) if entry.verdict else None
        document = verdict.json(VERDICT) if verdict is not None else None
    said = (document.get("verdict"), document.get("candidate")) if isinstance(document, dict) else None
    if said is not None and said != ("accept", entry.bundle):
        faults.append(
            f"{where}: its verdict {str(entry.verdict)[:12]} is {said[0]} for bundle {str(said[1])[:12]}, "
            f"the entry makes {entry.bundle[:12]} champion: roll back to an accepted bundle"
        )
    return faults


def removals(index: Index, hashes: Iterable[str]) -> list[str]:
    """Notes of removal against their seals: an absence counts as explained only by a note that is as it was written."""
    return [
        f"{index.store.url}/removed/{hash_}.json: edited or damaged: it does not fit its own seal: restore it from a copy of the store"
        for hash_ in hashes
        if index.removed[hash_].get("seal") != seal(index.removed[hash_])
    ]


def missing(index: Index) -> list[str]:
    """Artefacts that a present one was made from, or a pointer names, and that are neither there nor removed on purpose."""
    wanted: dict[str, str] = {}
    for made in index.made:
        if made.artefact in index.present and not made.horizon:
            for name, hash_ in made.inputs.items():
                wanted.setdefault(hash_, f"{index.stage_of(hash_, name)}, an input of {made.stage} {made.artefact[:12]}")
    for name, value in index.pointers:
        named = str(value.get("artefact") or value.get("bundle") or "")
        if named:
            wanted.setdefault(named, f"{index.stage_of(named, name.split('/')[0])}, named by pointer {name}")
    return [
        f"{index.store.url}/artefacts/{what.split(',')[0]}/{hash_}: missing ({what}): restore it (dvc pull), or run that stage again"
        for hash_, what in wanted.items()
        if hash_ not in index.present and hash_ not in index.removed
    ]
