"""Can it serve? The bundle is opened cold from the store, as a server would, and recommends."""

from __future__ import annotations

import numpy as np
import torch

from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.champion.bundle import Bundle, load_bundle
from orchestration.verdict.gate.document import Servability

TOP = 10


def servability(url: str, hash_: str, seq: Sequences, users: int, vectors_width: int) -> Servability:
    """{"passed", "message", "users"}: every fault that a server would meet is a reason, not a crash of the gate."""
    try:
        bundle = load_bundle(Store(url), hash_)  # a fresh store object: nothing that this process has verified before counts
        _round_trip(bundle)
        _inputs(bundle, vectors_width)
        decoded = _decode(bundle, seq, users)
    except DigerError as error:
        return {"passed": False, "message": str(error), "users": 0}
    return {"passed": True, "message": f"opened from the store; {decoded} users decoded, {len(bundle.item_ids)} IDs round-tripped", "users": decoded}


def _round_trip(bundle: Bundle) -> None:
    """Item -> tuple -> item, for every item, through the trie that serves."""
    from diger_core.recommender.trie import Trie

    model, table = bundle.recommender, bundle.table
    trie = Trie.from_table(table.codes_NM, table.suffix_N, model.codes, model.suffixes)
    back_N = trie.lookup(table.tuples.long())
    wrong_N = back_N != torch.arange(len(back_N))
    if bool(wrong_N.any()):
        item = bundle.item_ids[int(wrong_N.nonzero()[0])].as_py()
        raise DigerError(f"{int(wrong_N.sum())} items, the first is {item!r}, are not found again by their own ID: run semantic_ids again")


def _inputs(bundle: Bundle, vectors_width: int) -> None:
    """A new item's way to an ID: encoder, factors and tokenizer must fit."""
    wanted, given = bundle.tokenizer.dim, vectors_width + bundle.factors_NF.shape[1]
    if wanted != given:
        raise DigerError(f"the tokenizer takes vectors of width {wanted}, the encoder and the factors give {given}: run the tokenizer again")
    if not bundle.encoder_state.document.get("encoder"):
        raise DigerError("encoder.json does not say which encoder it is: run embeddings again")


def _decode(bundle: Bundle, seq: Sequences, users: int) -> int:
    """Lists for some users after all of their events: full, of real and distinct items, in falling order."""
    from diger_core.evaluation.ranking import recommended

    users_T = np.flatnonzero(np.diff(seq.offsets_U1) >= 1)[:users]
    top = min(TOP, len(bundle.item_ids))
    model, table = bundle.recommender, bundle.table
    items_Tk, scores_Tk = recommended(
        model, table.codes_NM, table.suffix_N, seq, users_T, seq.offsets_U1[users_T + 1], top, beams=2 * TOP,
        tokens_NTd=bundle.model.history_tokens(),
    )  # fmt: skip
    if not np.isfinite(scores_Tk).all() or (items_Tk < 0).any():
        raise DigerError(f"{int((items_Tk < 0).any(axis=1).sum())} of {len(users_T)} users get fewer than {top} items: train the model again")
    ordered_Tk = np.sort(items_Tk, axis=1)
    if (ordered_Tk[:, 1:] == ordered_Tk[:, :-1]).any() or (np.diff(scores_Tk, axis=1) > 0).any():
        raise DigerError("a user's list repeats an item or is out of order: the ID table is not sound")
    return len(users_T)
