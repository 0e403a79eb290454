"""A table's rows, batch by batch: text tables with every cell as text, Parquet files and directories with their own types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from diger_core.errors import DigerError
from diger_core.progress import Progress
from orchestration.snapshot.ingest.header import Header, TextFormat, directory_values, one_line, open_parquet
from orchestration.snapshot.ingest.iceberg import iceberg_batches, is_iceberg
from orchestration.snapshot.ingest.notes import EXAMPLE, Notes
from orchestration.snapshot.ingest.source import BATCH_ROWS, BLOCK_BYTES, Utf8, part_files, reading
from orchestration.snapshot.parts import together


def batches(path: Path, header: Header, text: TextFormat, columns: list[str], notes: Notes, progress: Progress) -> Iterator[pa.Table]:
    """Tables of `columns`, each of which the file has once."""
    if is_iceberg(path):
        yield from _iceberg(path, columns, progress)
    elif header.parquet:
        yield from _parquet(path, columns, progress)
    else:
        yield from _text(path, header, text, columns, notes, progress)


def _iceberg(path: Path, columns: list[str], progress: Progress) -> Iterator[pa.Table]:
    rows = 0
    for table in iceberg_batches(path, columns):
        rows += len(table)
        progress.update(f"reading {path.name} (rows)", rows, None)
        yield table


def _parquet(path: Path, columns: list[str], progress: Progress) -> Iterator[pa.Table]:
    parts = part_files(path) if path.is_dir() else [path]
    schema, rows = _schema(path, parts, columns), 0
    for part in parts:
        with open_parquet(part) as file:
            total = file.metadata.num_rows if part == path else None
            stored = set(file.schema_arrow.names)
            named = {column: value for column, value in directory_values(path, part).items() if column in columns and column not in stored}
            try:
                for batch in file.iter_batches(BATCH_ROWS, columns=[column for column in columns if column not in named]):
                    rows += len(batch)
                    progress.update(f"reading {path.name} (rows)", rows, total)
                    table = pa.Table.from_batches([batch])
                    for column, value in named.items():
                        table = table.append_column(column, pa.repeat(pa.scalar(value, pa.large_string()), len(batch)))
                    yield table.select(columns).cast(schema)
            except (pa.ArrowException, OSError) as error:
                raise DigerError(f"{part.name}: cannot be read after row {rows} ({one_line(error)}); export or download it again") from error


def _schema(path: Path, parts: list[Path], columns: list[str]) -> pa.Schema:
    """One type for each column that holds those of all parts: what the first part has is no measure, its values may all be missing."""
    found: dict[str, pa.Schema] = {}
    for part in parts:
        with open_parquet(part) as file:
            own = file.schema_arrow
            named = {column for column in directory_values(path, part) if column not in own.names}
            absent = [name for name in columns if name not in named and own.names.count(name) != 1]
            if absent:
                raise DigerError(f"{path.name}/{part.name}: column {absent[0]} is not there once, as in the other parts; write all parts alike")
            found[part.name if part == path else str(part.relative_to(path))] = pa.schema(
                [pa.field(name, pa.large_string()) if name in named else own.field(name) for name in columns]
            )
    return together(path.name, found).remove_metadata()


def _text(path: Path, header: Header, text: TextFormat, columns: list[str], notes: Notes, progress: Progress) -> Iterator[pa.Table]:
    """Every cell as text: an empty one is an empty text, and nothing is taken for a null or a number."""
    positions = {name: str(header.names.index(name)) for name in columns}
    cut = _Cut(path, len(header.names), notes, header=int(text.header))
    with reading(path, progress) as file:
        source = Utf8(file, text.encoding, text.option, ending=text.delimiter.join([_ENDING] * cut.width) + "\n")
        try:
            reader = pa_csv.open_csv(
                pa.PythonFile(source, "r"),
                pa_csv.ReadOptions(
                    block_size=BLOCK_BYTES,
                    use_threads=False,
                    column_names=[str(n) for n in range(cut.width)],
                    skip_rows_after_names=1 if text.header else 0,
                ),
                pa_csv.ParseOptions(
                    delimiter=text.delimiter,
                    quote_char='"' if text.quoted else False,
                    newlines_in_values=text.quoted,
                    invalid_row_handler=cut.wrong_width,
                ),
                pa_csv.ConvertOptions(
                    column_types={position: pa.large_string() for position in positions.values()},
                    strings_can_be_null=False,
                    include_columns=list(positions.values()),
                ),
            )
            for batch in reader:
                table = cut.without_ending(pa.Table.from_batches([batch]).rename_columns(columns))
                file.advance(cut.rows)
                yield _trimmed(table) if header.trim else table
        except pa.ArrowInvalid as error:
            raise cut.fault(error) from error
        except OSError as error:
            raise DigerError(f"{path.name}, after row {cut.rows}: cannot be read to its end ({one_line(error)}); download it again") from error
        if not cut.ended:
            raise cut.open_quote()
        if source.backslash_quotes and text.quoted:
            notes.say(
                f"{path.name}: a quote stands after a backslash; here a quote inside a cell is doubled and a backslash is a character like others, "
                "so where it was meant to protect the quote, export again with doubled quotes"
            )
        file.advance(cut.rows, finished=True)


_ENDING = "\x1eend\x1e"  # in every cell of a last line that no file has: it arrives whole unless a quote swallows it


@dataclass
class _Cut:
    """What was cut so far: `rows` of the file, whether its end was met as a line of its own, and how faults are told."""

    path: Path
    width: int
    notes: Notes
    rows: int = 0
    ended: bool = False
    swallowed: bool = False
    header: int = 1  # lines before the first row
    faulty: pa_csv.InvalidRow | None = None

    def wrong_width(self, row: pa_csv.InvalidRow) -> str:
        self.swallowed = self.swallowed or _ENDING in row.text
        if self.swallowed or not self.notes.drop_invalid:
            self.faulty = row
            return "error"
        self.notes.dropped[f"not {self.width} cells"] += 1
        return "skip"

    def without_ending(self, table: pa.Table) -> pa.Table:
        last = len(table) - 1
        if last >= 0 and all(table[name][last].as_py() == _ENDING for name in table.column_names):
            self.ended, table = True, table.slice(0, last)
        self.rows += len(table)
        return table

    def open_quote(self) -> DigerError:
        return DigerError(
            f"{self.path.name}: a quote that opens after row {max(self.rows - 1, 0)} is never closed, so the rest of the file would be one cell; "
            "close it, or double it where it belongs to the text"
        )

    def wrong_row(self, row: pa_csv.InvalidRow) -> DigerError:
        cells = f"{row.actual_columns} cell{'' if row.actual_columns == 1 else 's'} in place of {self.width}"
        cut = " (export or copy the file again where it was cut off there)" if row.actual_columns < self.width else ""
        return DigerError(
            f"{self.path.name}, row {row.number - self.header}: has {cells} ({row.text[:EXAMPLE]!r}); fix the row{cut}, pass --drop-invalid to leave "
            "such rows out, or check the delimiter"
        )

    def fault(self, error: Exception) -> DigerError:
        if self.swallowed:
            return self.open_quote()
        if "straddling" in str(error):
            return DigerError(
                f"{self.path.name}, after row {self.rows}: a row is longer than {BLOCK_BYTES:,} bytes; look for a quote that is never closed"
            )
        if self.faulty is not None:
            return self.wrong_row(self.faulty)
        remedy = "fix the row, pass --drop-invalid to leave such rows out, or check the delimiter"
        return DigerError(f"{self.path.name}, after row {self.rows}: {one_line(error)}; {remedy}")


def _trimmed(table: pa.Table) -> pa.Table:
    return pa.table({name: pc.utf8_trim_whitespace(table[name]) for name in table.column_names})
