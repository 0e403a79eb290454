"""One graph: dvc.yaml, the Dagster assets, params.yaml, the stage modules and the report's sections agree."""

import dataclasses
import re
from pathlib import Path

import yaml

from orchestration.graph import BY_NAME, FLOW, STAGES, upstream
from orchestration.params import Params

PROJECT = Path(__file__).resolve().parents[2]


def test_dvc_yaml_is_the_same_graph():
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == [s.name for s in FLOW]
    on_demand = {}
    for folder in ("serving", "search"):
        on_demand |= yaml.safe_load((PROJECT / folder / "dvc.yaml").read_text())["stages"]
    assert list(on_demand) == [s.name for s in STAGES if s.on_demand]
    assert all(entry.pop("wdir") == ".." for entry in on_demand.values())
    stages |= on_demand
    for stage in STAGES:
        entry = stages[stage.name]
        assert entry["cmd"] == f"diger stage {stage.name} --link pipeline/{stage.name}"
        assert entry["deps"] == ([f"pipeline/{name}" for name in stage.inputs] or ["${snapshot}"])
        assert entry["params"] == list(stage.params)
        assert entry["outs"] == [f"pipeline/{stage.name}"]


def test_dagster_assets_are_the_same_graph():
    from orchestration.definitions import defs

    graph = defs.resolve_asset_graph()
    found = {key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()}
    assert found == {s.name: {*s.inputs, *s.after} for s in STAGES}


def test_every_asset_is_described():
    from orchestration.definitions import defs

    graph = defs.resolve_asset_graph()
    for stage in STAGES:
        node = graph.get(next(k for k in graph.get_all_asset_keys() if k.to_user_string() == stage.name))
        assert node.description.startswith(f"{stage.description}\n")
        assert all(f"`{section}.*`" in node.description for section in stage.params)  # what the Launchpad can override
        assert node.group_name == stage.group
        assert node.code_version == stage.version
        assert node.kinds == set(stage.kinds)
        assert node.owners
        assert node.partitions_def is not None


def test_stages_are_in_an_order_that_can_run():
    seen: set[str] = set()
    for stage in STAGES:
        assert set(stage.inputs) <= seen
        seen.add(stage.name)


def test_groups_read_as_the_flow_in_the_alphabetical_list_of_the_ui():
    for stage in STAGES:
        assert all(BY_NAME[name].group <= stage.group for name in (*stage.inputs, *stage.after))
        assert stage.on_demand or stage.group[0].isdigit()


def test_stages_that_find_each_others_work_in_the_champion_log_run_in_that_order():
    order = [stage.name for stage in STAGES]
    for stage in STAGES:
        assert all(order.index(name) < order.index(stage.name) for name in stage.after)
    assert BY_NAME["recommendations"].after == ("release",)


def test_every_stage_has_a_function_and_a_params_section_of_its_name():
    sections = {f.name for f in dataclasses.fields(Params)}
    for stage in STAGES:
        assert callable(getattr(stage.module, stage.name))
        assert stage.name in sections
        assert set(stage.params) <= sections


def test_params_yaml_names_every_section_and_loads():
    from orchestration.params import load_params

    data = yaml.safe_load((PROJECT / "params.yaml").read_text())
    assert set(data) == {f.name for f in dataclasses.fields(Params)}
    assert load_params(PROJECT / "params.yaml").snapshot == Params().snapshot


def test_every_stage_has_a_test():
    texts = "\n".join(p.read_text() for p in (PROJECT / "tests").rglob("test_*.py"))
    for name in BY_NAME:
        assert re.search(rf"\b{name}\b", texts)


def test_upstream_of_the_release_is_the_report_and_all_that_it_reads():
    assert upstream({"release"}) - upstream({"report"}) == {"release"}
    assert {"gate", "bundle", "evaluation", "joint_model"} <= upstream({"report"}) <= {stage.name for stage in FLOW}
    assert upstream({"sequences"}) == {"raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences"}
