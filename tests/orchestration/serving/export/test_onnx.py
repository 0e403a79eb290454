"""The ONNX graphs of an export answer as the champion does, and what answers otherwise is noticed. Without onnxruntime the check says so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from diger_core.errors import DigerError
from orchestration.cli import main
from orchestration.serving.export import on_onnx
from orchestration.serving.export.check import Export, Wrong
from orchestration.serving.export.on_onnx import DECODER, ENCODER, OnnxExport, compared
from tests.orchestration.serving.export.test_export import resealed
from tests.support.serving_world import histories

for package in on_onnx.WRITING:
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def folder(world, live, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "champion"
    main(["export", "champion", "--onnx", "--out", str(out), "--store", world.store.url])
    return out


def test_the_graphs_are_files_of_the_export_and_answer_the_golden_requests(folder, capsys):
    main(["export", "check", str(folder)])
    said = capsys.readouterr().out
    assert "12 files, 40 items in the trie, 8 golden requests: all as exported" in said
    assert "ONNX graphs: 8 golden requests, the same items; log-probabilities at most" in said
    document = json.loads((folder / "export.json").read_text())
    assert {ENCODER, DECODER} <= set(document["files"])
    assert compared(folder)["furthest"] < 1e-4
    assert b"site-packages" not in (folder / DECODER).read_bytes(), "nothing of the machine that wrote it"


def test_the_graphs_list_what_the_flat_files_list(folder, live):
    graphs, flat = OnnxExport(folder), Export(folder)
    rows = {item: row for row, item in enumerate(flat.item_ids)}
    for history in histories(live.ranker)[:6]:
        (found, scores), (wanted, exact) = (export.beams([rows[item] for item in history], 40) for export in (graphs, flat))
        assert found == wanted
        assert np.allclose(scores, exact, atol=1e-4)


def test_rows_of_a_batch_answer_as_they_do_alone(folder):
    """Histories of two lengths, padded; beams that share a row's memory."""
    graphs, random = on_onnx.Graphs(folder, threads=1), np.random.default_rng(0)
    width = OnnxExport(folder).model["d_model"]
    history_BTd, mask_BT = random.normal(size=(2, 4, width)).astype(np.float32), np.array([[True] * 4, [True, True, False, False]])
    token_BW, past = np.zeros((2, 3), dtype=np.int64), np.zeros((1, 2, 2, 3, 0, 2, 8), dtype=np.float32)
    together, _ = graphs.step(token_BW, graphs.encode(history_BTd, mask_BT), mask_BT, past)
    for row, length in ((0, 4), (1, 2)):
        one, real = history_BTd[row : row + 1, :length], np.ones((1, length), dtype=bool)
        alone, _ = graphs.step(token_BW[:1, :1], graphs.encode(one, real), real, past[:, :, :1, :1])
        assert np.allclose(together[row], alone[0], atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-3)


def test_graphs_of_another_model_are_noticed_although_their_hashes_agree(folder, world, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    resealed(copy, "history_tokens.safetensors", lambda found: found["tokens"].__iadd__(0.5))
    with pytest.raises(Wrong, match=f"{ENCODER}, {DECODER}: .*golden request 0: the model's log-probabilities"):
        compared(copy)


def test_an_export_whose_graphs_answer_otherwise_is_not_written(world, live, tmp_path, monkeypatch, capsys):
    def wrong(folder):
        raise Wrong("golden request 3, rank 1: item 'a', not 'b'")

    monkeypatch.setattr(on_onnx, "write_onnx", lambda recommender, folder: [(folder / name).touch() for name in (ENCODER, DECODER)])
    monkeypatch.setattr(on_onnx, "compared", wrong)
    with pytest.raises(SystemExit):
        main(["export", "champion", "--onnx", "--out", str(tmp_path / "out"), "--store", world.store.url])
    assert "the graphs do not answer as the model (golden request 3, rank 1: item 'a', not 'b'): export without --onnx" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_the_files_are_checked_and_the_graphs_are_not_run(folder, tmp_path, live, monkeypatch, capsys):
    monkeypatch.setattr(on_onnx, "find_spec", lambda name: None)
    main(["export", "check", str(folder)])
    said = capsys.readouterr().out
    assert "12 files, 40 items in the trie, 8 golden requests: all as exported" in said
    assert "ONNX graphs: not run, onnxruntime is not installed: pip install 'diger[onnx]'" in said
    with pytest.raises(DigerError, match=r"--onnx needs onnx, onnxscript, onnxruntime: pip install 'diger\[onnx\]'"):
        on_onnx.write_onnx(live.ranker.model.recommender, tmp_path)
