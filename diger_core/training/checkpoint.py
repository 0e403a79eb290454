"""Training checkpoints: one artefact that holds all that a resumed run needs to continue as if it had never stopped.

    <directory>/<step, 8 digits>/{recommender,tokenizer,schedule,optimizer,rng,table,best}.safetensors, state.json, manifest.json

Tensors as safetensors, everything else as JSON. The manifest names each file's size and SHA-256 and is written last: without it, or with a
file that differs from it, there is no checkpoint, and the one before is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diger_core.errors import DigerError
from diger_core.progress import Progress, Silent
from diger_core.store.canonical import bytes_sha256
from diger_core.store.faults import describe_os_error
from diger_core.store.files import Root

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.json"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """`tensors`: by file (recommender, tokenizer, …), by name; `state`: plain JSON: step, epoch, batch, curves, table hash, …."""

    tensors: dict[str, Tensors]
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def name(self) -> str:
        """The directory's name below a checkpoint root: the step, so that names sort by age."""
        return f"{self.step:08d}"

    def write(self, folder: str | Path) -> None:
        """Writes the files into an existing local folder, the manifest last (a Ray Train checkpoint is such a folder)."""
        folder = Path(folder)
        try:
            for name, tensors in self.tensors.items():
                plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
                save_file(plain, folder / f"{name}.safetensors")
            (folder / STATE).write_text(json.dumps(self.state, indent=1, sort_keys=True, allow_nan=False))
            files = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".json") and path.name != MANIFEST)
            listed = {name: {"bytes": (folder / name).stat().st_size, "sha256": bytes_sha256(folder / name)} for name in files}
            with open(folder / MANIFEST, "w", encoding="utf-8") as f:
                json.dump({"format": FORMAT, "files": listed}, f, indent=1, sort_keys=True)
                f.flush()
                os.fsync(f.fileno())
        except OSError as error:
            raise describe_os_error(error, str(folder)) from error

    def save(self, directory: str | Path) -> str:
        """Saves below a root (local or s3://); returns the checkpoint's place. A complete one of this step is left alone.

        Locally the folder is renamed into place when complete; in an object store the manifest is uploaded last.
        """
        root = Root(directory)
        place = f"{root.url}/{self.name}"
        if root.exists(self.name):
            if _valid(place):
                return place
            root.remove_directory(self.name)
        with _folder(root) as folder:
            self.write(folder)
            if root.is_local:
                if not root.adopt_directory(folder, self.name):
                    raise DigerError(f"{place}: another process wrote this checkpoint at the same time: run one training per checkpoint directory")
            else:
                names = sorted(path.name for path in folder.iterdir())
                for name in [*(name for name in names if name != MANIFEST), MANIFEST]:
                    root.upload(folder / name, self.name, name)
        return place


def load(place: str | Path) -> Checkpoint:
    """Loads one checkpoint and verifies every file against its manifest. DigerError where it is partial or damaged."""
    place = str(place).rstrip("/")
    parent, _, name = place.rpartition("/")
    root = Root(parent or ".")
    manifest = _manifest(root, place, name)
    if root.is_local:
        return _read(Path(root.at(name)), place, manifest)
    with tempfile.TemporaryDirectory() as folder:
        for file in manifest:
            if not root.exists(name, file):
                raise _damaged(place, f"{file} is missing")
            root.download(Path(folder) / file, name, file)
        return _read(Path(folder), place, manifest)


def steps(directory: str | Path) -> list[str]:
    """The names of all checkpoints below a root, complete or not, oldest first."""
    return [name for name in Root(directory).list() if len(name) == 8 and name.isdigit()]


def newest_valid(directory: str | Path, progress: Progress | None = None) -> Checkpoint | None:
    """The newest checkpoint that verifies; each damaged or partial one is passed over with a warning. None where there is none."""
    for name in reversed(steps(directory)):
        try:
            return load(f"{str(directory).rstrip('/')}/{name}")
        except DigerError as error:
            (progress or Silent()).message(f"warning: {error}; falling back to the checkpoint before")
    return None


def prune(directory: str | Path, kept: int) -> None:
    """Removes all but the `kept` newest complete checkpoints, and whatever is older than those."""
    root, found = Root(directory), 0
    for name in reversed(steps(directory)):
        if found >= kept:
            root.remove_directory(name)
        elif root.exists(name, MANIFEST):
            found += 1


def sweep(directory: str | Path, progress: Progress) -> None:
    """Removes begun writes of a run that was killed. A store that does not let us is no reason not to train."""
    root, _, name = str(directory).rstrip("/").rpartition("/")
    try:
        if left := Root(root).abandon_uploads(name):
            progress.message(f"{left} unfinished uploads of a run that was killed were removed")
    except DigerError as error:
        progress.message(f"warning: unfinished uploads, if there are any, were not removed: {error}")


def _valid(place: str) -> bool:
    try:
        load(place)
    except DigerError:
        return False
    return True


@contextlib.contextmanager
def _folder(root: Root) -> Iterator[Path]:
    """A temporary folder: on the root's own disk where it is local, so that a rename can put it into place."""
    if root.is_local:
        folder = Path(root.base) / f".{uuid.uuid4().hex}.tmp"
        with root.faults():
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder)
    else:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)


def _damaged(place: str, why: str) -> DigerError:
    return DigerError(f"checkpoint {place}: {why}: it is partial or damaged; remove it and resume from the one before")


def _manifest(root: Root, place: str, name: str) -> Mapping[str, Mapping[str, Any]]:
    if not root.exists(name, MANIFEST):
        raise _damaged(place, f"{MANIFEST} is missing")
    try:
        manifest = json.loads(root.read(name, MANIFEST))
        files = {str(file): {"bytes": int(facts["bytes"]), "sha256": str(facts["sha256"])} for file, facts in manifest["files"].items()}
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(place, f"{MANIFEST} cannot be read") from error
    if version != FORMAT:
        raise DigerError(f"checkpoint {place}: format {version!r} is not {FORMAT}: it was written by another version; start the training again")
    if STATE not in files or any("/" in file or file.startswith(".") for file in files):
        raise _damaged(place, f"{MANIFEST} lists impossible files")
    return files


def _read(folder: Path, place: str, manifest: Mapping[str, Mapping[str, Any]]) -> Checkpoint:
    for file, facts in manifest.items():
        path = folder / file
        if not path.is_file():
            raise _damaged(place, f"{file} is missing")
        if path.stat().st_size != facts["bytes"] or bytes_sha256(path) != facts["sha256"]:
            raise _damaged(place, f"{file} differs from its SHA-256 in {MANIFEST}")
    try:
        tensors = {Path(file).stem: load_file(folder / file) for file in manifest if file.endswith(".safetensors")}
        return Checkpoint(tensors, json.loads((folder / STATE).read_bytes()))
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(place, f"cannot be read ({error})") from error
