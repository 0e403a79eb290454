"""Regular files only: a pipe would block for ever, and a device such as /dev/zero never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from diger_core.errors import DigerError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def what_it_is(path: str | Path) -> str | None:
    """`a directory`, `a pipe`, … where the path leads to something that is no regular file; None where it does, or where nothing is there.

    Does not open the path. OSError where it cannot be looked at (a name that is too long, a directory that may not be entered).
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    return next((name for test, name in _KINDS if test(mode)), None)


def require_regular(path: str | Path, where: str | None = None, *, at_most: int | None = None) -> None:
    """DigerError where the path is no regular file, or larger than `at_most` bytes. A file that does not exist is left to who opens it."""
    where = where or str(path)
    try:
        kind = what_it_is(path)
        size = 0 if at_most is None or kind else os.stat(path).st_size
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL byte
        raise DigerError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from error
    if kind is not None:
        raise DigerError(f"{where}: is {kind}, not a regular file; write the data to a file and give that")
    if at_most is not None and size > at_most:
        raise DigerError(f"{where}: has {size:,} bytes, at most {at_most:,} are read; check that it is the right file")
