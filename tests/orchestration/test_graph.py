"""One graph: dvc.yaml, the Dagster assets, params.yaml, the stage modules and the report's sections agree."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from orchestration.graph import BY_NAME, FLOW, GROUPS, STAGES, upstream
from orchestration.on_dagster.presentation import group_label
from orchestration.on_dvc import FILES, dvc_yaml
from orchestration.params.sections import Params

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("file", FILES)
def test_dvc_yaml_is_written_from_the_graph(file):
    assert (PROJECT / file).read_text() == dvc_yaml(file), "make docs"


def test_dvc_yaml_has_every_stage_with_its_inputs_and_parameters():
    stages = {name: entry for file in FILES for name, entry in yaml.safe_load((PROJECT / file).read_text())["stages"].items()}
    assert set(stages) == set(BY_NAME)
    for stage in STAGES:
        entry = stages[stage.name]
        assert entry["cmd"] == f"diger stage {stage.name} --link pipeline/{stage.name}"
        assert entry["deps"] == ([f"pipeline/{name}" for name in stage.inputs] or ["${snapshot}"])
        assert entry.get("params", []) == list(stage.params)
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
        assert node.group_name == group_label(stage)
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
    labels = [f"{place + 1}_{group}" for place, group in enumerate(GROUPS)]
    assert labels == sorted(labels)
    assert {group_label(stage) for stage in STAGES} == set(labels)
    for stage in STAGES:
        assert all(GROUPS.index(BY_NAME[name].group) <= GROUPS.index(stage.group) for name in (*stage.inputs, *stage.after))


def test_stages_that_find_each_others_work_in_the_champion_log_run_in_that_order():
    order = [stage.name for stage in STAGES]
    for stage in STAGES:
        assert all(order.index(name) < order.index(stage.name) for name in stage.after)
    assert BY_NAME["recommendations"].after == ("release",)


HOOKS = ("compute", "extra_inputs", "published", "refuse", "presented", "checks")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_hook_of_a_stage_exists_and_its_function_lies_in_its_groups_folder(stage):
    for hook in (found for name in HOOKS if (found := getattr(stage, name)) is not None):
        assert callable(hook.load())
    module, function = stage.compute.target.split(":")
    assert function == stage.name
    assert module.startswith(f"orchestration.{stage.group}.")


def test_the_sections_that_stages_name_exist():
    sections = {f.name for f in dataclasses.fields(Params)}
    assert all(set(stage.params) <= sections for stage in STAGES)
    assert not [
        f.name
        for f in dataclasses.fields(Params)
        if dataclasses.is_dataclass(getattr(Params(), f.name)) and not dataclasses.fields(getattr(Params(), f.name))
    ]


def test_params_yaml_names_every_section_and_loads():
    from orchestration.params.load import load_params

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
