"""An exported champion is checked with numpy alone, answers as the champion does, and shows what was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from orchestration.cli import main
from orchestration.serving.export import check
from orchestration.serving.export.check import Export, Wrong
from orchestration.serving.online.query import Query
from tests.support.serving_world import histories


@pytest.fixture(scope="module")
def folder(world, live, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "champion"
    main(["export", "champion", "--out", str(out), "--store", world.store.url])
    return out


def test_the_check_passes_without_anything_but_numpy(folder, live, capsys):
    main(["export", "check", str(folder)])
    assert "40 items in the trie, 8 golden requests: all as exported" in capsys.readouterr().out
    alone = (
        "import sys, runpy\n"
        "class Refused:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'pyarrow', 'safetensors', 'diger_core', 'orchestration'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refused())\n"
        f"sys.argv = ['check.py', {str(folder)!r}]\n"
        f"runpy.run_path({str(folder / 'check.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", alone], capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout.count("all as exported")) == (0, 1), done.stderr
    document = json.loads((folder / "export.json").read_text())
    assert (document["bundle"], document["assignment_hash"]) == (live.bundle, live.assignment_hash)
    assert set(document["files"]) == {path.name for path in folder.iterdir()} - {"export.json"}


def test_a_url_is_refused_and_no_directory_is_called_by_its_scheme(world, live, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["export", "champion", "--out", "s3://bucket/x", "--store", world.store.url])
    assert stop.value.code == 2
    assert "s3://bucket/x is a URL, and this writes to a local path alone" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("more", "wanted"), [([], "with numpy alone: every byte"), (["--onnx"], "with numpy, the graphs with onnxruntime: every")])
def test_what_comes_next_says_what_the_check_needs(world, live, tmp_path, monkeypatch, capsys, more, wanted):
    document = {"bundle": "b" * 64, "assignment_hash": "a" * 64, "items": 40, "files": {}}
    monkeypatch.setattr("orchestration.serving.export.write.write_export", lambda *_: document)
    main(["export", "champion", "--out", str(tmp_path / "x"), "--store", world.store.url, *more])
    assert wanted in capsys.readouterr().err


def test_an_engine_that_reads_it_lists_what_the_champion_lists(folder, live):
    """The world's recipe is the model alone, so the lists are the beams."""
    export = Export(folder)
    rows = {item: row for row, item in enumerate(export.item_ids)}
    for user, history in enumerate(histories(live.ranker)[:6]):
        (answer,) = live.answers([Query(user=user)])
        found, scores = export.beams([rows[item] for item in history], 40)
        assert [export.item_ids[row] for row in found[:10]] == [item["item_id"] for item in answer.items]
        shares = np.exp(scores - np.max(scores))
        assert [item["score"] for item in answer.items] == pytest.approx((shares / shares.sum())[:10], rel=1e-3)


@pytest.mark.parametrize("name", ["model.safetensors", "trie.safetensors", "item_ids.json"])
def test_a_changed_or_missing_file_is_named(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[-2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(Wrong, match=f"{name}: its bytes are not those that were exported"):
        check.check(copy)
    (copy / name).unlink()
    with pytest.raises(Wrong, match=f"{name}: missing"):
        check.check(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"model.safetensors": {}}, "model": {}}', '{"files": {}, "model": []}'])
def test_a_damaged_description_is_named(tmp_path, text):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(Wrong, match=r"export\.json: damaged, it does not describe an export: export again"):
        check.check(tmp_path)


def resealed(folder, name, change):
    """The file changed, and the description with it, as a wrong exporter would have written them."""
    import hashlib

    from safetensors.numpy import load_file, save_file

    found = load_file(folder / name)
    change(found)
    save_file(found, folder / name)
    document = json.loads((folder / "export.json").read_text())
    document["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "export.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("model.safetensors", lambda found: found["recommender.start"].__iadd__(0.5), "golden request 0"),
        ("history_tokens.safetensors", lambda found: found["tokens"].__iadd__(0.5), "golden request"),
        ("trie.safetensors", lambda found: found["items"].__setitem__(slice(0, 2), found["items"][:2][::-1].copy()), "leads item .* to another item"),
        ("id_table.safetensors", lambda found: found["suffix"].__iadd__(20), "is not in trie.safetensors"),
    ],
)
def test_a_wrong_export_is_noticed_although_its_hashes_agree(folder, tmp_path, name, change, told):
    copy = shutil.copytree(folder, tmp_path / "copy")
    resealed(copy, name, change)
    with pytest.raises(Wrong, match=told):
        check.check(copy)


def test_nothing_is_written_over(world, live, folder, capsys):
    with pytest.raises(SystemExit):
        main(["export", "champion", "--out", str(folder), "--store", world.store.url])
    assert "is not empty: name a new directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", "check", str(folder.parent / "nowhere")])
    assert "export.json: missing" in capsys.readouterr().err
