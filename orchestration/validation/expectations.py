"""Great Expectations runs the suites of the two validated stages (suites.py). The only module that imports it, and only inside functions (an
import takes 5 s).

Results are asked for without sample rows; of what comes back only counts are read (outcomes.py), so that no user's data
reach checks.json, Dagster or a report.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diger_core.item_ids import index_of
from orchestration.engine.registry import Volume
from orchestration.params.data import ValidatedInteractionsConfig, ValidatedItemsConfig
from orchestration.validation import columns
from orchestration.validation import interaction_rules as validation_interactions
from orchestration.validation.outcomes import Outcome, Outcomes, merged, suite_checks
from orchestration.validation.quarantine import Check, Validated
from orchestration.validation.suites import KEPT, RECEIVED, ROW_COUNT, Expectation

_COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0, "include_unexpected_rows": False}
LARGE = 1_000_000  # rows whose frame is worth a search for garbage
_INTEGER_TYPES, _TEXT_TYPES = ["Int64Dtype", "UInt64Dtype"], ["StringDtype"]


def check_items(received: pa.Table, validated: Validated, params: ValidatedItemsConfig, previous: Volume | None = None) -> list[Check]:
    """The item suites' results. `received`: items.parquet as it came; `validated`: what `validate_items` made of it."""
    stage, mostly = "validated_items", 1 - params.max_quarantined
    raw = {"item_id": columns.decoded(received["item_id"])}
    arguments: dict[str, dict[str, Any]] = {
        "gx_received_row_count": _row_counts(params, previous),
        "gx_received_item_id_not_null": {"mostly": mostly},
        "gx_received_item_id_unique": {},
    }
    results = _run(stage, "received", RECEIVED[stage], raw, received.num_rows, arguments)

    table = validated.table
    ids = columns.decoded(table["item_id"])
    names = [n for n in table.column_names if n != "item_id"]
    kept: dict[str, Any] = {"item_id": ids, "in_order": _ascending(ids)}
    if names:
        some = np.logical_or.reduce([_has_text(columns.decoded(table[n])) for n in names])
        kept["text_present"] = pa.array(some)
    if validated.vectors is not None:
        width = validated.vectors["vector"].type.list_size
        flat = pc.is_finite(pc.list_flatten(validated.vectors["vector"])).to_numpy().reshape(-1, width)
        kept["vector_finite"] = pa.array(flat.all(axis=1))
    arguments = {
        "gx_row_count": {"min_value": params.min_items},
        "gx_item_id_type": {"type_list": _types(ids)},
        "gx_item_id_in_order": {"value_set": [True]},
        "gx_text_present": {"value_set": [True]},
        "gx_vector_finite": {"value_set": [True]},
    }
    return results + _run(stage, "kept", KEPT[stage], kept, table.num_rows, arguments)


def check_interactions(
    received: pa.Table,
    validated: Validated,
    known_items: pa.ChunkedArray,
    params: ValidatedInteractionsConfig,
    previous: Volume | None = None,
    now: float | None = None,
) -> list[Check]:
    """The event suites' results, as `check_items`. `known_items`: the validated items' ids."""
    found = received_outcomes(received, params, previous), kept_outcomes(validated.table, known_items, params, now)
    return interaction_checks(*found, received.num_rows, validated.table.num_rows)


def received_outcomes(received: pa.Table, params: ValidatedInteractionsConfig, previous: Volume | None) -> Outcomes:
    """The suite of interactions.parquet as it came, of these rows."""
    raw = {name: columns.decoded(received[name]) for name in ("user_id", "item_id")}
    return _outcomes("validated_interactions", "received", RECEIVED["validated_interactions"], raw, received.num_rows, _received(params, previous))


def kept_outcomes(table: pa.Table, known_items: pa.ChunkedArray, params: ValidatedInteractionsConfig, now: float | None = None) -> Outcomes:
    """The suite of the events that were kept, of these: all events of their users, in order."""
    users, items = columns.decoded(table["user_id"]), columns.decoded(table["item_id"])
    kept: dict[str, Any] = {"user_id": users, "item_id": items}
    kept["item_known"] = pa.array(index_of(items, known_items) >= 0)
    order = next((name for name in ("pos", "timestamp") if name in table.column_names), None)
    if order is not None:
        kept["step"] = _steps(users, table[order])
    if "timestamp" in table.column_names:
        kept["seconds"] = columns.seconds(table["timestamp"], "validated interactions", "timestamp")
    if "weight" in table.column_names:
        kept["weight"] = table["weight"]
    arguments = _kept(params, now) | {"gx_user_id_type": {"type_list": _types(users)}, "gx_item_id_type": {"type_list": _types(items)}}
    return _outcomes("validated_interactions", "kept", KEPT["validated_interactions"], kept, table.num_rows, arguments)


def interaction_checks(received: Outcomes, kept: Outcomes, rows: int, events: int) -> list[Check]:
    """The checks of both suites. `rows` received, `events` kept."""
    stage = "validated_interactions"
    return [*suite_checks(stage, "received", RECEIVED[stage], received, rows), *suite_checks(stage, "kept", KEPT[stage], kept, events)]


def merged_interactions(
    received: list[tuple[int, Outcomes]], kept: list[tuple[int, Outcomes]], params: ValidatedInteractionsConfig, previous: Volume | None
) -> tuple[Outcomes, Outcomes]:
    """Both suites' outcomes of the whole table from those of its parts, each with its rows."""
    stage = "validated_interactions"
    return merged(stage, received, _received(params, previous)), merged(stage, kept, _kept(params, None))


def _received(params: ValidatedInteractionsConfig, previous: Volume | None) -> dict[str, dict[str, Any]]:
    mostly = {"mostly": 1 - params.max_quarantined}
    rows = _row_counts(params, previous)
    return {"gx_received_row_count": rows, "gx_received_user_id_not_null": mostly, "gx_received_item_id_not_null": mostly}


def _kept(params: ValidatedInteractionsConfig, now: float | None) -> dict[str, dict[str, Any]]:
    low, high = validation_interactions.time_limits(params, now)
    return {
        "gx_row_count": {"min_value": 1},
        "gx_item_id_known": {"value_set": [True]},
        "gx_timestamp_not_early": {"min_value": -(2**62) if low is None else low},
        "gx_timestamp_not_future": {"max_value": high},
        "gx_events_in_order": {"min_value": 0},
        "gx_weight_not_negative": {"min_value": 0},
    }


def _row_counts(params: ValidatedItemsConfig | ValidatedInteractionsConfig, previous: Volume | None) -> dict[str, Any]:
    """At least one row, and, where there is a previous snapshot, a number near its own."""
    if previous is None:
        return {"min_value": 1}
    return {"min_value": max(1, int(np.ceil(params.min_volume_ratio * previous.rows))), "max_value": int(params.max_volume_ratio * previous.rows)}


def _types(column: pa.ChunkedArray) -> list[str]:
    return _TEXT_TYPES if columns.is_text(column.type) else _INTEGER_TYPES


def _has_text(column: pa.ChunkedArray) -> np.ndarray:
    full: np.ndarray = pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), False).to_numpy()
    return full


def _ascending(ids: pa.ChunkedArray) -> pa.Array:
    """Whether each id is greater than the one before; true for the first."""
    later = pc.greater(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0))).to_numpy()
    return pa.array(np.concatenate([np.ones(min(len(ids), 1), bool), later.astype(bool)]))


def _steps(users: pa.ChunkedArray, order: pa.ChunkedArray) -> pa.Array:
    """Difference to the same user's event before, in the order's own unit; 0 for a user's first. Negative: out of order."""
    values = order.cast(pa.int64()).to_numpy()
    if len(values) == 0:
        return pa.array(values)
    same = pc.equal(users.slice(1), users.slice(0, len(users) - 1)).to_numpy()
    return pa.array(np.concatenate([[0], np.where(same, np.diff(values), 0)]))


def _run(
    stage: str, suite_name: str, expectations: tuple[Expectation, ...], data: dict[str, Any], rows: int, arguments: dict[str, dict[str, Any]]
) -> list[Check]:
    """Validates one frame against one suite; every expectation gives one check, also if GX raised, left it out, or there was no row."""
    return suite_checks(stage, suite_name, expectations, _outcomes(stage, suite_name, expectations, data, rows, arguments), rows)


def _outcomes(
    stage: str, suite_name: str, expectations: tuple[Expectation, ...], data: dict[str, Any], rows: int, arguments: dict[str, dict[str, Any]]
) -> Outcomes:
    if rows == 0:
        return {}
    applicable = [e for e in expectations if e.column is None or e.column in data]
    # One column at a time: GX copies what it looks at, several times. The table's own expectations go with the first.
    columns_of = {e.column or next(iter(data)): None for e in applicable}
    found: Outcomes = {e.name: None for e in expectations if e not in applicable}
    for name in columns_of:
        own = [e for e in applicable if (e.column or next(iter(data))) == name]
        results = {r.expectation_config.meta["name"]: r for r in _validate(f"{stage}_{suite_name}", own, {name: data[name]}, arguments)}
        found |= {e.name: _outcome(e, results[e.name], arguments.get(e.name, {})) for e in own if e.name in results}
        del results
        if rows >= LARGE:
            gc.collect()  # GX's objects refer to each other, and hold the frame until then
    return found


def _outcome(e: Expectation, result: Any, arguments: dict[str, Any]) -> Outcome:
    expected = ", ".join(f"{key} {value}" for key, value in arguments.items() if value is not None) or None
    if e.name == "gx_timestamp_not_future":
        expected = "the day `latest`, or a day from now"  # the clock in the result would make equal data differ from day to day
    if (result.exception_info or {}).get("raised_exception"):
        return Outcome(True, False, None, expected)
    counted = "observed_value" if e.kind == ROW_COUNT else "unexpected_count"
    return Outcome(False, bool(result.success), int(result.result[counted]) if counted in result.result else None, expected)


def _validate(suite_name: str, expectations: list[Expectation], data: dict[str, Any], arguments: dict[str, dict[str, Any]]) -> list[Any]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd
    from great_expectations import expectations as kinds
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # after the import, which sets its own
    # pandas' nullable types: exact for every id, and, unlike its Arrow types, known to GX by name
    exact = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.large_string(): pd.StringDtype(), pa.bool_(): pd.BooleanDtype()}
    frame = pa.table(data).to_pandas(types_mapper=exact.get)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(name=suite_name)
    for e in expectations:
        make: Callable[..., Any] = getattr(kinds, e.kind)
        of_column = {} if e.column is None else {"column": e.column}
        suite.add_expectation(make(**of_column, **arguments.get(e.name, {}), severity=e.severity, meta={"name": e.name}))
    asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    return list(batch.validate(suite, result_format=_COUNTS_ONLY).results)
