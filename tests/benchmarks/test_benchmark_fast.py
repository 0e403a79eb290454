"""The accelerator benchmarks' own code at toy sizes on the CPU: every cell of both tables is measured and recorded, and the report reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import cpu, report_speed, tables
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import fast, scale
from diger_core.data.sequences import Sequences

ITEMS, USERS, EACH = 120, 40, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data set as `benchmarks.prepare` writes it."""
    rng, made = np.random.default_rng(0), tmp_path_factory.mktemp("tiny")
    seq = Sequences(rng.integers(0, ITEMS, USERS * EACH).astype(np.int32), np.arange(USERS + 1, dtype=np.int64) * EACH, ITEMS)
    save_file(seq.to_tensors(), made / "sequences.safetensors")
    pq.write_table(pa.table({"item_index": np.arange(ITEMS, dtype=np.int32), "item_id": np.arange(ITEMS) + 100}), made / "items.parquet")
    save_file({"vectors": torch.randn(ITEMS, 24, generator=torch.Generator().manual_seed(0))}, made / "vectors.safetensors")
    return made


def lines(folder: Path, out: Path, monkeypatch, name: str) -> list[dict]:
    monkeypatch.setattr("sys.argv", ["gpu", name, "--quick", "--preset", "small", "--history", "4", "--data", str(folder), "--out", str(out)])
    command.main()
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory) -> dict[str, list[dict]]:
    """The lines of one run of either command."""
    with pytest.MonkeyPatch.context() as patch:
        return {name: lines(folder, tmp_path_factory.mktemp(name), patch, name) for name in ("fast", "scale")}


@pytest.mark.slow
def test_one_run_of_fast_measures_every_cell(measured):
    found = measured["fast"]
    assert len({row["run"] for row in found}) == 1
    assert all(row["quick"] for row in found)
    train = {(row["side"], row["batch"]) for row in found if row["part"] == "train"}
    assert train == {(side, batch) for side in ("peer", "frozen", "frqud") for batch in fast.QUICK.batches}
    beams = [row for row in found if row["part"] == "beams"]
    assert len([row for row in beams if row["side"] == "ours"]) == 3 * len(fast.QUICK.beam_batches)
    assert {(row["constrained"], row["batch"]) for row in beams if row["side"] == "peer"} == {(c, b) for c, b, _ in fast.QUICK.generate}
    assert all(len(row["repeats"]) == fast.QUICK.repeats for row in found if row["part"] in ("train", "beams"))
    assert [row["items"] for row in found if row["part"] == "table"] == list(fast.QUICK.items)


@pytest.mark.slow
def test_scale_walks_along_every_axis(measured):
    found = measured["scale"]
    sizes = scale.QUICK
    wanted = {"items": sizes.items_axis, "history": sizes.history_axis, "batch": sizes.batch_axis, "beams": sizes.beams_axis}
    assert {axis: tuple(row["value"] for row in found if row["axis"] == axis) for axis in wanted} == wanted


def test_a_cell_that_fails_is_named_at_the_end_and_costs_no_other(folder, tmp_path, monkeypatch):
    right = fast.speed.table

    def broken(items, tok):
        if items == fast.QUICK.items[0]:
            raise RuntimeError("no room")
        return right(items, tok)

    monkeypatch.setattr(fast.speed, "table", broken)
    monkeypatch.setattr(fast, "PARTS", ("table",))
    with pytest.raises(SystemExit, match=f"table {fast.QUICK.items[0]}: RuntimeError: no room"):
        lines(folder, tmp_path, monkeypatch, "fast")
    assert [json.loads(line)["items"] for line in (tmp_path / "fast.jsonl").read_text().splitlines()] == [fast.QUICK.items[1]]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder of results, and a function that puts lines there as one full run."""
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(tables, "FOLDER", tmp_path)

    def write(kind: str, rows: list[dict]) -> Path:
        text = "".join(json.dumps({**row, "quick": False}) + "\n" for row in rows)
        (tmp_path / "results" / f"{kind}.jsonl").write_text(text)
        return tmp_path

    return write


@pytest.mark.slow
def test_the_report_reads_what_a_run_wrote(measured, results):
    results("fast", measured["fast"])
    results("scale", measured["scale"])
    text = report_speed.fast()
    for row in (
        "| T5 peer, eager | frozen, captured | joint (FrqUD), captured |",
        "\n| 8 | ",
        "\n| 16 | ",
        "over fused kernels, real items only ",
    ):
        assert row in text
    assert "ms with 200 items and" in report_speed.scale()


WHERE = {"run": "r", "device": "NVIDIA X", "torch": "2", "commit": "c", "time": "2026-01-01T00:00:00"}


def row(**figures) -> dict:
    return {**WHERE, **figures}


def test_aims_are_judged_by_the_last_run_alone(results):
    train = {"peer": 100.0, "frozen": 3100.0, "frqud": 2400.0}
    run = [row(part="train", side=side, batch=256, rows_per_second=rate, repeats=[rate], ms_per_step=256e3 / rate) for side, rate in train.items()]
    run += [row(part="beams", side="ours", constrained=True, batch=8, users_per_second=2000.0, users=1000, seconds=0.5)]
    run += [row(part="beams", side="peer", constrained=c, batch=8, users_per_second=r) for c, r in ((False, 90.0), (True, 25.0))]
    run += [row(part="device", fp32_tflops=50.0, gigabytes_per_second=1000.0)]
    run += [row(part="table", items=10**6, seconds=0.4, order_seconds=1.0, tflop=5.0, gigabytes=2.0)]
    results("fast", [row(part="train", side="peer", batch=256, run="older", rows_per_second=1.0, repeats=[1.0])] + run)
    scores = {"frozen": (0.040, 0.041), "frqud": (0.046, 0.047)}
    quality = [(variant, seed, {"recall@10": 0.09, "ndcg@10": value}) for variant, two in scores.items() for seed, value in enumerate(two)]
    of = {"data": "beauty", "label": "", "alarm": None, "seconds": 100.0, "epochs_run": 9}
    results("quality", [row(**of, variant=variant, seed=seed, **figures) for variant, seed, figures in quality])
    verdicts = {
        cells[1].strip(): (cells[2].strip(), cells[3].strip()) for line in report_speed.aims().splitlines() if len(cells := line.split("|")) == 5
    }
    said = {name: verdict for name, (_, verdict) in verdicts.items() if name not in ("aim", "---")}
    assert list(said.values()) == ["no", "yes", "no", "yes", "yes", "no", "yes", "no", "yes", "", "yes", "yes"]
    told = [told for told, _ in verdicts.values()]
    assert any("2,400 / 100 = 24.0" in text for text in told)
    assert any("4.0 times the bound of 0.100 s" in text for text in told)
    assert any("0.0465 - 0.0405 = +0.0060" in text for text in told)


@pytest.mark.slow
def test_the_cpu_bench_measures_both_sides_in_turns(tmp_path, results, monkeypatch):
    cpu.main(["--rounds", "2", "--steps", "2", "--batch", "16"], tmp_path / "results")
    found = [json.loads(line) for line in (tmp_path / "results" / "cpu_train.jsonl").read_text().splitlines()]
    assert [row["side"] for row in found] == ["peer", "frozen", "joint"]
    assert all(len(row["repeats"]) == 2 and min(row["repeats"]) > 0 for row in found)
    assert report_speed._cpu() is not None
