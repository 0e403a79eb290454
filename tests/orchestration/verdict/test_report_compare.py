"""`diger report compare` and `show`: which report is meant, what differs, and what the page claims."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from diger_core.config import EvaluationConfig
from diger_core.data.splits import targets
from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.audit.index import Index
from orchestration.cli import main
from orchestration.verdict.gate.shown import flat
from orchestration.verdict.report.compare import churn, compare_page, differing, summary
from orchestration.verdict.report.found import find_report
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.same_users import paired
from tests.orchestration.verdict.test_report import Reader
from tests.support.report_material import fake_inputs, fake_verdict


def publish_run(store: Store, snapshot: str, inputs: dict, epochs: int, at: str) -> str:
    """Records of a joint model and of a report made from it, as the runner would write them; the report's hash."""
    with store.writer("report") as out:
        out.bytes("report.html", f"<header><h1>{snapshot} <small>{at}</small></h1>\n</header>".encode())
        made = store.publish(out)
    machine = {"machine": {"host": "here"}, "code": {"commit": "abcdef0123456789"}, "snapshot": snapshot}
    model = {
        "artefact": inputs["joint_model"].hash,
        "inputs": {},
        "params": {"training": {"epochs": epochs, "seed": 0}},
        "seconds": 12.5,
        "peak_memory_mb": 612.0,
        "notes": {"rows_per_second": 800.0, "workers": 2, "peak_memory_mb": 1843.2, "peak_gpu_memory_mb": 77.0},
        "started_at": at,
        **machine,
    }
    store.append_record("joint_model", f"{epochs:064d}", model)
    report = {
        "artefact": made.hash,
        "inputs": {name: artefact.hash for name, artefact in inputs.items()},
        "params": {"report": {"title": "A <b>title</b>", "examples": 2}},
        "seconds": 1.0,
        "started_at": f"{at}1",
        **machine,
    }
    store.append_record("report", f"{epochs:064d}", report)
    return made.hash


def entry(key: str) -> dict:
    """A registered snapshot, as the registry writes one."""
    return {"key": key, "url": f"data/{key}", "content_hash": "c" * 64, "files": {}, "registered_at": "2026-01-01T00:00:00"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two reports of snapshots "monday" (6 epochs) and "tuesday" (3), the second with 40 items in other places."""
    folder = tmp_path_factory.mktemp("compare") / "store"
    store = Store(folder)
    first = fake_inputs(folder, items=300, verdict=fake_verdict(None))
    second = dict(fake_inputs(folder, items=300, gain=(0.01, 0.004, 0.016), verdict=fake_verdict((0.01, 0.002, 0.018))))
    table = second["semantic_ids"].table("semantic_ids.parquet")
    codes = table["code_3"].to_numpy().copy()
    codes[:40] = (codes[:40] + 1) % 16
    with store.writer("semantic_ids") as out:
        out.table(
            "semantic_ids.parquet", table.set_column(table.column_names.index("code_3"), "code_3", pa.array(codes, pa.int32())), sort_by=("item_id",)
        )
        second["semantic_ids"] = store.publish(out)
    with store.writer("joint_model") as out:
        out.json("curves.json", first["joint_model"].json("curves.json")[:3])
        out.json("config.json", {"forward": "cached"})
        second["joint_model"] = store.publish(out)
    hashes = [
        publish_run(store, name, inputs, n, at) for name, inputs, n, at in (("monday", first, 6, "2026-01-05"), ("tuesday", second, 3, "2026-01-06"))
    ]
    for name in ("monday", "tuesday"):
        store.root.create(json.dumps(entry(name)).encode(), "snapshots", f"{name}.json")
    return store, hashes, (first, second)


def ranked(inputs: dict, store: Store, ranks: np.ndarray) -> Material:
    """The inputs with a stored rank in the released lists of the first users that have a test target."""
    users = targets(Material(inputs).seq, "test")[0][: len(ranks)]
    with store.writer("evaluation") as out:
        out.json("metrics.json", inputs["evaluation"].json("metrics.json"))
        table = pa.table({"user_index": pa.array(users, pa.int32()), "lists": pa.array(ranks[: len(users)], pa.int32())})
        out.table("per_user.parquet", table, sort_by=("user_index",))
        return Material({**inputs, "evaluation": store.publish(out)})


def test_a_report_is_found_by_its_hash_a_snapshot_and_anything_behind_it(world):
    store, (monday, tuesday), (first, second) = world
    index = Index(store, cached=False)
    assert find_report(index, monday[:10]).hash == monday
    assert find_report(index, "tuesday").hash == tuesday
    assert find_report(index, second["semantic_ids"].hash[:12]).hash == tuesday
    assert find_report(index, "report").hash == tuesday
    assert find_report(index, first["sequences"].hash).hash == tuesday  # both were made from it: the newest


def test_what_has_no_report_is_named_with_the_remedy(world):
    store, _, _ = world
    store.root.create(json.dumps(entry("wednesday")).encode(), "snapshots", "wednesday.json")
    with pytest.raises(DigerError, match="run the flow for it first"):
        find_report(Index(store, cached=False), "wednesday")


def test_only_the_parameters_that_differ_are_listed(world):
    store, hashes, _ = world
    index = Index(store, cached=False)
    a, b = (find_report(index, hash_) for hash_ in hashes)
    assert differing(a.params, b.params) == [("training.epochs", "6", "3")]
    assert differing(flat({"x": {"y": None, "z": True}}, "s"), {"s.x.z": False}) == [("s.x.y", "null", "not used"), ("s.x.z", "true", "false")]


def test_costs_come_from_the_records(world):
    store, hashes, _ = world
    costs = {cost.stage: cost for cost in find_report(Index(store, cached=False), hashes[0]).costs}
    assert (costs["joint_model"].seconds, costs["joint_model"].rows_per_second, costs["joint_model"].workers) == (12.5, 800.0, 2)
    assert costs["joint_model"].peak_memory_mb == 1843.2, "of the worker that trained, not of the process that waited"
    assert costs["joint_model"].peak_gpu_memory_mb == 77.0
    assert costs["report"].peak_memory_mb is None


def test_ids_between_the_two_are_counted(world):
    _, _, (first, second) = world
    rows = {told: items for told, items, *_ in churn(Material(first), Material(second))["rows"]}
    assert (rows["whole ID kept"], rows["a code differs"]) == ("260", "40")


def test_the_paired_difference_takes_users_with_the_same_target_only(tmp_path):
    inputs, store = fake_inputs(tmp_path / "store", users=100), Store(tmp_path / "store")
    a, b = (ranked(inputs, store, np.full(100, rank)) for rank in (3, 1))
    found = paired(a, b, EvaluationConfig())
    judged = len(targets(a.seq, "test")[0])  # the others have fewer than three events
    assert found.users == judged > 80
    assert (found.lists.a, found.lists.b) == pytest.approx((0.5, 1.0))
    assert found.lists.difference.low == pytest.approx(0.5)
    parts = {row.name: row for row in found.where}
    assert parts["head"].users + parts["tail"].users == parts["all"].users == judged
    assert parts["head"].mean == pytest.approx(0.5)
    events, ends = b.seq.events_E.copy(), targets(b.seq, "test")[1][:50]
    events[ends] = (events[ends] + 1) % len(b.item_ids)  # fifty of B's users end elsewhere
    b.__dict__["seq"] = replace(b.seq, events_E=events)
    assert paired(a, b, EvaluationConfig()).users == judged - 50
    assert paired(Material(inputs), b, EvaluationConfig()) is None  # ranks were not stored


def test_the_same_item_bought_again_later_is_another_target(tmp_path):
    inputs, store = fake_inputs(tmp_path / "store", users=100), Store(tmp_path / "store")
    a, b = (ranked(inputs, store, np.full(100, rank)) for rank in (3, 1))
    for side, later in ((a, 0), (b, 86_400)):
        times = np.arange(len(side.seq.events_E), dtype=np.int64)
        times[targets(side.seq, "test")[1][:50]] += later  # fifty of B's users bought it on another day
        side.__dict__["seq"] = replace(side.seq, timestamps_E=times)
    assert paired(a, b, EvaluationConfig()).users == len(targets(a.seq, "test")[0]) - 50


def test_two_bundles_lead_to_their_own_reports(tmp_path):
    """The second run was compared with the first bundle: that makes it no report of the first."""
    store = Store(tmp_path / "store")
    inputs, hashes = fake_inputs(tmp_path / "store", items=60, users=40), []
    bundles = ["a" * 64, "b" * 64]
    for place, bundle in enumerate(bundles):
        with store.writer("gate") as out:
            stored = fake_verdict((0.01, 0.002, 0.018) if place else None)
            out.json("verdict.json", {**stored, "candidate": bundle, "champion": bundles[0] if place else None})
            gate = store.publish(out)
        champion = {"champion": bundles[0]} if place else {}
        store.append_record("bundle", f"{place:064d}", {"artefact": bundle, "inputs": {}, "snapshot": "s", "started_at": f"2026-01-0{place + 1}"})
        judged = {"artefact": gate.hash, "inputs": {"bundle": bundle, **champion}, "snapshot": "s", "started_at": f"2026-01-0{place + 1}1"}
        store.append_record("gate", f"{place:064d}", judged)
        hashes.append(publish_run(store, f"s{place}", {**inputs, "gate": gate}, place + 3, f"2026-01-0{place + 1}2"))
    index = Index(store, cached=False)
    assert [find_report(index, bundle).hash for bundle in bundles] == hashes
    first, second = (find_report(index, hash_) for hash_ in hashes)
    told = summary(first, second)
    assert told["headline"].startswith("B is better than A: NDCG@10 0.0800 against 0.0700"), "B's gate ranked A's bundle beside B's"
    assert [row["name"] for row in told["where"]] == ["all", "head"]
    assert summary(second, first)["headline"] is None
    assert second.previous.artefact == first.hash
    assert first.previous is None


def test_a_verdict_of_later_that_refuses_the_champion_is_not_its_report(tmp_path):
    """The same bundle was judged again by a stricter gate: what was released is told by the verdict that released it."""
    store, inputs, hashes, gates = Store(tmp_path / "store"), fake_inputs(tmp_path / "store", items=60, users=40), [], []
    for place, refused in enumerate((None, "coverage")):
        with store.writer("gate") as out:
            out.json("verdict.json", {**fake_verdict((0.01, 0.002, 0.018), refused=refused), "candidate": "a" * 64, "champion": None})
            gates.append(store.publish(out))
        hashes.append(publish_run(store, "s", {**inputs, "gate": gates[-1]}, place + 3, f"2026-01-0{place + 1}2"))
    index = Index(store, cached=False)
    index.__dict__["releases"] = [SimpleNamespace(number=1, bundle="a" * 64, verdict=gates[0].hash, action="release")]
    assert find_report(index, "champion").hash == hashes[0]
    both = [find_report(index, hash_) for hash_ in hashes]
    assert [each.released for each in both] == [1, None]
    assert "<h1>Two runs of <bdi>s</bdi> compared</h1>" in compare_page(*both)


def test_the_page_is_whole_self_contained_and_without_users(world):
    store, hashes, _ = world
    index = Index(store, cached=False)
    a, b = (find_report(index, hash_) for hash_ in hashes)
    made = compare_page(a, b)
    read = Reader(made)
    assert read.faults == []
    assert (read.headers_without_scope, read.svgs_without_label) == (0, 0)
    assert read.tags.count("script") == 0
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in read.references)
    assert len(read.ids) == len(set(read.ids))
    assert "secret-user" not in made
    assert "training.epochs" in read.text
    assert "Nothing ranks the two for the same users" in " ".join(read.text.split())
    assert json.dumps(summary(a, b))


def test_hashes_have_twelve_digits_and_folded_sections_are_not_printed(world):
    store, hashes, _ = world
    index = Index(store, cached=False)
    made = compare_page(*(find_report(index, hash_) for hash_ in hashes))
    folded = re.findall(r'<section id="(\w+)" class="screen"', made)
    assert folded == ["metrics", "usage", "cost"], "on paper a section that is all folded would be a bare heading"
    assert {len(found) for found in re.findall(r'class="hash">([0-9a-f]+)<', made)} <= {8, 12}  # 8: a commit


def test_figures_of_different_data_are_called_so(world):
    store, hashes, _ = world
    a, b = (find_report(Index(store, cached=False), hash_) for hash_ in hashes)
    other = replace(b, made=replace(b.made, inputs={**b.made.inputs, "sequences": "0" * 64}))
    other.__dict__["material"] = b.material
    assert (summary(a, b)["other_data"], summary(a, other)["other_data"]) == (False, True)
    assert "of different data" not in compare_page(a, b)
    assert compare_page(a, other).count("of different data") == 2  # beside the metrics and beside the curves


def test_the_commands_write_pages_and_name_them(world, tmp_path, monkeypatch, capsys):
    store, hashes, _ = world
    monkeypatch.chdir(tmp_path)
    main(["report", "compare", "monday", "tuesday", "--store", store.url])
    place = Path(store.root.at("reports", f"compare-{hashes[0][:8]}-{hashes[1][:8]}.html"))
    assert f"Comparison: {place}" in capsys.readouterr().out
    assert place.stat().st_size > 20_000
    assert list(tmp_path.iterdir()) == [], "nothing is written into the working directory"
    with pytest.raises(SystemExit):
        main(["report", "compare", "monday", hashes[0], "--store", store.url])
    assert "are the same report" in capsys.readouterr().err
    main(["report", "show", "monday", "--store", store.url])
    assert f"reports/report-monday-{hashes[0][:8]}.html" in capsys.readouterr().out
    main(["report", "show", "monday", "--store", store.url, "--out", "page.html"])
    page = (tmp_path / "page.html").read_text()
    assert "A &lt;b&gt;title&lt;/b&gt;" in page
    assert 'class="number">12.5</td>' in page
    assert "--params params.yaml --set report.examples=2 --set &#39;report.title=" in page  # what differs from params.yaml, fit for a shell
    assert "--set training.epochs=6" in page
    assert "Shopper B" in page
    assert "Shopper C" not in page
