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

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import fast, scale
from diger_core.sequences import Sequences

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


def test_one_run_of_fast_measures_every_cell(folder, tmp_path, monkeypatch):
    found = lines(folder, tmp_path, monkeypatch, "fast")
    assert len({row["run"] for row in found}) == 1
    assert all(row["quick"] for row in found)
    train = {(row["side"], row["batch"]) for row in found if row["part"] == "train"}
    assert train == {(side, batch) for side in ("peer", "frozen", "frqud") for batch in fast.QUICK.batches}
    beams = [row for row in found if row["part"] == "beams"]
    assert len([row for row in beams if row["side"] == "ours"]) == 3 * len(fast.QUICK.beam_batches)
    assert {(row["constrained"], row["batch"]) for row in beams if row["side"] == "peer"} == {(c, b) for c, b, _ in fast.QUICK.generate}
    assert all(len(row["repeats"]) == fast.QUICK.repeats for row in found if row["part"] in ("train", "beams"))
    assert [row["items"] for row in found if row["part"] == "table"] == list(fast.QUICK.items)


def test_scale_walks_along_every_axis(folder, tmp_path, monkeypatch):
    found = lines(folder, tmp_path, monkeypatch, "scale")
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
