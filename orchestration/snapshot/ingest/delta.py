"""A Delta table: the files of its newest version, as its log says (extra `delta`). Its directory also holds files of older versions."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from diger_core.errors import DigerError

LOG = "_delta_log"
# What a reader of plain Parquet files may leave aside; others, such as deletion vectors, change which rows a file has or what its columns are called.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
_EXPORT = "write its newest version as Parquet files into another directory and give that"


def delta_files(path: Path) -> list[Path]:
    """The Parquet files of the newest version, by path. DigerError where deltalake is not installed or the table needs more than they say."""
    if find_spec("deltalake") is None:
        raise DigerError(f"{path}: is a Delta table, whose directory also holds files of older versions: pip install 'diger[delta]', or {_EXPORT}")
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(str(path))
        wanted, uris = table.protocol(), table.file_uris()
    except (DeltaError, OSError) as error:
        raise DigerError(f"{path}: its Delta log cannot be read ({' '.join(str(error).split())[:200]}): {_EXPORT}") from error
    more = sorted(set(wanted.reader_features or ()) - _HARMLESS)
    if more or wanted.min_reader_version == 2:
        raise DigerError(f"{path}: is a Delta table with {', '.join(more) or 'column mapping'}, which its files alone do not tell: {_EXPORT}")
    if not uris:
        raise DigerError(f"{path}: is a Delta table whose newest version holds no file: load it, or give another one")
    found = [Path(unquote(uri.removeprefix("file://"))) for uri in uris]
    return sorted(path / file.relative_to(path.resolve()) for file in found)
