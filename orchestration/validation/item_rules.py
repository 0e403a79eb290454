"""The row rules of items.parquet and vectors.parquet: types exactly or refused, bad rows to quarantine, canonical order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedItemsConfig
from orchestration.validation import columns
from orchestration.validation.quarantine import Check, Quarantine, Validated, absent, check, look_alikes, too_long, volume, with_control

STAGE, FILE, VECTORS = "validated_items", "items.parquet", "vectors.parquet"

REASONS = {
    "missing_id": "item_id is null or empty",
    "long_id": "item_id is longer than max_id_bytes",
    "long_text": "a text is longer than max_text_bytes",
    "duplicate_id": "item_id repeats an earlier item with other content",
    "equal_row": "the whole row repeats another one",
    "missing_vector": "vectors.parquet has no vector for it",
    "several_vectors": "vectors.parquet has several different vectors for it",
    "invalid_vector": "its vector holds NaN or infinite values",
}
CHECKS = (
    "items_left",
    "quarantined_share",
    *(f"quarantined_{key}" for key in REASONS),
    "volume",
    "text_missing",
    "equal_texts",
    "control_characters",
    "look_alike_ids",
    "vectors_of_unknown_items",
    "columns_ignored",
)


def validate_items(items: pa.Table, vectors: pa.Table | None, params: ValidatedItemsConfig, previous: Volume | None = None) -> Validated:
    """Applies the rules. Returns items by id (integers by value, text by UTF-8 bytes) with the text columns, and the vectors in the same order.

    Raises DigerError for what no quarantine can fix: columns that are missing, mistyped or not UTF-8, a catalogue of fewer than
    `min_items` rows, vectors of differing widths.
    """
    ids = columns.exact_ids(columns.column_of(items, FILE, "item_id"), FILE, "item_id")
    names = _text_columns(items, vectors, params)
    texts = {name: columns.text(columns.column_of(items, FILE, name), FILE, name) for name in names}
    if items.num_rows < params.min_items:
        raise DigerError(f"{FILE}: holds too few items, {items.num_rows}: a catalogue needs at least {params.min_items}; add the others")
    table = pa.table({"item_id": ids, **texts})
    quarantine = Quarantine(FILE, items.num_rows, REASONS)
    quarantine.mark("missing_id", absent(ids))
    quarantine.mark("long_id", too_long(ids, params.max_id_bytes))
    for column in texts.values():
        quarantine.mark("long_text", too_long(column, params.max_text_bytes))
    _mark_repeated(table, quarantine)
    matrix_ND, unknown_vectors = _match_vectors(ids, vectors, quarantine) if vectors is not None else (None, 0)

    kept = np.flatnonzero(quarantine.kept)
    order = kept[pc.sort_indices(columns.combined(ids.take(pa.array(kept)))).to_numpy()]
    table = table.take(pa.array(order))
    quarantined = quarantine.table(np.arange(items.num_rows), ids)
    ignored = [n for n in items.column_names if n != "item_id" and n not in texts]
    counts, checks = _findings(table, names, ignored, unknown_vectors, vectors is not None, params)
    left = table.num_rows >= params.min_items
    remedy = "" if left else f"; at least {params.min_items} are needed: fix the quarantined rows"
    checks = [
        check("items_left", left, "critical", f"{table.num_rows} of {items.num_rows} items left after quarantine{remedy}", observed=table.num_rows),
        *quarantine.found(quarantined).checks(FILE, REASONS, STAGE, params.max_quarantined),
        volume(FILE, STAGE, items.num_rows, previous, params),
        *checks,
    ]
    counts = {"rows": items.num_rows, "items": table.num_rows, "quarantined": quarantine.count, **quarantine.counts(), **counts}
    plain = pa.table({name: columns.plain(table[name]) for name in table.column_names})
    kept_vectors = None
    if matrix_ND is not None:
        kept_vectors = pa.table({"item_id": plain["item_id"], "vector": columns.vector_column(matrix_ND[order])})
    return Validated(plain, quarantined, checks, counts, kept_vectors)


def is_read(field: pa.Field, params: ValidatedItemsConfig) -> bool:
    """Whether the rules read this column: the id, and the texts that are asked for (all of them where none is named)."""
    named = params.text_columns
    return field.name == "item_id" or (columns.is_text(field.type) if named is None else field.name in named)


def _text_columns(items: pa.Table, vectors: pa.Table | None, params: ValidatedItemsConfig) -> list[str]:
    names = list(params.text_columns) if params.text_columns is not None else []
    if params.text_columns is None:
        names = [f.name for f in items.schema if f.name != "item_id" and columns.is_text(f.type)]
    for name in names:
        kind = columns.column_of(items, FILE, name).type
        if not columns.is_text(kind):
            raise DigerError(f"{FILE}: column {name} has type {kind}, {STAGE}.text_columns takes text only; write it as string or leave it out")
    if not names and params.require_text and vectors is None:
        raise DigerError(f"{FILE}: has no text column to embed; add one (title, description), bring {VECTORS}, or set {STAGE}.require_text=false")
    return names


def _mark_repeated(table: pa.Table, quarantine: Quarantine) -> None:
    """Of each item id keeps the row whose content comes first, never the row that happens to stand first in the file."""
    number = columns.combined(pc.dictionary_encode(table["item_id"]).combine_chunks())
    codes = pc.fill_null(number.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    codes[~quarantine.kept] = -1
    known = np.flatnonzero(codes >= 0)
    times = np.bincount(codes[known], minlength=len(number.dictionary))
    rows = known[times[codes[known]] > 1]
    if len(rows) == 0:
        return
    names = [n for n in table.column_names if n != "item_id"]
    numbered = [str(place) for place in range(len(names))]  # a file's own names might be any text
    content = table.take(pa.array(rows)).select(names).rename_columns(numbered).append_column("item", pa.array(codes[rows]))
    order = pc.sort_indices(content, sort_keys=[("item", "ascending"), *((n, "ascending") for n in numbered)]).to_numpy()
    content, rows = content.take(pa.array(order)), rows[order]
    later = np.zeros(len(rows), bool)
    later[1:] = codes[rows][1:] == codes[rows][:-1]
    equal = later.copy()
    for name in numbered:
        before, after = content[name].slice(0, len(rows) - 1), content[name].slice(1)
        both_null = pc.and_(pc.is_null(before), pc.is_null(after))
        equal[1:] &= pc.or_(pc.fill_null(pc.equal(before, after), False), both_null).to_numpy()
    for key, mask in (("equal_row", equal), ("duplicate_id", later & ~equal)):
        marked = np.zeros(table.num_rows, bool)
        marked[rows[mask]] = True
        quarantine.mark(key, marked)


def _match_vectors(ids: pa.ChunkedArray, vectors: pa.Table, quarantine: Quarantine) -> tuple[np.ndarray, int]:
    """float32 [rows of items.parquet, D] and the number of vectors whose item does not exist; marks items without one usable vector."""
    vector_ids = columns.exact_ids(columns.column_of(vectors, VECTORS, "item_id"), VECTORS, "item_id")
    matrix, present = columns.vectors(columns.column_of(vectors, VECTORS, "vector"), VECTORS, "vector")
    if columns.id_kind(ids.type) != columns.id_kind(vector_ids.type):
        raise DigerError(
            f"{VECTORS}: column item_id holds {columns.id_kind(vector_ids.type)} but that of {FILE} holds {columns.id_kind(ids.type)}; "
            "write both with one type"
        )
    unique = columns.combined(pc.unique(pc.drop_null(ids)))
    if len(unique) == 0:
        return matrix[np.zeros(len(ids), np.int64)], len(vector_ids)
    of_vector = index_of(vector_ids, unique)
    unknown = int(np.count_nonzero(of_vector < 0))
    of_vector[~present] = -1
    usable = np.flatnonzero(of_vector >= 0)
    first = np.full(len(unique), -1, np.int64)
    first[of_vector[usable][::-1]] = usable[::-1]
    other = np.zeros(len(unique), bool)
    repeated = usable[first[of_vector[usable]] != usable]
    one, another = matrix[repeated], matrix[first[of_vector[repeated]]]
    unlike = ~np.all((one == another) | (np.isnan(one) & np.isnan(another)), axis=1)
    other[of_vector[repeated[unlike]]] = True

    of_item = index_of(ids, unique)
    source = np.where(of_item >= 0, first[of_item], -1)
    quarantine.mark("missing_vector", (source < 0) & (of_item >= 0))
    quarantine.mark("several_vectors", (of_item >= 0) & other[of_item])
    matrix_ND = matrix[np.maximum(source, 0)]
    quarantine.mark("invalid_vector", (source >= 0) & ~np.isfinite(matrix_ND).all(axis=1))
    return matrix_ND, unknown


def _findings(
    table: pa.Table, names: list[str], ignored: list[str], unknown_vectors: int, has_vectors: bool, params: ValidatedItemsConfig
) -> tuple[dict[str, int], list[Check]]:
    """Counts and warnings about kept items."""
    n = max(table.num_rows, 1)
    blank = {name: pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(table[name])), 0), True).to_numpy() for name in names}
    without = int(np.logical_and.reduce(list(blank.values())).sum()) if names else table.num_rows
    partly = int(np.logical_or.reduce(list(blank.values())).sum()) if names else table.num_rows
    sharing, largest = _equal_texts(table, names, blank)
    control = max((with_control(table[name]) for name in table.column_names), default=0)
    alike = look_alikes(pc.unique(table["item_id"]))
    counts = {
        "items_without_text": without,
        "items_with_some_text_missing": partly,
        "items_with_equal_text": sharing,
        "largest_group_of_equal_texts": largest,
        "texts_with_control_characters": control,
        "look_alike_ids": alike,
        "vectors_of_unknown_items": unknown_vectors,
        **{f"without_{name}": int(mask.sum()) for name, mask in blank.items()},
    }
    named = ", ".join(f"{name} {int(mask.sum())}" for name, mask in blank.items())
    alone = "no item has text: IDs come from behaviour alone, and items without events cannot be told apart; add a text column (title, description)"
    missing = (
        alone
        if without == table.num_rows
        else f"{partly} items lack some text, {without} all of it (by column: {named or 'no text columns'}); they are kept"
    )
    checks = [
        check("text_missing", has_vectors or partly == 0, "warning", missing, observed=partly),
        check(
            "equal_texts",
            sharing <= params.warn_equal_texts * n,
            "warning",
            f"{sharing} items share their whole text with another one, at most {largest} one text; they are kept, only suffixes tell them apart",
            observed=sharing,
        ),
        check(
            "control_characters",
            control == 0,
            "warning",
            f"{control} texts hold control or bidirectional characters; kept as they are",
            observed=control,
        ),
        check("look_alike_ids", alike == 0, "warning", f"{alike} item ids look like another one (NFKC, spaces); kept apart", observed=alike),
        check(
            "vectors_of_unknown_items",
            unknown_vectors == 0,
            "warning",
            f"{unknown_vectors} vectors of {VECTORS} belong to no item; left out",
            observed=unknown_vectors,
        ),
        check("columns_ignored", True, "info", f"columns of {FILE} that are not used: {', '.join(ignored) or 'none'}", observed=len(ignored)),
    ]
    return counts, checks


def _equal_texts(table: pa.Table, names: list[str], blank: dict[str, np.ndarray]) -> tuple[int, int]:
    """How many items have the same text in every column as another one, and the size of the largest such group. Items without text don't count."""
    if not names or table.num_rows == 0:
        return 0, 0
    some = pa.array(~np.logical_and.reduce(list(blank.values())))
    grouped = table.select(names).filter(some).group_by(names, use_threads=False).aggregate([([], "count_all")])["count_all"].to_numpy()
    return int(grouped[grouped > 1].sum()), int(grouped.max(initial=0))
