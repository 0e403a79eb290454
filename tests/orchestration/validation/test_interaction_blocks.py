"""Validation block by block: the artefact, checks and refusals of all rows at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from diger_core.errors import DigerError
from orchestration.params.data import ValidatedInteractionsConfig
from orchestration.validation.date_numbers import TimeNumbers
from orchestration.validation.outcomes import Outcome, merged
from tests.support.block_shops import STAGES, WHOLE, differences, made, shop
from tests.support.snapshot_material import START, items

VALIDATION = STAGES[:4]


def both(folder, snapshot, events=700, **params):
    """(artefacts of all rows at once, of blocks of so many events)."""
    sections = {"validated_interactions": ValidatedInteractionsConfig(**params)}
    return tuple(made(folder / str(size), snapshot, replace(WHOLE, block_events=size), VALIDATION, **sections) for size in (10**6, events))


@pytest.mark.parametrize("types", [None, ("buy",)])
def test_every_reason_and_every_count_is_that_of_all_rows_at_once(tmp_path, types):
    whole, blocks = both(tmp_path, shop("faulty"), max_quarantined=0.5, event_types=types)
    assert differences(whole, blocks) == []
    facts = blocks["validated_interactions"].facts
    assert facts["quarantined"] > 200
    assert facts["look_alike_user_ids"] > 10
    assert facts["not_selected"] == (750 if types else 0)
    assert all(number > 0 for name, number in facts.items() if name.startswith("quarantined"))


def test_a_failed_validation_has_the_same_checks_and_quarantine(tmp_path):
    whole, blocks = both(tmp_path, shop("faulty"), max_quarantined=0.01)
    assert differences(whole, blocks) == []
    assert not blocks["validated_interactions"].facts["passed"]


def test_a_file_of_which_nothing_is_kept_has_the_same_checks(tmp_path):
    interactions, catalogue = shop(events=60)
    strange = interactions.set_column(1, "item_id", pa.array(np.arange(60) + 1000))
    whole, blocks = both(tmp_path, (strange, catalogue), events=25)
    assert differences(whole, blocks) == []
    assert blocks["validated_interactions"].facts["events"] == 0


def times(values) -> tuple[pa.Table, pa.Table]:
    return pa.table({"user_id": np.arange(len(values)) % 7, "item_id": np.arange(len(values)) % 5, "timestamp": values}), items(5)


@pytest.mark.parametrize(
    ("snapshot", "params", "message"),
    [
        (times(np.r_[np.full(20, START), np.full(30, START * 1000)]), {}, "milliseconds"),
        (times(np.full(50, 20240131)), {}, "read like a date, such as 20240131"),
        (times(pa.nulls(50, pa.int64())), {}, "neither pos nor timestamp with values"),
        (shop("faulty", events=60), {"event_types": ("gift",)}, "never holds 'gift'.*'buy', 'view'"),
        ((shop(events=60)[0].drop_columns("user_id"), items(50)), {}, "column user_id is missing"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_same_words(tmp_path, snapshot, params, message):
    said = []
    for size in (10**6, 20):
        section = ValidatedInteractionsConfig(**params)
        with pytest.raises(DigerError, match=message) as refused:
            made(tmp_path / str(size), snapshot, replace(WHOLE, block_events=size), VALIDATION, validated_interactions=section)
        said.append(str(refused.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("values", [[20240131, 20240201], [START * 1000] * 3 + [START], [START, 20240131], [5], []])
def test_numbers_of_parts_add_up_to_those_of_the_column(values):
    parts = [TimeNumbers.of(np.array(part, np.int64)) for part in (values[:1], values[1:], [])]
    assert sum(parts, TimeNumbers()) == TimeNumbers.of(np.array(values, np.int64))


def test_outcomes_of_parts_are_judged_together():
    stage, rows = "validated_interactions", {"gx_received_row_count": {"min_value": 90, "max_value": 120}}
    counts = [(rows_, {"gx_received_row_count": Outcome(False, False, rows_, "")}) for rows_ in (60, 40, 0)]
    assert merged(stage, counts, rows)["gx_received_row_count"] == Outcome(False, True, 100, "")
    assert not merged(stage, counts[:1], rows)["gx_received_row_count"].success
    mostly = {"gx_received_user_id_not_null": {"mostly": 0.9}}
    nulls = [(50, {"gx_received_user_id_not_null": Outcome(False, many == 0, many, "")}) for many in (8, 0)]
    assert merged(stage, nulls, mostly)["gx_received_user_id_not_null"].success
    assert not merged(stage, [*nulls, nulls[0]], mostly)["gx_received_user_id_not_null"].success
    raised = [(5, {"gx_events_in_order": Outcome(failed, not failed, None, "")}) for failed in (False, True)]
    assert merged(stage, raised, {})["gx_events_in_order"].raised
    assert "gx_events_in_order" not in merged(stage, [raised[0], (5, {})], {})
