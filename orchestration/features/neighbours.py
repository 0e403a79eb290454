"""Stage `neighbours`: item-to-item tables, what follows what and what reads like what (diger_core/data/neighbours.py).

`transitions` are counted from training events alone, `transitions_eve` up to the test, `transitions_end` from all events: the
first are judged, the last serve. `text` is of the whole catalogue, so an item has neighbours on the day it arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.data.neighbours import ItemTable, empty_table, transitions, vector_neighbours
from diger_core.data.sequences import Sequences
from orchestration.engine.blocks import in_blocks
from orchestration.features import encoders
from orchestration.features.encoders.text_neighbours import text_neighbours
from orchestration.features.neighbour_blocks import FILE, Sizes, counted_tables, write_in_blocks

if TYPE_CHECKING:
    from diger_core.evaluation.counts import Counts
    from diger_core.store.artefact import Artefact
    from orchestration.engine.stage_run import StageRun


def neighbours(run: StageRun) -> None:
    """Writes neighbours.safetensors: {table}.offsets, .items and .weights of each table."""
    seq, text = Sequences.from_arrays(run.inputs["sequences"].mapped("sequences.safetensors")), _text(run)
    write = write_in_blocks if in_blocks(run, len(seq.events_E)) else _write
    sizes = write(run, seq, text)
    names = [name for name in ("transitions", "text", "transitions_eve", "transitions_end") if name in sizes]
    without = {f"items_without_{name}": sizes[name].without for name in ("transitions", "text")}
    run.facts(items=seq.items, **{f"{name}_pairs": sizes[name].pairs for name in names}, **without)


def _write(run: StageRun, seq: Sequences, text: ItemTable) -> dict[str, Sizes]:
    """All items at once."""
    tables = {name: transitions(counted, run.params.neighbours, run.progress) for name, counted in counted_tables(seq).items()}
    tables["text"] = text
    run.out.tensors(FILE, {name: tensor for table, found in tables.items() for name, tensor in found.to_tensors(table).items()})
    return {name: Sizes.of(table) for name, table in tables.items()}


def _text(run: StageRun) -> ItemTable:
    """By the words of the items; by the vectors that the snapshot brings where there are no words."""
    items, config = run.inputs["validated_items"].table("items.parquet"), run.params.embeddings
    if config.encoder != "vectors":
        return text_neighbours(encoders.item_texts(items, config), run.params.neighbours)
    vectors_ND = run.inputs["embeddings"].tensors("vectors.safetensors")["vectors"]
    return vector_neighbours(vectors_ND, run.params.neighbours.text_keep) if len(vectors_ND) else empty_table(0)


def read_table(artefact: Artefact, name: str) -> ItemTable:
    """One of the tables of a `neighbours` artefact."""
    return ItemTable.from_tensors(artefact.tensors(FILE), name)


def counts_to_the_test(artefact: Artefact, seq: Sequences) -> Counts:
    """What a shop that counts every night would have when the test begins."""
    from diger_core.data.splits import up_to_test

    return read_counts(artefact, up_to_test(seq), "transitions_eve")


def read_counts(artefact: Artefact, seq: Sequences, table: str = "transitions") -> Counts:
    """The tables and popularities that recipes count with; `table`: which transitions. `seq` must have the split that they were counted by."""
    from diger_core.evaluation.counts import Counts

    tensors = artefact.tensors(FILE)
    return Counts.of(seq, ItemTable.from_tensors(tensors, table), ItemTable.from_tensors(tensors, "text"))
