"""What Dagster loads: jobs, pools, checks, and a graph that can be selected from."""

import subprocess
import sys

import dagster as dg

from orchestration.definitions import defs
from orchestration.graph import BY_NAME, FLOW, upstream
from tests.support import definitions_snapshot


def test_jobs_select_what_they_say():
    graph = defs.resolve_asset_graph()
    found = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    jobs = {job.name: {k.to_user_string() for k in job.asset_layer.executable_asset_keys} for job in found}
    assert jobs == {
        "arrival": upstream({"catalogue_diff"}),
        "assign_new_items": {"cold_start"},
        "retrain": {stage.name for stage in FLOW} - {"release"},
        "evaluate": {"evaluation", "report"},
        "gate_and_release": {"gate", "report", "release"},
        "recommend": upstream({"recommendations"}),
        "tune": upstream({"decay_search"}),
        "compare_training": upstream({"training_comparison"}),
    }
    assert jobs["retrain"] | jobs["gate_and_release"] <= {k.to_user_string() for k in graph.get_all_asset_keys()}


def test_assets_jobs_schedules_and_sensors_are_what_was_last_read():
    assert definitions_snapshot.text() == definitions_snapshot.FILE.read_text(encoding="utf-8"), (
        "read what changed, then: python -m tests.support.definitions_snapshot"
    )


def test_selection_strings_parse():
    selection = dg.AssetSelection.from_string("+sequences")
    names = {k.to_user_string() for k in selection.resolve(defs.resolve_asset_graph())}
    assert names == {"sequences", "validated_items", "validated_interactions"}


def test_training_is_limited_to_one_at_a_time():
    pools = {name: defs.resolve_assets_def(name).op.pool for name in BY_NAME}
    training = {"frozen_model", "joint_model", "refit", "decay_search", "tuned_model", "training_comparison"}
    assert {name for name, pool in pools.items() if pool == "training"} == training


def test_what_only_warns_stops_no_run():
    blocking = {
        spec.name: spec.blocking for name in ("validated_items", "validated_interactions") for spec in defs.resolve_assets_def(name).check_specs
    }
    assert {name for name, stops in blocking.items() if stops} >= {"items_left", "events_left", "quarantined_share", "volume", "gx_row_count"}
    assert not any(blocking[name] for name in ("text_missing", "equal_texts", "columns_ignored", "repeated_events", "gx_text_present"))
    assert not any(stops for name, stops in blocking.items() if name.startswith("quarantined_") and name != "quarantined_share")


def test_every_check_says_what_it_asks():
    specs = [spec for name in BY_NAME for spec in defs.resolve_assets_def(name).check_specs]
    assert [spec.name for spec in specs if not (spec.description or "").strip()] == []


def test_everything_at_once_ends_with_the_study_so_that_it_delays_no_release():
    tags = {name: defs.resolve_assets_def(name).op.tags.get("dagster/priority") for name in BY_NAME}
    assert {name for name, priority in tags.items() if priority == "-1"} == {"decay_search", "tuned_model", "training_comparison"}


def test_a_refusal_is_a_result_of_a_run_and_release_comes_behind_gate_and_report():
    assert [spec.name for name in ("gate", "report", "release") for spec in defs.resolve_assets_def(name).check_specs if spec.blocking] == []
    parents = {k.to_user_string() for k in defs.resolve_asset_graph().get(dg.AssetKey("release")).parent_keys}
    assert {"gate", "report"} <= parents


def test_every_rule_of_the_gate_has_a_check():
    from orchestration.verdict.report.gate import RULES

    assert {spec.name for spec in defs.resolve_assets_def("gate").check_specs} == {"accepted", *(f"rule_{name}" for name in RULES)}


def test_the_code_location_imports_nothing_heavy_and_quickly_enough_to_reload():
    code = "import sys, time, orchestration.definitions; print(time.process_time(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *imported = done.stdout.split()
    assert {"torch", "ray", "great_expectations", "sklearn", "transformers", "matplotlib", "pandas"} & set(imported) == set()
    assert float(seconds) < 8
