"""An Apache Iceberg table: its current snapshot, as its metadata say (extra `iceberg`). Its directory also holds files of older snapshots.

Rows are read through pyiceberg: deleted rows are left out, and columns that were renamed, added or widened are what the newest schema says. Without a
catalog the newest of metadata/*.metadata.json is current. Everything must lie below the directory: nothing is fetched from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow as pa

from diger_core.errors import DigerError

_METADATA = re.compile(r"v?(\d+)(-[^.]*)?(\.gz)?\.metadata\.json")
_EXPORT = "write its rows as Parquet files into another directory and give that"


def is_iceberg(path: Path) -> bool:
    """Whether the directory is that of an Iceberg table."""
    return (path / "metadata").is_dir() and any((path / "metadata").glob("*.metadata.json"))


def iceberg_columns(path: Path) -> list[str]:
    """The columns of the newest schema."""
    with _reading(path):
        return [field.name for field in _table(path).schema().fields]


def iceberg_files(path: Path) -> list[Path]:
    """The files that hold the current snapshot's rows and its deletes, by path. DigerError where there are none, or one lies elsewhere."""
    with _reading(path):
        tasks = _tasks(path, _table(path))
    return sorted({_below(path, file.file_path) for task in tasks for file in (task.file, *task.delete_files)})


def iceberg_batches(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of `columns`, each of one schema, file by file in the order of their names."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow

    with _reading(path):
        table = _table(path)
        wanted = table.schema().select(*columns)
        schema = schema_to_pyarrow(wanted, include_field_ids=False)
        scan = ArrowScan(table.metadata, table.io, wanted, AlwaysTrue())
        for task in _tasks(path, table):
            for batch in scan.to_record_batches([task]):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema).select(columns)


def _table(path: Path) -> Any:
    """The table as its newest metadata file has it; what the table's own properties say of reading is not followed."""
    if find_spec("pyiceberg") is None:
        raise DigerError(
            f"{path}: is an Iceberg table, whose directory also holds files of older versions: pip install 'diger[iceberg]', or {_EXPORT}"
        )
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import StaticTable

    newest, io = str(_newest(path)), PyArrowFileIO()
    metadata = FromInputFile.table_metadata(io.new_input(newest))
    if _local(metadata.location) != path.resolve():
        raise DigerError(f"{path}: is an Iceberg table that says it lies in {metadata.location}: give it there, or {_EXPORT}")
    return StaticTable(("static-table", newest), metadata, newest, io, NoopCatalog("static-table"))


def _newest(path: Path) -> Path:
    """The metadata file of the highest version: v3.metadata.json, 00003-UUID.metadata.json."""
    found: dict[int, list[Path]] = {}
    for entry in (path / "metadata").glob("*.metadata.json"):
        if match := _METADATA.fullmatch(entry.name):
            found.setdefault(int(match[1]), []).append(entry)
    newest = found[max(found)] if found else []
    if len(newest) != 1:
        told = f"two newest metadata files, {newest[0].name} and {newest[1].name}" if newest else "no metadata file whose name tells its version"
        raise DigerError(f"{path}: is an Iceberg table with {told}: only its catalog knows which counts: {_EXPORT}")
    return newest[0]


def _tasks(path: Path, table: Any) -> list[Any]:
    """What the current snapshot is read from, by file name. DigerError where it has no file."""
    snapshot = table.current_snapshot()
    if snapshot is not None:
        _below(path, snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            _below(path, manifest.manifest_path)
    tasks = [] if snapshot is None else sorted(table.scan().plan_files(), key=lambda task: task.file.file_path)
    if not tasks:
        raise DigerError(f"{path}: is an Iceberg table whose current snapshot holds no file: load it, or give another one")
    for task in tasks:
        for file in (task.file, *task.delete_files):
            _below(path, file.file_path)
    return tasks


def _below(path: Path, name: str) -> Path:
    """The file in the directory that an address of the metadata names."""
    file = _local(name)
    if file is None or not file.is_relative_to(path.resolve()):
        raise DigerError(f"{path}: is an Iceberg table that names a file elsewhere, {name}: {_EXPORT}")
    return path / file.relative_to(path.resolve())


def _local(address: str) -> Path | None:
    """None for an address of a store."""
    parsed = urlparse(address)
    if parsed.scheme not in ("", "file") or parsed.netloc not in ("", "localhost"):
        return None
    return Path(unquote(parsed.path) if parsed.scheme else address).resolve()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What pyiceberg, pydantic and pyarrow raise, as one line."""
    try:
        yield
    except DigerError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged metadata make these libraries raise anything
        told = " ".join(str(error).split())[:200]
        raise DigerError(f"{path}: is an Iceberg table that cannot be read ({told}): {_EXPORT}") from error
