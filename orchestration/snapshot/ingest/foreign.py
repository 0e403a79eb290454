"""Files of other formats, told by their first bytes: no choice of encoding or delimiter reads an archive, and one that seems to reads rubbish."""

from __future__ import annotations

import codecs

_UNPACK = "unpack it and give the file inside"
_EXPORT = "export it as CSV or Parquet"
_BEGINNINGS = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet (.xlsx)", "unpack it, or save the sheet as CSV, and give that"),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of an old format (.xls)", "save the sheet as CSV and give that"),
    (b"ORC", "an ORC file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"ARROW1", "an Arrow (Feather) file", _EXPORT),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"SQLite format 3\x00", "a SQLite database", _EXPORT),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
)
MAGIC_BYTES = max(len(beginning) for beginning, _, _ in _BEGINNINGS)
_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def foreign(beginning: bytes) -> str | None:
    """`is a zip archive …; unpack it …` where the bytes begin a file that is neither text nor Parquet; None otherwise."""
    return next((f"is {what}; {remedy}" for magic, what, remedy in _BEGINNINGS if beginning.startswith(magic)), None)


def marked_encoding(beginning: bytes) -> str | None:
    """The encoding that a byte order mark says, other than UTF-8."""
    return next((name for mark, name in _MARKS if beginning.startswith(mark)), None)


def no_table(first_line: str) -> str | None:
    """Why a text's first line is no line of names in any way of cutting it, and what to do; None where it may be one."""
    start = first_line.lstrip()[:1]
    if not start:
        return "its first line is empty; remove the lines before the names"
    if start in "{[":
        return "holds JSON; write it as CSV or Parquet (diger ingest amazon reads the JSON of Amazon's reviews)"
    if start == "<":
        return "holds HTML or XML, perhaps the page of an error or a login; download the data again, as CSV or Parquet"
    if start == "#" or first_line.startswith("sep="):
        return f"its first line ({first_line[:40]!r}) is no line of names; remove the lines before the names"
    return None
