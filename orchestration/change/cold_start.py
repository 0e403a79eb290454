"""Stage `cold_start`: IDs for the items that the champion lacks, under its tokenizer: seconds, and no existing ID changes.

The champion is the one that the snapshot found (orchestration/champion/baseline.py), whatever `retraining` says: a release in the same run must
not change what this stage's artefact belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diger_core.training.table_refresh import suffix_values
from orchestration.champion.bundle import load_bundle
from orchestration.champion.model_artefact import with_assignment
from orchestration.change.differences import refuse_remapped
from orchestration.change.new_ids import Child, child_assignment, encode_new

if TYPE_CHECKING:
    from orchestration.champion.bundle import Bundle
    from orchestration.engine.stage_run import StageRun

DOCUMENT = "cold_start.json"
ENCODED = "encoded.safetensors"  # z of the table's items, where the champion's model reads them


def cold_start(run: StageRun) -> None:
    """Writes cold_start.json and, where there is a champion, id_table.parquet (its whole table and the new items), new_items.parquet and,
    for soft history input, encoded.safetensors."""
    champion = run.inputs.get("champion")
    if champion is None:
        run.out.json(DOCUMENT, {"parent": None, "new_items": 0})
        run.facts(new_items=0)
        run.progress.message("cold_start: there is no champion yet, so no item has an ID to keep")
        return
    bundle = load_bundle(run.store, champion.hash)
    refuse_remapped(run, bundle)
    if (reason := _unreadable(run, bundle)) is not None:
        # The flow goes on: a retraining from scratch is the way to another encoder, and until its release the champion serves the items that it has.
        run.out.json(DOCUMENT, {"parent": None, "new_items": 0, "reason": reason})
        run.facts(new_items=0)
        run.progress.message(f"cold_start: no new item gets an ID under champion {champion.hash[:12]}: {reason}")
        return
    child = _child(run, bundle)
    hash_ = child.assignment
    run.out.table("id_table.parquet", with_assignment(child.arrow(), hash_), sort_by=("item_id",))
    run.out.table("new_items.parquet", child.arrow(new_only=True), sort_by=("item_id",))
    if child.z_Ne is not None:
        run.out.tensors(ENCODED, {"z": child.z_Ne})
    new = int(child.new_N.sum())
    document = {"parent": champion.hash, "parent_assignment": bundle.assignment_hash, "assignment_hash": hash_, "new_items": new}
    document["without_id"] = child.no_room
    run.out.json(DOCUMENT, {**document, "kept_items": len(child.item_ids) - new})
    run.facts(new_items=new, without_id=child.no_room, kept_items=len(child.item_ids) - new, assignment_hash=hash_, parent=champion.hash)
    run.progress.message(f"cold_start: {new:,} new items have IDs under champion {champion.hash[:12]}; {len(child.item_ids) - new:,} are unchanged")
    if child.no_room:
        run.progress.message(f"cold_start: {no_room(child, bundle)}")


def no_room(child: Child, bundle: Bundle) -> str:
    """What is to be said of the new items that got no ID."""
    return (
        f"{child.no_room:,} new items get no ID, because more items have one text, or none, than a prefix has suffixes "
        f"({suffix_values(bundle.tokenizer):,}): give them other texts, or retrain with retraining.start=scratch and more tokenizer.suffixes"
    )


def _unreadable(run: StageRun, bundle: Bundle) -> str | None:
    """Why the champion's tokenizer can read nothing of this snapshot; None where it can."""
    encoder, configured = bundle.encoder_state.document["encoder"], run.params.embeddings.encoder
    if run.inputs["embeddings"].facts["encoder_hash"] == bundle.components["encoder"] or configured == encoder:
        return None
    return f"it reads vectors of a {encoder} encoder, and embeddings.encoder is {configured}: retrain with retraining.start=scratch"


def _child(run: StageRun, bundle: Bundle) -> Child:
    """From the snapshot's vectors where the champion's own encoder made them, else from texts encoded again, of the new items alone."""
    embeddings = run.inputs["embeddings"]
    if embeddings.facts["encoder_hash"] == bundle.components["encoder"]:
        vectors_ND = embeddings.tensors("vectors.safetensors")["vectors"].numpy()
        return child_assignment(bundle, embeddings.table("texts.parquet")["item_id"], vectors_ND)
    items = run.inputs["validated_items"]
    given = items.table("vectors.parquet") if "vectors.parquet" in items.names else None
    ids, vectors_nD = encode_new(bundle, items.table("items.parquet"), run.params.embeddings, given)
    return child_assignment(bundle, ids, vectors_nD)
