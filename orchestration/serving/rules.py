"""Business rules, applied to one catalogue: which items may be listed, how many of one kind, and whose scores are raised.

Allow, deny and conditions limit the trie and the counts, so an item that may not be listed takes no beam from another one. N items, R rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.data.sequences import Bool, Float32, Int32, Int64
from diger_core.errors import DigerError
from diger_core.item_ids import index_of
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.store.canonical import canonical_json, digest
from diger_core.store.content_hash import table_hash
from diger_core.store.record import Record
from orchestration.params.rules import AtMost, Boost, Condition, RulesConfig
from orchestration.serving.given_ids import first_of, read_ids

NAMED = 3  # unknown ids that a message names


class ToldRule(TypedDict):
    """A rule as outputs name it. `items`: how many it leaves out, or, of a boost, raises; of at_most: how many it counts."""

    rule: str
    items: int


@dataclass(frozen=True)
class Rules:
    """The configured rules with the ids of their files, which are read once."""

    config: RulesConfig = RulesConfig()
    allow: pa.Array | None = None
    deny: pa.Array | None = None

    @classmethod
    def read(cls, config: RulesConfig, kind: pa.DataType) -> Rules:
        """`kind`: the type of the catalogue's ids. DigerError where a file is missing or holds something else."""
        ids = {
            key: read_ids((name,), "item_id", kind, f"rules.{key}", only_files=True) for key in ("allow", "deny") if (name := getattr(config, key))
        }
        return cls(config, ids.get("allow"), ids.get("deny"))

    @classmethod
    def of(cls, config: RulesConfig, stored: Artefact | None) -> Rules:
        """The rules with the ids that an artefact holds (`stored`), None where they name no files."""
        names = [] if stored is None else stored.names
        ids = {key: stored.table(f"{key}.parquet")["item_id"].combine_chunks() for key in ("allow", "deny") if stored and f"{key}.parquet" in names}
        return cls(config, ids.get("allow"), ids.get("deny"))

    @property
    def key(self) -> str:
        """SHA-256 of the rules and of what their files hold."""
        ids = ["all" if column is None else table_hash(pa.table({"id": column}), ("id",)) for column in (self.allow, self.deny)]
        return digest("rules", canonical_json(asdict(self.config)), *ids)

    def _among(self, items: pa.Array, item_ids: pa.ChunkedArray) -> Bool:
        named_N = _named(items, item_ids)
        if not named_N.any():
            first = ", ".join(repr(item) for item in items[:NAMED].to_pylist())
            raise DigerError(f"--items: none of its {len(items)} items ({first}, …) is in the catalogue: check the ids and their type")
        return named_N

    def stored(self, store: Store, publish: bool) -> Artefact | None:
        """The ids of the files as an artefact, for the records of what was made by them; None where there is none yet and `publish` is off."""
        found = store.lookup("rules", self.key)
        if found is not None or not publish:
            return found
        started = datetime.now(UTC)
        with store.writer("rules") as out:
            for key, ids in (("allow", self.allow), ("deny", self.deny)):
                if ids is not None:
                    out.table(f"{key}.parquet", pa.table({"item_id": ids}), sort_by=("item_id",))
                    out.facts[key] = len(ids)
            made = store.publish(out)
        record: Record = {"artefact": made.hash, "manifest": made.manifest_hash, "inputs": {}, "params": {"rules": asdict(self.config)},
                          "started_at": started.isoformat(), "seconds": 0.0}  # fmt: skip
        store.append_record("rules", self.key, record)
        return made

    def on(self, item_ids: pa.ChunkedArray, validated_items: Artefact, codes_NM: Int32, items: pa.Array | None = None) -> Applied:
        """The rules for these items. codes_NM: their codes, -1 in the rows of items without a semantic ID. `items`: only these, beside the rules.

        DigerError where a rule names what is not there, or no item is left.
        """
        columns = _Columns(item_ids, validated_items)
        allowed_N, told, warnings = np.ones(len(item_ids), dtype=bool), [], []
        for key, ids, kept in (("allow", self.allow, True), ("deny", self.deny, False)):
            if ids is not None:
                named_N = _named(ids, item_ids)
                passed_N = named_N if kept else ~named_N
                allowed_N &= passed_N
                told.append(_told(f"{key} {Path(str(getattr(self.config, key))).name}", ~passed_N))
                warnings += _unmatched(ids, item_ids, str(getattr(self.config, key)), key)
        for text in self.config.where:
            passed_N = columns.holds(Condition.parse(text), f"rules.where {text!r}")
            allowed_N &= passed_N
            told.append(_told(f"where {text}", ~passed_N))
        if not allowed_N.any():
            raise DigerError(f"rules leave none of the {len(item_ids):,} items: {'; '.join(each['rule'] for each in told)}: correct them")
        if items is not None:
            allowed_N &= self._among(items, item_ids)
        if not allowed_N.any():
            raise DigerError("--items: the rules leave none of its items: give others, or correct the section rules")
        limits = []
        for text in self.config.at_most:
            rule = AtMost.parse(text)
            group_N = _prefixes(codes_NM, rule, text) if rule.levels else columns.groups(str(rule.column), f"rules.at_most {text!r}")
            limits.append((rule.most, group_N))
            told.append(_told(f"at most {text}", group_N >= 0))
        factor_N = np.ones(len(item_ids), dtype=np.float32)
        for text in self.config.boost:
            boost = Boost.parse(text)
            raised_N = columns.holds(boost.condition, f"rules.boost {text!r}")
            factor_N[raised_N] *= np.float32(boost.factor)
            told.append(_told(f"boost {text}", raised_N))
        return Applied(allowed_N, factor_N if self.config.boost else None, tuple(limits), tuple(told), tuple(warnings))


@dataclass(frozen=True)
class Applied:
    """allowed_N: what may be listed. factor_N: of the scores, or None. `limits`: (n, group of each item, -1 for one that is not counted).

    `warnings`: of files, which ids name no item."""

    allowed_N: Bool
    factor_N: Float32 | None
    limits: tuple[tuple[int, Int32], ...]
    told: tuple[ToldRule, ...]
    warnings: tuple[str, ...] = ()

    @property
    def reorders(self) -> bool:
        """Whether a list is more than the best k of what is allowed."""
        return self.factor_N is not None or bool(self.limits)

    def boosted(self, items_TW: Int32, scores_TW: Float32) -> tuple[Int32, Float32]:
        """Lists by falling boosted score, equal scores by item; -1 stays at the end."""
        if self.factor_N is None:
            return items_TW, scores_TW
        scores_TW = np.where(items_TW >= 0, scores_TW * self.factor_N[items_TW], np.float32(-np.inf))
        order_TW = np.lexsort((items_TW, -scores_TW), axis=1)
        return np.take_along_axis(items_TW, order_TW, axis=1), np.take_along_axis(scores_TW, order_TW, axis=1)

    def standing(self, items: Iterable[int], k: int, held: Sequence[int] = ()) -> Iterator[tuple[int, int]]:
        """(place, item) of the first items that may stand together in a list of k, beside those that it holds already."""
        counts: list[dict[int, int]] = [{} for _ in self.limits]
        for item in held:
            self._count(counts, item)
        free = k - len(held)
        for place, item in enumerate(items):
            if free <= 0:
                return
            if all(count.get(int(group_N[item]), 0) < most for count, (most, group_N) in zip(counts, self.limits, strict=True)):
                yield place, item
                free -= 1
                self._count(counts, item)

    @cached_property
    def reach(self) -> int:
        """How long a list can be: what may be listed, cut by each limit alone."""
        lengths = [int(self.allowed_N.sum())]
        for most, group_N in self.limits:
            group_n = group_N[self.allowed_N]
            counted = np.bincount(group_n[group_n >= 0])
            lengths.append(int(np.minimum(counted, most).sum()) + int((group_n < 0).sum()))
        return min(lengths)

    def full_N(self, held: Iterable[int]) -> Bool:
        """[N]: items that may not join a list that holds these."""
        full_N = np.zeros(len(self.allowed_N), dtype=bool)
        held_h = np.fromiter(held, dtype=np.int64)
        for most, group_N in self.limits:
            groups, many = np.unique(group_N[held_h], return_counts=True)
            full_N |= np.isin(group_N, groups[(many >= most) & (groups >= 0)])
        return full_N

    def _count(self, counts: list[dict[int, int]], item: int) -> None:
        for count, (_, group_N) in zip(counts, self.limits, strict=True):
            group = int(group_N[item])
            if group >= 0:
                count[group] = count.get(group, 0) + 1


def _named(ids: pa.Array, item_ids: pa.ChunkedArray) -> Bool:
    """[N]: the items that `ids` names."""
    named_N = np.zeros(len(item_ids), dtype=bool)
    place = index_of(ids, item_ids)
    named_N[place[place >= 0]] = True
    return named_N


def _unmatched(ids: pa.Array, item_ids: pa.ChunkedArray, name: str, key: str) -> list[str]:
    """A warning, where ids of a rule's file name no item: some may have left the catalogue, others are written otherwise than there."""
    unknown = ids.filter(pa.array(index_of(ids, item_ids) < 0))
    if not len(unknown):
        return []
    some = f"{len(unknown):,} of {len(ids):,} ids name" if len(ids) > 1 else "its only id names"
    first = first_of(name, "item_id", unknown)
    return [
        f"rules.{key} {name}: {some} no item of the catalogue, the first: {first}; where the item is not just gone, write it as the catalogue does"
    ]


def _told(rule: str, items_N: Bool) -> ToldRule:
    return {"rule": rule, "items": int(items_N.sum())}


def _prefixes(codes_NM: Int32, rule: AtMost, text: str) -> Int32:
    levels = codes_NM.shape[1]
    if rule.levels is None or rule.levels > levels:
        raise DigerError(f"rules.at_most {text!r}: the champion's semantic IDs have {levels} codes: give a prefix of 1 to {levels}")
    _, group_N = np.unique(codes_NM[:, : rule.levels], axis=0, return_inverse=True)
    return np.where(codes_NM[:, 0] >= 0, group_N.reshape(-1), -1).astype(np.int32)


class _Columns:
    """Columns of the catalogue in the order of `item_ids`, read when a rule names them."""

    def __init__(self, item_ids: pa.ChunkedArray, validated_items: Artefact) -> None:
        self._item_ids, self._artefact = item_ids, validated_items

    def holds(self, condition: Condition, rule: str) -> Bool:
        """[N]. Of a list, one element is enough. An item without a value has none of the values."""
        column = self._column(condition.column, rule)
        kind = column.type.value_type if _is_list(column.type) else column.type
        try:
            wanted = pa.scalar(condition.value).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DigerError(f"{rule}: column {condition.column} is of type {kind}, {condition.value!r} is not: correct the rule") from error
        equal_N = np.zeros(len(column), dtype=bool)
        if _is_list(column.type):
            rows, values = pc.list_parent_indices(column), pc.list_flatten(column)
            equal_N[rows.filter(pc.fill_null(pc.equal(values, wanted), False)).to_numpy()] = True
        else:
            equal_N = pc.fill_null(pc.equal(column, wanted), False).to_numpy(zero_copy_only=False)
        return ~equal_N if condition.negated else equal_N

    def groups(self, name: str, rule: str) -> Int32:
        """[N]: the number of each item's value, -1 where it has none."""
        column = self._column(name, rule)
        if _is_list(column.type):
            raise DigerError(f"{rule}: column {name} holds lists: name a column with one value for each item")
        codes: Int64 = pc.fill_null(column.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
        return codes.astype(np.int32)

    def _column(self, name: str, rule: str) -> pa.Array:
        path = self._artefact.path("items.parquet")
        there = pq.read_schema(path).names
        if name not in there:
            raise DigerError(f"{rule}: the catalogue has no column {name!r}; it has {', '.join(each for each in there if each != 'item_id')[:300]}")
        items = pq.read_table(path, columns=["item_id", name])
        column = items[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.take(pa.array(index_of(self._item_ids, items["item_id"])))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
