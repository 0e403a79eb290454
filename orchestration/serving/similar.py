"""Items like an item, from the `neighbours` artefact: what `diger similar` prints, and the item-to-item export.

What follows what is counted over all events (`transitions_end`), what reads like what over the whole catalogue: a new item has neighbours by text
at once.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.data.neighbours import ItemTable, similar
from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from diger_core.progress import Progress
from diger_core.store.artefact import Artefact
from diger_core.store.owner import abandoned, signature
from orchestration.features.neighbours import read_table
from orchestration.serving.titles import Titles

Kind = Literal["transitions", "text", "both"]
KINDS: tuple[Kind, ...] = ("transitions", "text", "both")
TABLES = {"transitions": "transitions_end", "text": "text"}
CHUNK = 20_000  # items of the export that are ranked at once
NAMED = 3  # unknown items that a message names
NOBODY = {
    "transitions": "nobody took another item within neighbours.window events of it: --kind text goes by its words",
    "text": "no other item shares a word with it: --kind transitions goes by what people do",
    "both": "it has neither events beside other items nor a text that shares a word with another item's",
}


class Neighbour(TypedDict):
    """One neighbour; `title` is null where the catalogue has no text."""

    item_id: int | str
    title: str | None
    score: float


class Answer(TypedDict):
    """What is known of one item; `why` says what is missing where there are no neighbours."""

    item_id: int | str
    title: str | None
    neighbours: list[Neighbour]
    why: str | None


@dataclass(frozen=True)
class SimilarItems:
    """The tables of one snapshot. `text_weight`: of the neighbours by text beside the transitions, where both are asked for."""

    item_ids: pa.ChunkedArray
    titles: pa.ChunkedArray | None  # in the order of item_ids
    tables: dict[str, ItemTable]
    text_weight: float = 0.7

    @classmethod
    def of(cls, sequences: Artefact, validated_items: Artefact, neighbours: Artefact, text_weight: float) -> SimilarItems:
        """Opens the artefacts of one snapshot."""
        tables = {kind: read_table(neighbours, name) for kind, name in TABLES.items()}
        item_ids = sequences.table("items.parquet")["item_id"]
        return cls(item_ids, Titles.of(validated_items).beside(item_ids), tables, text_weight)

    def holds(self, item: str) -> bool:
        """Whether an item of the catalogue has this very id, as text."""
        return bool(pc.any(pc.equal(pc.cast(self.item_ids, pa.string()), item)).as_py())

    def answers(self, ids: pa.Array, k: int, kind: Kind) -> tuple[list[Answer], DigerError | None]:
        """(an answer for each id that the catalogue has, in their order; the error that counts and names the others, or None)."""
        row_Q = index_of(ids, self.item_ids)
        unknown = self._unknown(ids.filter(pa.array(row_Q < 0)).to_pylist(), len(ids))
        row_q = row_Q[row_Q >= 0].astype(np.int32)
        if not len(row_q):
            return [], unknown
        found_qk, score_qk = self._ranked(row_q, k, kind)
        made: list[Answer] = []
        for item, found_k, score_k in zip(row_q, found_qk, score_qk, strict=True):
            listed = [self._neighbour(int(at), float(score)) for at, score in zip(found_k, score_k, strict=True) if at >= 0]
            made.append({"item_id": self.item_ids[int(item)].as_py(), "title": self._title(int(item)), "neighbours": listed,
                         "why": None if listed else NOBODY[kind]})  # fmt: skip
        return made, unknown

    @staticmethod
    def _unknown(ids: list[int | str], asked: int) -> DigerError | None:
        if not ids:
            return None
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        return DigerError(
            f"{len(ids)} of {asked} items {'is' if len(ids) == 1 else 'are'} not in the snapshot's catalogue: "
            f"{', '.join(map(repr, ids[:NAMED]))}{more}: check the spelling, or name their snapshot (--snapshot)"
        )

    def tables_of(self, k: int, kind: Kind) -> Iterator[pa.Table]:
        """The whole catalogue, some items at a time: item_id, similar_id, rank (1 first), score."""
        items = len(self.item_ids)
        for start in range(0, items, CHUNK):
            row_q = np.arange(start, min(start + CHUNK, items), dtype=np.int32)
            found_qk, score_qk = self._ranked(row_q, k, kind)
            at, place = np.nonzero(found_qk >= 0)
            ids = [self.item_ids.take(pa.array(index)).combine_chunks() for index in (row_q[at], found_qk[at, place])]
            yield pa.table({"item_id": ids[0], "similar_id": ids[1], "rank": (place + 1).astype(np.int32), "score": score_qk[at, place]})

    def export(self, path: Path, k: int, kind: Kind, progress: Progress) -> dict[str, int]:
        """Writes the whole catalogue's neighbours to `path`, in its place only when complete; {"items", "without", "pairs"}."""
        if not path.parent.is_dir():
            raise DigerError(f"--out {path}: no directory {path.parent}: make it first")
        items, pairs, having, done = len(self.item_ids), 0, 0, 0
        for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
            if abandoned(left.name):
                left.unlink(missing_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{signature()}.")
        os.close(handle)
        try:
            writer = None
            for table in self.tables_of(k, kind):
                writer = writer or pq.ParquetWriter(beside, table.schema, compression="zstd")
                writer.write_table(table)
                pairs, having = pairs + table.num_rows, having + int((table["rank"].to_numpy() == 1).sum())
                done = min(done + CHUNK, items)
                progress.update("similar items", done, items)
            if writer is None:
                raise DigerError("the snapshot has no items: there is nothing to write")
            writer.close()
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        finally:
            Path(beside).unlink(missing_ok=True)
        return {"items": items, "without": items - having, "pairs": pairs}

    def _ranked(self, row_Q: np.ndarray, k: int, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
        weights = {"transitions": 1.0, "text": self.text_weight if kind == "both" else 1.0}
        chosen = [(self.tables[name], weight) for name, weight in weights.items() if kind in (name, "both")]
        return similar(chosen, row_Q, min(k, max(1, len(self.item_ids))))

    def _neighbour(self, item: int, score: float) -> Neighbour:
        return {"item_id": self.item_ids[item].as_py(), "title": self._title(item), "score": round(score, 6)}

    def _title(self, item: int) -> str | None:
        return None if self.titles is None else self.titles[item].as_py()
