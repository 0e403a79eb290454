"""One file of an artefact against its manifest: its bytes (SHA-256) and, where asked for, its canonical content.

Large reads, which let go of the interpreter's lock while they are hashed; from an object store a file is streamed, not kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact, cache_directory
from diger_core.store.canonical import bytes_sha256
from diger_core.store.content_hash import file_hash
from diger_core.store.durable import make_directories

BLOCK = 1 << 20  # a reading stays in the processor's cache until it is hashed
IN_ONE = 32 << 20  # bytes of an object that are asked for in one request


@dataclass(frozen=True)
class FileCheck:
    """What a file's verification has found. `fault`: it is not as recorded; `note`: unusual but sound."""

    bytes: int  # that were read
    fault: str | None = None
    note: str | None = None


def check_file(artefact: Artefact, entry: Mapping[str, Any], content: bool) -> FileCheck:
    """One file: its SHA-256 and, with `content`, its canonical hash."""
    where, names = f"{artefact.directory}/{entry['path']}", ("artefacts", artefact.stage, artefact.hash, entry["path"])
    remedy = f"restore it (dvc pull), or remove {artefact.directory} and run stage {artefact.stage} again"
    try:
        found, size = hash_bytes(artefact, names, int(entry["bytes"]))
    except FileNotFoundError:
        return FileCheck(0, f"{where}: missing: expected {entry['bytes']:,} bytes with SHA-256 {entry['sha256']}: {remedy}")
    except DigerError as error:
        return FileCheck(0, str(error))
    if found == entry["sha256"] and not content:
        _known_good(artefact, entry, names)
        return FileCheck(size)
    canonical = _canonical(artefact, entry, names) if content else ""
    if found == entry["sha256"]:
        if canonical == entry["canonical"]:
            _known_good(artefact, entry, names)
            return FileCheck(size)
        wrong = (
            f"{where}: its bytes are those of the manifest, their canonical hash is not: expected {entry['canonical']}, found {canonical}: {remedy}"
        )
        return FileCheck(size, wrong)
    if canonical == entry["canonical"]:
        _known_good(artefact, entry, names, found)
        return FileCheck(size, note=f"{where}: re-encoded: other bytes (SHA-256 {found[:12]}), equal content (canonical {canonical[:12]}): passes")
    cut = f" ({size:,} bytes, expected {entry['bytes']:,})" if size != entry["bytes"] else ""
    other = f", and so does its content: {canonical}" if content else "; --verify=content says whether the content is equal"
    return FileCheck(size, f"{where}: its bytes differ{cut}: expected SHA-256 {entry['sha256']}, found {found}{other}: {remedy}")


def check_content(artefact: Artefact, entry: Mapping[str, Any]) -> FileCheck:
    """One file whose manifest was edited: only its content can be told, which the artefact's name covers."""
    where, names = f"{artefact.directory}/{entry['path']}", ("artefacts", artefact.stage, artefact.hash, entry["path"])
    canonical = _canonical(artefact, entry, names)
    if canonical == entry["canonical"]:
        return FileCheck(0)
    wrong = f"{where}: its content is not what the artefact is named after: expected canonical hash {entry['canonical']}, found {canonical}"
    return FileCheck(0, wrong)


def _known_good(artefact: Artefact, entry: Mapping[str, Any], names: tuple[str, ...], reencoded: str | None = None) -> None:
    """The links that are read next need not hash the file once more; of a re-encoded object (its own SHA-256) they read a copy of these bytes."""
    if artefact.root.is_local:
        artefact.mark_verified(entry["name"], Path(artefact.root.at(*names)))
    elif reencoded is not None:
        local = cache_directory() / "files" / reencoded / entry["name"]
        make_directories(str(local.parent))
        artefact.root.download(local, *names)
        if bytes_sha256(local) == reencoded:
            artefact.mark_verified(entry["name"], local)


def hash_bytes(artefact: Artefact, names: tuple[str, ...], expected: int) -> tuple[str, int]:
    """(SHA-256, bytes) of a stored file of about `expected` bytes. FileNotFoundError where it is missing."""
    root, sha, size = artefact.root, hashlib.sha256(), 0
    path = root.at(*names)
    with root.faults(*names):
        if root.is_local and not os.path.exists(path):
            raise _missing(path)
        if root.is_local:
            buffer = bytearray(BLOCK)
            view = memoryview(buffer)
            with open(path, "rb", buffering=0) as f:
                while count := f.readinto(buffer):
                    sha.update(view[:count])
                    size += count
        elif expected <= IN_ONE:
            try:
                block = root.fs.cat_file(path)
            except FileNotFoundError:
                raise _missing(path) from None
            sha.update(block)
            size = len(block)
        else:
            if not root.fs.exists(path):
                raise _missing(path)
            with root.fs.open(path, "rb", block_size=8 * BLOCK, cache_type="readahead") as f:
                while block := f.read(8 * BLOCK):
                    sha.update(block)
                    size += len(block)
    return sha.hexdigest(), size


class _Gone(DigerError, FileNotFoundError):
    """Passes through `faults` as it is."""


def _missing(path: str) -> FileNotFoundError:
    return _Gone(f"{path}: missing")


def _canonical(artefact: Artefact, entry: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The canonical hash, or, of a file that cannot be read as its kind, words that no hash equals."""
    try:
        if artefact.root.is_local:
            return file_hash(artefact.root.at(*names), entry["sort_by"])
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / entry["name"]
            artefact.root.download(local, *names)
            return file_hash(local, entry["sort_by"])
    except DigerError:
        return "unreadable"
