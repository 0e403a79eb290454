"""A store's small documents (records, manifests, entries, notes), in few requests.

Whoever has read many of them from an object store leaves a pack there for the next reader, in the section `index`: gzip over one line of JSON, the
list of [path, length], and the documents' bytes one after another; named by its own SHA-256. A pack is only a copy. An entry counts while the
store's own listing has its path with the size and the entity tag (the MD5) of the entry's bytes; else the document itself is read. So a pack that
is old, damaged or gone makes a question slower and changes no answer.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

from diger_core.errors import DigerError
from diger_core.store.files import Root
from diger_core.store.listing import stands_for

A = TypeVar("A")
B = TypeVar("B")

PACKS = "index"
ENOUGH = 16  # documents that are worth a pack
MANY = 8  # packs that are worth a single one
THREADS = 16  # of requests to an object store; a local disk needs none
_LISTED = ("artefacts", "records", "snapshots", "champion", "removed", PACKS)


class Documents:
    """The documents of one root as they stand when it is first asked; on a local disk each is read where it lies. `packed`: packs are used."""

    def __init__(self, root: Root, packed: bool = True) -> None:
        self.root = root
        self._packed = packed and not root.is_local
        self._fresh: dict[str, bytes] = {}  # path -> bytes that were read themselves, and that the listing vouches for

    def each(self, work: Callable[[A], B], values: Iterable[A]) -> list[B]:
        """`work` of every value, in order; requests to an object store many at a time."""
        values = list(values)
        if self.root.is_local or len(values) < 2:
            return [work(value) for value in values]
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(work, values))

    # Listings

    @cached_property
    def _listing(self) -> dict[str, dict[str, str]]:
        """Section -> path in it -> stamp, of an object store."""
        return {} if self.root.is_local else dict(zip(_LISTED, self.each(self.root.stamps, _LISTED), strict=True))

    def stamps(self, section: str) -> Mapping[str, str]:
        """Path in the section -> stamp, of every file."""
        return self._listing[section] if section in self._listing else self.root.stamps(section)

    def names(self, section: str) -> list[str]:
        """Sorted names directly under a section."""
        return list(self.folders(section)) if section in self._listing else self.root.list(section)

    def folders(self, section: str) -> dict[str, list[str]]:
        """Name directly under a section -> sorted names under that, if it is a folder."""
        if section not in self._listing:
            names = self.root.list(section)
            return dict(zip(names, self.each(lambda name: self.root.list(section, name), names), strict=True))
        found: dict[str, set[str]] = {}
        for path in self._listing[section]:
            name, _, rest = path.partition("/")
            found.setdefault(name, set()).update([rest.partition("/")[0]] if rest else [])
        return {name: sorted(found[name]) for name in sorted(found)}

    # Bytes

    def read(self, *names: str) -> bytes:
        """A document's bytes; DigerError where it does not exist."""
        data = self.find(*names)
        return self.root.read(*names) if data is None else data  # the second reading says what is wrong

    def find(self, *names: str) -> bytes | None:
        """A document's bytes; None where it does not exist."""
        section, path = names[0], "/".join(names)
        if section not in self._listing:
            return self.root.read_if_there(*names)
        stamp = self._listing[section].get("/".join(names[1:]))
        if stamp is None:
            return None
        kept = self._kept.get(path)
        if kept is not None and stands_for(stamp, kept):
            return kept
        data = self.root.read_if_there(*names)
        if self._packed and data is not None and stands_for(stamp, data):
            self._fresh[path] = data
        return data

    def distrust(self) -> None:
        """From now on every document is read itself: for whoever verifies them."""
        self._packed = False
        self._kept = {}

    # Packs

    @cached_property
    def _kept(self) -> dict[str, bytes]:
        """Path -> bytes, of all packs; nothing of it is verified yet."""
        if not self._packed:
            return {}
        found: dict[str, bytes] = {}
        names = sorted(self._listing[PACKS], key=lambda name: self._listing[PACKS][name].rpartition('" ')[2])  # the newest last
        for pack in self.each(lambda name: _unpacked(name, self.root.read_if_there(PACKS, name)), names):
            found |= pack
        return found

    def remember(self) -> None:
        """Leaves what was read in a pack, once it is worth one; many packs become one."""
        if len(self._fresh) < ENOUGH:
            return
        earlier = list(self._listing[PACKS]) if len(self._listing[PACKS]) >= MANY else []
        still = {path: data for path, data in self._kept.items() if stands_for(self._stamp(path), data)} if earlier else {}
        name, data = _packed({**still, **self._fresh})
        with contextlib.suppress(DigerError):  # a store that may only be read makes the next question slower, nothing else
            self.root.create(data, PACKS, name)
            for old in earlier:
                if old != name:
                    self.root.remove(PACKS, old)
        self._kept |= self._fresh
        self._fresh = {}

    def _stamp(self, path: str) -> str | None:
        section, _, rest = path.partition("/")
        return self._listing.get(section, {}).get(rest)


def forget_packs(root: Root) -> None:
    """Removes every pack: copies of what is about to be removed or was."""
    for name in root.list(PACKS):
        root.remove(PACKS, name)


def _packed(documents: Mapping[str, bytes]) -> tuple[str, bytes]:
    """(name, bytes) of a pack; equal documents give an equal pack."""
    entries = sorted(documents.items())
    head = json.dumps([[path, len(data)] for path, data in entries], separators=(",", ":")).encode()
    data = gzip.compress(b"\n".join([head, b"".join(data for _, data in entries)]), mtime=0)
    return f"{hashlib.sha256(data).hexdigest()}.gz", data


def _unpacked(name: str, data: bytes | None) -> dict[str, bytes]:
    """A pack's entries; none where it is gone, damaged, or no pack."""
    if data is None or name != f"{hashlib.sha256(data).hexdigest()}.gz":
        return {}
    found: dict[str, bytes] = {}
    with contextlib.suppress(OSError, EOFError, zlib.error, ValueError, TypeError, RecursionError):
        head, _, body = gzip.decompress(data).partition(b"\n")
        start = 0
        for path, length in json.loads(head):
            found[path] = body[start : start + length]
            start += length
    return found
