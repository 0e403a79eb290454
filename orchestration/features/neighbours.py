"""Stage `neighbours`: item-to-item tables, what follows what and what reads like what (diger_core/data/neighbours.py).

`transitions` are counted from training events alone, `transitions_eve` up to the test period (temporal split), `transitions_end` from all events: the
first are judged, the last serve. `text` is of the whole catalogue, so an item has neighbours on the day it arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.data import splits
from diger_core.data.neighbours import ItemTable, empty_table, transitions, vector_neighbours
from diger_core.data.sequences import Sequences
from orchestration.features import encoders
from orchestration.features.encoders.text_neighbours import text_neighbours

if TYPE_CHECKING:
    from diger_core.evaluation.fusion import Counts
    from diger_core.store.artefacts import Artefact
    from orchestration.engine.stage_run import StageRun

FILE = "neighbours.safetensors"


def neighbours(run: StageRun) -> None:
    """Writes neighbours.safetensors: {table}.offsets, .items and .weights of each table."""
    config = run.params.neighbours
    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    tables = {"transitions": transitions(seq, config, run.progress), "text": _text(run)}
    if seq.boundaries is not None:
        tables["transitions_eve"] = transitions(splits.up_to(seq), config, run.progress)
    tables["transitions_end"] = transitions(splits.to_the_end(seq), config, run.progress)
    run.out.tensors(FILE, {name: tensor for table, found in tables.items() for name, tensor in found.to_tensors(table).items()})
    run.facts(items=seq.items, **{f"{name}_pairs": len(table.items_P) for name, table in tables.items()}, **_without(tables))


def _text(run: StageRun) -> ItemTable:
    """By the words of the items; by the vectors that the snapshot brings where there are no words."""
    items, config = run.inputs["validated_items"].table("items.parquet"), run.params.embeddings
    if config.encoder != "vectors":
        return text_neighbours(encoders.item_texts(items, config), run.params.neighbours)
    vectors_ND = run.inputs["embeddings"].tensors("vectors.safetensors")["vectors"]
    return vector_neighbours(vectors_ND, run.params.neighbours.text_keep) if len(vectors_ND) else empty_table(0)


def _without(tables: dict[str, ItemTable]) -> dict[str, int]:
    """Items that a table says nothing about."""
    return {f"items_without_{name}": int((tables[name].offsets_N1[1:] == tables[name].offsets_N1[:-1]).sum()) for name in ("transitions", "text")}


def read_table(artefact: Artefact, name: str) -> ItemTable:
    """One of the tables of a `neighbours` artefact."""
    return ItemTable.from_tensors(artefact.tensors(FILE), name)


def read_counts(artefact: Artefact, seq: Sequences, table: str = "transitions") -> Counts:
    """The tables and popularities that recipes count with; `table`: which transitions. `seq` must have the split that they were counted by."""
    from diger_core.evaluation.fusion import Counts

    tensors = artefact.tensors(FILE)
    return Counts.of(seq, ItemTable.from_tensors(tensors, table), ItemTable.from_tensors(tensors, "text"))
