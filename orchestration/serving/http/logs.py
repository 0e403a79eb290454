"""Structured logs: one JSON object a line on standard error. They hold no user ids, no histories and no query strings."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """`told` of a record, a flat dictionary, beside time, level and event. Of an exception: its type and frames; its text may hold somebody's ids."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname.lower(), "event": record.msg if record.name == "diger.serve" else record.name}
        line |= getattr(record, "told", {})
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line |= {"error": record.exc_info[0].__name__, "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]}
        return json.dumps(line, ensure_ascii=False)


def configure() -> None:
    """The service's own lines, and uvicorn's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("diger.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
