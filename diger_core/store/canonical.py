"""Canonical digests and JSON: equal content gives an equal SHA-256, whatever the machine. Hashes of files: content_hash.py.

Every part is length-prefixed (8 bytes, little-endian), so that no two different contents share an encoding. Nothing heavy is imported here:
questions about a store need no more than this.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def digest(*parts: bytes | str) -> str:
    """SHA-256 over the length-prefixed parts, as 64 hex digits."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def jsonable(value: Any) -> Any:
    """Plain JSON types; infinities and NaN become strings, because JSON has no notation for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    numpy = sys.modules.get("numpy")  # where nobody has imported it, nothing can be of it
    return jsonable(value.item()) if numpy is not None and isinstance(value, numpy.generic) else value


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces."""
    return json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def bytes_sha256(path: str | Path) -> str:
    """SHA-256 of a local file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
