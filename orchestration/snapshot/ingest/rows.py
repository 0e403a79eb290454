"""A table's rows, batch by batch: text tables with every cell as text, Parquet files and directories with their own types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.snapshot.ingest.header import Header, TextFormat, one_line, open_parquet
from orchestration.snapshot.ingest.notes import Notes
from orchestration.snapshot.ingest.source import BATCH_ROWS, BLOCK_BYTES, Utf8, part_files, reading


def batches(path: Path, header: Header, text: TextFormat, columns: list[str], notes: Notes, progress: Progress) -> Iterator[pa.Table]:
    """Tables of `columns`, each of which the file has once."""
    if header.parquet:
        yield from _parquet(path, columns, progress)
    else:
        yield from _text(path, header, text, columns, notes, progress)


def _parquet(path: Path, columns: list[str], progress: Progress) -> Iterator[pa.Table]:
    rows, schema = 0, None
    for part in part_files(path) if path.is_dir() else [path]:
        with open_parquet(part) as file:
            absent = [name for name in columns if file.schema_arrow.names.count(name) != 1]
            if absent:
                raise DigerError(f"{path.name}/{part.name}: column {absent[0]} is not there once, as in the other parts; write all parts alike")
            schema = schema or pa.schema([file.schema_arrow.field(name) for name in columns])
            total = file.metadata.num_rows if part == path else None
            try:
                for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                    rows += len(batch)
                    progress.update(f"reading {path.name} (rows)", rows, total)
                    yield pa.Table.from_batches([batch]).select(columns).cast(schema)
            except (pa.ArrowException, OSError) as error:
                raise DigerError(f"{part.name}: cannot be read after row {rows} ({one_line(error)}); export or download it again") from error


def _text(path: Path, header: Header, text: TextFormat, columns: list[str], notes: Notes, progress: Progress) -> Iterator[pa.Table]:
    """Every cell as text: an empty one is an empty text, and nothing is taken for a null or a number."""
    rows = 0
    positions = {name: str(header.names.index(name)) for name in columns}

    def wrong_width(_: pa_csv.InvalidRow) -> str:
        if not notes.drop_invalid:
            return "error"
        notes.dropped[f"not {len(header.names)} cells"] += 1
        return "skip"

    with reading(path, progress) as file:
        source = pa.PythonFile(Utf8(file, text.encoding, text.option), "r")
        try:
            reader = pa_csv.open_csv(
                source,
                pa_csv.ReadOptions(
                    block_size=BLOCK_BYTES,
                    use_threads=False,
                    column_names=[str(n) for n in range(len(header.names))],
                    skip_rows_after_names=1 if text.header else 0,
                ),
                pa_csv.ParseOptions(
                    delimiter=text.delimiter,
                    quote_char='"' if text.quoted else False,
                    newlines_in_values=text.quoted,
                    invalid_row_handler=wrong_width,
                ),
                pa_csv.ConvertOptions(
                    column_types={position: pa.large_string() for position in positions.values()},
                    strings_can_be_null=False,
                    include_columns=list(positions.values()),
                ),
            )
            for batch in reader:
                rows += len(batch)
                file.advance(rows)
                table = pa.Table.from_batches([batch]).rename_columns(columns)
                yield _trimmed(table) if header.trim else table
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                raise DigerError(
                    f"{path.name}, after row {rows}: a row is longer than {BLOCK_BYTES:,} bytes; look for a quote that is never closed"
                ) from error
            remedy = "fix the row, pass --drop-invalid to leave such rows out, or check the delimiter"
            raise DigerError(f"{path.name}, after row {rows}: {one_line(error)}; {remedy}") from error
        except OSError as error:
            raise DigerError(f"{path.name}, after row {rows}: cannot be read to its end ({one_line(error)}); download it again") from error
        file.advance(rows, finished=True)


def _trimmed(table: pa.Table) -> pa.Table:
    return pa.table({name: pc.utf8_trim_whitespace(table[name]) for name in table.column_names})
