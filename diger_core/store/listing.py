"""Listings: every file below a directory with its size and its stamp, which differs once the file is written again.

A stamp is a local file's time of change, or an object's entity tag and time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

_FLAT = 5  # pages of a thousand names that are asked for one after another; beyond them, a few folders are listed side by side
_FOLDERS = 100


def local_tree(path: str, prefix: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """(relative path behind `prefix`, (bytes, time of change in ns)) of every file below a local directory; symbolic links are not followed."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from local_tree(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    told = entry.stat(follow_symlinks=False)
                    yield f"{prefix}{entry.name}", (told.st_size, str(told.st_mtime_ns))
    except FileNotFoundError:
        return


def objects(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Full path -> entry of every object below a path of S3."""
    bucket, _, key = path.partition("/")
    prefix = f"{key}/" if key else ""
    pages = list(islice(_pages(fs, bucket, prefix), _FLAT))
    if pages and pages[-1].get("IsTruncated"):
        top = list(_pages(fs, bucket, prefix, Delimiter="/"))
        folders = [str(folder["Prefix"]) for page in top for folder in page.get("CommonPrefixes", [])]
        if len(folders) <= _FOLDERS:
            with ThreadPoolExecutor(16) as pool:
                pages = [*top, *(page for found in pool.map(lambda folder: list(_pages(fs, bucket, folder)), folders) for page in found)]
        else:
            pages = list(_pages(fs, bucket, prefix))
    return {f"{bucket}/{entry['Key']}": entry for page in pages for entry in page.get("Contents", []) if not entry["Key"].endswith("/")}


def _pages(fs: Any, bucket: str, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
    """A listing's answers, each asked for when it is wanted."""
    fs.connect()
    # botocore reads each entry's time with dateutil, which takes three quarters of a listing's time.
    fs.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **options)
        yield page
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def _moment(text: str) -> datetime:
    """A time of S3's: ISO 8601 in answers, RFC 5322 in headers."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return parsedate_to_datetime(text)


def stands_for(stamp: str | None, data: bytes) -> bool:
    """Whether a stamp of an object store (`Root.stamps`) says that the object holds these bytes: their size and, as entity tag, their MD5. A tag
    that is no MD5, as of an upload in several parts, stands for nothing."""
    return stamp is not None and stamp.startswith(f'{len(data)}-"{hashlib.md5(data, usedforsecurity=False).hexdigest()}" ')
