"""Events of more than one block: surveyed, put under the row rules and split by users block by block, then ordered users by users.

Three passes over workers: blocks of the file's rows are surveyed; the same blocks meet the rules, and their kept rows are split by ranges of user
ids; each range of users is ordered, counted and checked. Great Expectations sees one block, or one range, at a time. The driver holds one of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from diger_core.store.row_groups import RowGroupWriter, read_rows
from orchestration.engine.blocks import Blocks, blocks_of
from orchestration.params.data import ValidatedInteractionsConfig
from orchestration.snapshot.parts import not_parquet
from orchestration.validation import columns, expectations
from orchestration.validation.date_numbers import TimeNumbers
from orchestration.validation.interaction_columns import COLUMNS, FILE, OPTIONAL, STAGE, Columns, Survey, read, survey
from orchestration.validation.interaction_rules import Findings, distinct_ids, findings, ordered, quarantined_part, rule_results
from orchestration.validation.outcomes import Outcome, Outcomes
from orchestration.validation.quarantine import Check, Quarantined, plain_forms

if TYPE_CHECKING:
    from orchestration.engine.registry import Volume
    from orchestration.engine.stage_run import StageRun

SAMPLE = 1000  # users' ids of a block, from which the ranges are chosen


@dataclass(frozen=True)
class Request:
    """What a worker needs. From the second pass on: the survey of the whole file, and where the ranges of users are cut; in the third, where each
    block's rows of each range begin."""

    interactions: str
    items: str
    params: ValidatedInteractionsConfig
    previous: Volume | None
    rows: tuple[tuple[int, int], ...]
    blocks: Blocks
    now: float  # Unix seconds: one moment for all workers
    survey: Survey = Survey()
    cuts: pa.Array | None = None
    begins: tuple[tuple[int, ...], ...] = ()


class _Worker:
    """Opens the artefacts once."""

    def __init__(self, request: Request):
        store = Store(request.blocks.url)
        self.request = request
        self.path = store.artefact("raw_interactions", request.interactions).path(FILE)
        self.known = columns.decoded(store.artefact("validated_items", request.items).table("items.parquet", columns=["item_id"])["item_id"])

    def read(self, block: int) -> pa.Table:
        try:
            with pq.ParquetFile(self.path) as file:
                names = [name for name in file.schema_arrow.names if name in COLUMNS]
                return read_rows(file, *self.request.rows[block], names)
        except (pa.ArrowException, OSError) as error:
            raise DigerError(not_parquet(self.path.name, error)) from error


class Surveyed(_Worker):
    """First pass: what a block's columns hold, its part of the suite `received`, and some of its users' ids."""

    def __call__(self, block: int) -> pa.Table:
        rows, params = self.read(block), self.request.params
        found = survey(rows, self.known, params)
        outcomes = expectations.received_outcomes(rows, params, self.request.previous)
        ids = pc.drop_null(columns.exact_ids(rows["user_id"], FILE, "user_id"))
        sample = ids.take(pa.array(np.arange(0, len(ids), max(1, len(ids) // SAMPLE))))
        told = {
            "survey": {**asdict(found), "unsigned": sorted(found.unsigned), "event_types": sorted(found.event_types)},
            "outcomes": _plain(outcomes),
        }
        return _told(told).append_column("sample", pa.array([sample.to_pylist()], pa.large_list(sample.type)))


class Ruled(_Worker):
    """Second pass: a block's quarantine, and its kept rows by ranges of users."""

    def __call__(self, block: int) -> pa.Table:
        request = self.request
        first, _ = request.rows[block]
        part = quarantined_part(read(self.read(block), request.params, request.survey, first), self.known, request.params, request.now)
        request.blocks.write(f"quarantine-{block}.parquet", partial(pq.write_table, part.table))
        kept = pa.array(part.kept)
        given = part.given
        optional = {"pos": given.pos, "timestamp": given.timestamp, "event_type": given.event_type}
        taken = {"user_id": given.users.take(kept), "item": pa.array(part.item_E[part.kept].astype(np.int32))}
        taken |= {name: column.take(kept) for name, column in optional.items() if column is not None}
        taken |= {} if given.weight is None else {"weight": pa.array(given.weight[part.kept])}
        range_E = _ranges(taken["user_id"], request.cuts)
        order_E = np.argsort(range_E, kind="stable")
        many = np.bincount(range_E, minlength=_count(request.cuts))
        request.blocks.write(f"rows-{block}.parquet", partial(_write_sorted, pa.table(taken).take(pa.array(order_E))))
        return _told({"begins": [0, *np.cumsum(many).tolist()], "quarantined": asdict(part.found)})


class Ordered(_Worker):
    """Third pass: the events of a range of users in their order, what is found about them, and their part of the suite `kept`."""

    def __call__(self, place: int) -> pa.Table:
        request, parts = self.request, []
        for block, begins in enumerate(request.begins):
            with request.blocks.parquet(f"rows-{block}.parquet") as file:
                parts.append(read_rows(file, begins[place], begins[place + 1]))
        rows = pa.concat_tables(parts)
        item_E = rows["item"].to_numpy()
        pos, timestamp, event_type, weight = (rows[name] if name in rows.column_names else None for name in OPTIONAL)
        given = Columns(
            np.arange(len(rows)), rows["user_id"], rows["user_id"], pos, timestamp, None, event_type, None if weight is None else weight.to_numpy()
        )
        table, user_E, item_E = ordered(given, item_E, self.known, np.arange(len(rows)))
        request.blocks.write(f"events-{place}.parquet", partial(_write_sorted, table))
        seen_N = np.zeros(len(self.known), dtype=bool)
        seen_N[item_E] = True
        ids = distinct_ids(table["user_id"])
        forms = plain_forms(ids)
        changed = forms.filter(pc.not_equal(forms, ids))
        request.blocks.write(f"found-{place}.parquet", partial(pq.write_table, pa.table({"seen": [np.packbits(seen_N).tobytes()]})))
        request.blocks.write(f"forms-{place}.parquet", partial(pq.write_table, pa.table({"form": pc.unique(changed)})))
        outcomes = expectations.kept_outcomes(table, self.known, request.params, request.now)
        found = asdict(findings(table, user_E, item_E, len(self.known)))
        return _told({"findings": found, "changed": len(changed), "outcomes": _plain(outcomes)})


def _told(value: dict[str, Any]) -> pa.Table:
    return pa.table({"told": [json.dumps(value)]})


def _plain(outcomes: Outcomes) -> dict[str, Any]:
    return {name: None if outcome is None else asdict(outcome) for name, outcome in outcomes.items()}


def _outcomes(told: dict[str, Any]) -> Outcomes:
    return {name: None if outcome is None else Outcome(**outcome) for name, outcome in told.items()}


def _write_sorted(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=1 << 17)


def _count(cuts: pa.Array | None) -> int:
    return 1 + (0 if cuts is None else len(cuts))


def _ranges(users: pa.ChunkedArray, cuts: pa.Array | None) -> np.ndarray:
    """[E]: the range of each user: how many cuts are not above its id."""
    if cuts is None or not len(cuts) or not len(users):
        return np.zeros(len(users), dtype=np.int64)
    encoded = columns.combined(pc.dictionary_encode(users).combine_chunks())
    ids, at = _comparable(encoded.dictionary), _comparable(cuts)
    range_E: np.ndarray = np.searchsorted(at, ids, side="right")[encoded.indices.to_numpy()]
    return range_E


def _comparable(ids: pa.Array) -> np.ndarray:
    """Integers, or Python's texts, whose order is that of their UTF-8 bytes."""
    return np.array(ids.to_pylist(), dtype=object) if columns.is_text(ids.type) else ids.to_numpy()


def _cuts(samples: Iterable[pa.ChunkedArray], kind: pa.DataType, ranges: int) -> pa.Array:
    """Ids at which users are parted, so that the ranges hold about as many events."""
    ids = columns.combined(pa.chunked_array([chunk.cast(kind) for sample in samples for chunk in sample.chunks], type=kind))
    ids = ids.take(pc.sort_indices(ids))
    return pc.unique(ids.take(pa.array([place * len(ids) // ranges for place in range(1, ranges)], pa.int64()))) if len(ids) else ids


def validate_in_blocks(run: StageRun, rows: int) -> tuple[dict[str, int], list[Check]]:
    """Writes the same interactions.parquet and quarantine.parquet as all rows at once give; returns their counts and checks."""
    params, size = run.params.validated_interactions, run.params.cluster.block_events
    raw, items = run.inputs["raw_interactions"], run.inputs["validated_items"]
    with pq.ParquetFile(raw.path(FILE)) as file:
        schema = file.schema_arrow
    for name in (*COLUMNS[:2], *(name for name in OPTIONAL if name in schema.names)):
        columns.column_of(schema.empty_table(), FILE, name)  # refuses one that is missing or there twice
    ranges = tuple((start, min(start + size, rows)) for start in range(0, rows, size))
    with blocks_of(run) as blocks:
        request = Request(raw.hash, items.hash, params, run.snapshot.previous_of(FILE), ranges, blocks, time.time())
        return _Passes(run, request, schema.names).results()


class _Passes:
    """The three passes, and what comes of them."""

    def __init__(self, run: StageRun, request: Request, names: list[str]):
        self.run, self.request, self.names = run, request, names
        self.done, self.steps = 0, 3 * len(request.rows)

    def _each(self, make: Callable[[Request], Callable[[int], pa.Table]], count: int) -> list[tuple[dict[str, Any], pa.Table]]:
        from orchestration.on_ray.data import map_shards

        found: dict[int, pa.Table] = {}

        def keep(block: int, row: pa.Table) -> None:
            found[block] = row
            self.done += 1
            self.run.progress.update(STAGE, self.done, self.steps)

        map_shards(make, (self.request,), range(count), self.run.params.cluster, keep, self.run.progress, STAGE)
        return [(json.loads(found[block]["told"][0].as_py()), found[block]) for block in range(count)]

    def results(self) -> tuple[dict[str, int], list[Check]]:
        request = self.request
        surveyed = self._each(Surveyed, len(request.rows))
        surveys = [_survey(told["survey"]) for told, _ in surveyed]
        found = sum(surveys, Survey())
        found.refuse(self.names, request.params)
        samples = [table["sample"].combine_chunks().flatten() for _, table in surveyed]
        cuts = _cuts((pa.chunked_array([sample]) for sample in samples), _id_type(found, samples), len(request.rows))
        self.request = request = replace(request, survey=found, cuts=cuts)
        self.steps = 2 * len(request.rows) + _count(cuts)

        ruled = [told for told, _ in self._each(Ruled, len(request.rows))]
        quarantined = [_quarantined(told["quarantined"]) for told in ruled]
        self.request = request = replace(request, begins=tuple(tuple(told["begins"]) for told in ruled))

        told = [told for told, _ in self._each(Ordered, _count(cuts))]
        parts = [Findings(**each["findings"]) for each in told]
        about = self._about(parts, sum(each["changed"] for each in told))
        self._write()
        self.run.note(blocks=len(request.rows), workers=self.run.params.cluster.workers)

        items = int(self.run.inputs["validated_items"].facts["items"])
        whole = quarantined[0]
        for each in quarantined[1:]:
            whole += each
        counts, checks = rule_results(found, whole, about, items, self.names, request.params, request.previous)
        received = [(each.rows, _outcomes(row["outcomes"])) for each, (row, _) in zip(surveys, surveyed, strict=True)]
        kept = [(part.events, _outcomes(row["outcomes"])) for part, row in zip(parts, told, strict=True)]
        outcomes = expectations.merged_interactions(received, kept, request.params, request.previous)
        return counts, [*checks, *expectations.interaction_checks(*outcomes, found.rows, about.events)]

    def _about(self, parts: list[Findings], changed: int) -> Findings:
        """The findings of all users: what the ranges add up to, and what has to be counted over all of them."""
        blocks, whole = self.request.blocks, parts[0]
        for part in parts[1:]:
            whole += part
        seen = np.zeros(0, dtype=np.uint8)
        forms: list[pa.ChunkedArray] = []
        for place in range(len(parts)):
            with blocks.parquet(f"found-{place}.parquet") as file:
                bits = np.frombuffer(file.read()["seen"][0].as_py(), dtype=np.uint8)
                seen = bits if place == 0 else seen | bits
            with blocks.parquet(f"forms-{place}.parquet") as file:
                forms.append(file.read()["form"])
        return replace(whole, seen=int(np.unpackbits(seen).sum()), alike=self._alike(forms, changed))

    def _alike(self, forms: list[pa.ChunkedArray], changed: int) -> int:
        """Ids whose plain form another id has: of those that are not plain themselves, all but one of each form that no plain id has."""
        if not changed:
            return 0
        distinct, taken = pc.unique(pa.chunked_array([chunk for form in forms for chunk in form.chunks])), 0
        for place in range(len(forms)):
            with self.request.blocks.parquet(f"events-{place}.parquet") as file:
                ids = distinct_ids(file.read(["user_id"])["user_id"])
            unchanged = ids.filter(pc.equal(ids, plain_forms(ids)))
            taken += pc.sum(pc.is_in(unchanged, value_set=distinct)).as_py() or 0
        return changed - len(distinct) + taken

    def _write(self) -> None:
        out, blocks = self.run.out, self.request.blocks
        schemas = {}
        for name in ("events", "quarantine"):
            with blocks.parquet(f"{name}-0.parquet") as file:
                schemas[name] = file.schema_arrow
        times = [name for name in ("pos", "timestamp") if name in schemas["events"].names]
        for name, target, keys, count in (
            ("events", FILE, ("user_id", *times, "item_id"), _count(self.request.cuts)),
            ("quarantine", "quarantine.parquet", ("row",), len(self.request.rows)),
        ):
            with RowGroupWriter(out.place(target, sort_by=keys), schemas[name]) as writer:
                for block in range(count):
                    with blocks.parquet(f"{name}-{block}.parquet") as file:
                        writer.write(file.read())


def _survey(told: dict[str, Any]) -> Survey:
    times = told["times"]
    if times is not None:
        date = times["date"]
        times = TimeNumbers(times["known"], times["least"], tuple(times["over"]), None if date is None else (date[0], date[1]))
    return Survey(**{**told, "unsigned": frozenset(told["unsigned"]), "event_types": frozenset(told["event_types"]), "times": times})


def _quarantined(told: dict[str, Any]) -> Quarantined:
    return Quarantined(told["rows"], told["counts"], {key: (row, item) for key, (row, item) in told["first"].items()})


def _id_type(found: Survey, samples: list[pa.Array]) -> pa.DataType:
    return pa.uint64() if "user_id" in found.unsigned else samples[0].type
