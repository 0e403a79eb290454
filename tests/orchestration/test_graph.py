"""One graph: dvc.yaml, the Dagster assets, params.yaml, the stage modules and the report's sections agree."""

import ast
import dataclasses
from pathlib import Path

import pytest
import yaml

from orchestration.graph import BY_NAME, FLOW, STAGES, upstream
from orchestration.on_dagster.presentation import group_label
from orchestration.on_dvc import FILES, dvc_yaml
from orchestration.params.sections import Params
from orchestration.stage import GROUPS

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


READS = (
    "publish",
    "artefact",
    "find",
    "lookup",
    "records",
    "list",
    "create",
    "append_record",
    "read",
    "at",
    "exists",
)  # nothing is computed


def run_by(source: str) -> set[str]:
    """Stages that a test's code hands to something (`world.run(made, ("neighbours",))`, `BY_NAME["gate"]`) or whose function it calls. What only
    stands in a comment, a docstring or a comparison is not run."""
    tree, found = ast.parse(source), set()
    functions = {stage.compute.target.replace(":", "."): stage.name for stage in STAGES}
    imported = {
        alias.asname or alias.name: functions[f"{node.module}.{alias.name}"]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" in functions
    }
    tuples = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {imported[node.func.id]} if node.func.id in imported else set()
        called = isinstance(node, ast.Call) and not (isinstance(node.func, ast.Attribute) and node.func.attr in READS)
        handed = [*node.args, *(each.value for each in node.keywords)] if called else []
        handed += [node.slice] if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "BY_NAME" else []
        handed = [tuples.get(each.id, each) if isinstance(each, ast.Name) else each for each in handed]
        found |= {each.value for value in handed for each in ast.walk(value) if isinstance(each, ast.Constant) and each.value in BY_NAME}
    return found


def test_every_stage_is_run_by_a_test():
    files = [path for folder in ("tests/orchestration", "tests/flow") for path in (PROJECT / folder).rglob("test_*.py")]
    texts = [path.read_text() for path in files if path.name != Path(__file__).name]
    assert set().union(*map(run_by, texts)) == set(BY_NAME)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("# gate", set()),
        ('store.artefact("gate", hash_)', set()),
        ('def test_gate():\n    """The gate."""\n    assert name == "gate"', set()),
        ('world.run(made, ("gate", "neighbours"))', {"gate", "neighbours"}),
        ('session.materialise(BY_NAME["gate"])', {"gate"}),
        ('RAW = ("raw_items",)\nrun(RAW)', {"raw_items"}),
        ("from orchestration.verdict.gate.gate import gate\ngate(run)", {"gate"}),
    ],
)
def test_a_stage_that_is_only_mentioned_is_not_run(source, found):
    assert run_by(source) == found


def test_upstream_of_the_release_is_the_report_and_all_that_it_reads():
    assert upstream({"release"}) - upstream({"report"}) == {"release"}
    assert {"gate", "bundle", "evaluation", "joint_model"} <= upstream({"report"}) <= {stage.name for stage in FLOW}
    assert upstream({"sequences"}) == {"raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences"}
