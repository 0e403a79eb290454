"""A root on a local disk or an object store: atomic create-once files, atomic directories, and faults in plain words (faults.py).

Local: a file is written beside its place, synchronised, and linked into it, which fails if the name is taken. S3: a conditional put. Both make
"exists" mean "complete". Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from diger_core.errors import DigerError, holds_credentials
from diger_core.store.durable import make_directories, sync, sync_tree
from diger_core.store.faults import describe_os_error, error_code, precondition_failed
from diger_core.store.listing import local_tree, objects

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,199}")
_SCHEMES = ("file", "s3", "memory")
_HIDDEN_SCHEME = re.compile(r"(file|local):(?!//)")


def safe_name(name: str) -> str:
    """A single path component, or a `DigerError`: keeps every path under its root."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise DigerError(
            f"{str(name)[:80]!r} is not a usable name: use letters, digits, '.', '_', '=', '-', starting with a letter or digit, at most 200"
        )
    return name


class Root:
    """A directory tree at a local path or URL. Relative names only; every component is checked."""

    def __init__(self, url: str | Path):
        if holds_credentials(str(url)):  # refused unseen: they would end up in records and messages
            raise DigerError("the location's URL holds credentials: take them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
        if not str(url).strip() or "\0" in str(url):  # an empty name would be the machine's root
            raise DigerError(f"{str(url)!r}: not a usable location: give a directory or an s3:// URL")
        self.url = str(url).rstrip("/") or "/"
        scheme = self.url.partition("://")[0] if "://" in self.url else "file"
        # fsspec would open archives, other hosts, and one inside the other, and it cuts off `file:` and `local:` without slashes, too
        if scheme not in _SCHEMES or "::" in self.url or _HIDDEN_SCHEME.match(self.url):
            raise DigerError(f"{self.url}: not a usable location: give a directory or an s3:// URL")
        options: dict[str, Any] = {}
        if self.url.startswith("s3://"):
            # A listing or size remembered by this client would hide what another one has just written.
            options = {"use_listings_cache": False, "skip_instance_cache": False}
        try:
            self.fs, self.base = fsspec.core.url_to_fs(self.url, **options)
        except (ImportError, ValueError) as error:
            raise DigerError(f"{self.url}: not a usable location ({error}): give a directory or an s3:// URL") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)
        if self.is_local:
            self.base = os.path.abspath(self.base)

    def at(self, *names: str) -> str:
        """The full path of a relative name, jailed to the root."""
        path = "/".join([self.base, *(safe_name(part) for name in names for part in name.split("/"))])
        if self.is_local:
            real, base = os.path.realpath(path), os.path.realpath(self.base)
            if real != base and not real.startswith(base + os.sep):
                raise DigerError(f"{path}: leads out of {self.base} through a symbolic link: remove the link")
        return path

    @contextlib.contextmanager
    def faults(self, *names: str) -> Iterator[None]:
        """Turns operating system and object store errors into one clear line."""
        try:
            yield
        except DigerError:
            raise
        except Exception as error:
            module = type(error).__module__.split(".")[0]
            if isinstance(error, OSError) or module in {"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"}:
                raise describe_os_error(self._cause(error), "/".join([self.url, *names])) from error
            raise

    def _cause(self, error: Exception) -> Exception:
        """A refusal that came without its code (to a HEAD request: 400 or 403) is asked for again by a listing, whose answer has one."""
        if not hasattr(self.fs, "call_s3") or error_code(error) not in ("", "400", "403") or not isinstance(error, OSError):
            return error
        if not isinstance(error, PermissionError) and error.errno != errno.EINVAL:
            return error
        bucket, _, prefix = self.base.partition("/")
        try:
            self.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except Exception as found:  # noqa: BLE001 - whatever it says, it says more than the first one
            return found if error_code(found) else error
        return error

    def exists(self, *names: str) -> bool:
        with self.faults(*names):
            return bool(self.fs.exists(self.at(*names)))

    def list(self, *names: str) -> list[str]:
        """Sorted names directly under a directory; empty where it does not exist."""
        path = self.at(*names) if names else self.base
        with self.faults(*names):
            try:
                entries = self.fs.ls(path, detail=False) if self.is_local else self.fs.ls(path, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return sorted({str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries} - {""})

    def tree(self, *names: str) -> dict[str, int]:
        """Every file below a directory: relative path -> bytes, unsorted; temporary files left out, symbolic links not followed."""
        return {name: size for name, (size, _) in self._below(names).items()}

    def stamps(self, *names: str) -> dict[str, str]:
        """Every file below a directory, as `tree` names it: what differs once it is written again (bytes and time, or entity tag)."""
        return {name: f"{size}-{stamp}" for name, (size, stamp) in self._below(names).items()}

    def _below(self, names: tuple[str, ...]) -> dict[str, tuple[int, str]]:
        path = self.at(*names) if names else self.base
        with self.faults(*names):
            if self.is_local:
                found = dict(local_tree(path, ""))
            else:
                try:
                    entries = objects(self.fs, path) if hasattr(self.fs, "call_s3") else self.fs.find(path, detail=True, refresh=True)
                except FileNotFoundError:
                    return {}
                strip = len(str(self.fs._strip_protocol(path)).rstrip("/")) + 1
                found = {
                    name[strip:]: (int(entry.get("Size", entry.get("size", 0))), f"{entry.get('ETag')} {entry.get('LastModified')}")
                    for name, entry in entries.items()
                }
        return {name: told for name, told in found.items() if not name.rsplit("/", 1)[-1].startswith(".")}

    def read(self, *names: str) -> bytes:
        with self.faults(*names):
            return self._read(self.at(*names))

    def read_if_there(self, *names: str) -> bytes | None:
        """The file's bytes; None where it does not exist."""
        with self.faults(*names):
            try:
                return self._read(self.at(*names))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _read(self, path: str) -> bytes:
        # s3fs would ask for the size first, to read large objects in parts: two requests for each small file.
        options = {"max_concurrency": 1} if hasattr(self.fs, "call_s3") else {}
        return bytes(self.fs.cat_file(path, **options))

    def create(self, data: bytes, *names: str) -> bool:
        """Writes a file that must not exist yet; `False`, and nothing changed, where it does. All or nothing."""
        path = self.at(*names)
        with self.faults(*names):
            if not self.is_local:
                return self._create_object(data, path)
            make_directories(os.path.dirname(path))
            temporary = f"{os.path.dirname(path)}/.{uuid.uuid4().hex}.tmp"
            try:
                with open(temporary, "xb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
                sync(os.path.dirname(path))
                return True
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    def _create_object(self, data: bytes, path: str) -> bool:
        try:
            self.fs.pipe_file(path, data, mode="create")
        except OSError as error:
            if not (isinstance(error, FileExistsError) or precondition_failed(error)):
                raise
            # A put that succeeded but whose answer was lost is retried by the client, and then finds its own object.
            return bool(self.fs.cat_file(path) == data)
        return True

    def replace(self, data: bytes, *names: str) -> None:
        """Writes over a file that exists, in one step; nothing where it is gone. Without a promise that it outlives a power loss."""
        path = self.at(*names)
        with self.faults(*names):
            if not self.fs.exists(path):
                return
            if not self.is_local:
                self.fs.pipe_file(path, data)
                return
            temporary = f"{os.path.dirname(path)}/.{uuid.uuid4().hex}.tmp"
            try:
                with open(temporary, "xb") as f:
                    f.write(data)
                os.replace(temporary, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    def upload(self, local: Path, *names: str) -> None:
        """Copies one local file into place (S3: invisible until complete)."""
        with self.faults(*names):
            self.fs.put_file(str(local), self.at(*names))

    def download(self, local: Path, *names: str) -> None:
        """Copies one file to a local path, where it is on the disk when this returns."""
        with self.faults(*names):
            self.fs.get_file(self.at(*names), str(local))
            sync(str(local))

    def adopt_directory(self, local: Path, *names: str) -> bool:
        """Moves a finished local directory into place in one step (local roots only); `False` where the place is taken."""
        path = self.at(*names)
        with self.faults(*names):
            make_directories(os.path.dirname(path))
            sync_tree(str(local))
            try:
                os.rename(local, path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                if error.errno != errno.EXDEV:
                    raise
                staged = f"{os.path.dirname(path)}/.{uuid.uuid4().hex}.tmp"
                shutil.copytree(local, staged)
                sync_tree(staged)
                try:
                    os.rename(staged, path)
                except OSError as taken:
                    shutil.rmtree(staged)
                    if taken.errno in (errno.ENOTEMPTY, errno.EEXIST):
                        return False
                    raise
            sync(os.path.dirname(path))
        return True

    def remove(self, *names: str) -> None:
        """Removes one file; no fault where it is gone already."""
        with self.faults(*names), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.at(*names))

    def remove_directory(self, *names: str) -> None:
        with self.faults(*names), contextlib.suppress(FileNotFoundError):
            path = self.at(*names)
            if self.is_local:
                for folder, _, _ in os.walk(path):
                    os.chmod(folder, 0o755)
            self.fs.rm(path, recursive=True)

    def abandon_uploads(self, *names: str) -> int:
        """Removes what writers that were killed have left below a directory, which nobody sees: temporary files, or begun uploads in several
        parts. Returns how many. For directories that have one writer, and that one is not at work."""
        path = self.at(*names)
        with self.faults(*names), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                left = [os.path.join(path, name) for name in os.listdir(path) if name.startswith(".") and name.endswith(".tmp")]
                for each in left:
                    shutil.rmtree(each) if os.path.isdir(each) else os.unlink(each)
                return len(left)
            if hasattr(self.fs, "call_s3"):
                bucket, _, prefix = path.partition("/")
                begun = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
                for upload in begun:
                    self.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                return len(begun)
        return 0

    def writable(self) -> None:
        """Raises the clear error now rather than after an hour of work."""
        with self.faults():
            if self.is_local:
                make_directories(self.base)
                probe = f"{self.base}/.{uuid.uuid4().hex}.probe"
                with open(probe, "xb"):
                    os.unlink(probe)
            else:
                name = f"probe-{uuid.uuid4().hex}"
                self.fs.pipe_file(self.at(name), b"")
                self.fs.rm_file(self.at(name))
