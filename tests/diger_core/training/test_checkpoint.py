from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
import torch

from diger_core.errors import DigerError
from diger_core.training.checkpoint import Checkpoint, load, newest_valid, prune, steps, sweep


def made(step: int = 7) -> Checkpoint:
    tensors = {
        "recommender": {"a.weight": torch.randn(4, 3), "b": torch.arange(5).to(torch.bfloat16)},
        "rng": {"cpu.0": torch.get_rng_state()},
        "schedule": {"step": torch.tensor(step), "f": torch.rand(3, 4)},
    }
    return Checkpoint(tensors, {"step": step, "curves": [{"epoch": 1, "loss": 0.1 + 0.2}], "text": "ü"})


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        return None

    def message(self, text: str) -> None:
        self.lines.append(text)


def test_what_is_loaded_is_bit_equal_to_what_was_saved(tmp_path: Path) -> None:
    saved = made()
    place = saved.save(tmp_path)
    loaded = load(place)
    assert place.endswith("/00000007")
    assert loaded.state == saved.state
    assert loaded.tensors.keys() == saved.tensors.keys()
    for file, tensors in saved.tensors.items():
        assert tensors.keys() == loaded.tensors[file].keys()
        for name, value in tensors.items():
            assert value.dtype == loaded.tensors[file][name].dtype
            assert torch.equal(value, loaded.tensors[file][name])


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    loaded = load(Checkpoint({"t": {"a": base, "b": base[2:6], "c": base.view(3, 4).T}}, {"step": 1}).save(tmp_path))
    assert torch.equal(loaded.tensors["t"]["c"], base.view(3, 4).T)


@pytest.mark.parametrize("file", ["recommender.safetensors", "rng.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["delete", "truncate", "empty", "flip"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str) -> None:
    made(1).save(tmp_path)
    victim = Path(made(2).save(tmp_path)) / file
    data = bytearray(victim.read_bytes())
    if damage == "delete":
        victim.unlink()
    elif damage == "flip":
        data[len(data) // 2] ^= 4
        victim.write_bytes(data)
    else:
        victim.write_bytes(data[: len(data) // 2 if damage == "truncate" else 0])
    told = Told()
    found = newest_valid(tmp_path, told)
    with pytest.raises(DigerError):
        load(tmp_path / "00000002")
    assert found is not None
    assert found.step == 1
    assert len(told.lines) == 1
    assert "00000002" in told.lines[0]


def test_an_interrupted_write_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(1).save(tmp_path)

    def fails(self: Checkpoint, folder: Path) -> None:
        (folder / "recommender.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoint, "write", fails)
    with pytest.raises(OSError, match="space"):
        made(2).save(tmp_path)
    assert steps(tmp_path) == ["00000001"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001"]


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diger_core.training.checkpoint.save_file", full)
    with pytest.raises(DigerError, match="disk is full"):
        made().save(tmp_path)


def test_saving_again_keeps_a_complete_checkpoint_and_replaces_a_damaged_one(tmp_path: Path) -> None:
    first = made()
    place = Path(first.save(tmp_path))
    before = (place / "manifest.json").read_bytes()
    made().save(tmp_path)
    assert (place / "manifest.json").read_bytes() == before
    (place / "rng.safetensors").unlink()
    first.save(tmp_path)
    assert load(place).step == 7


def test_prune_keeps_the_newest_complete_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        made(step).save(tmp_path)
    (tmp_path / "00000004" / "manifest.json").unlink()
    prune(tmp_path, kept=2)
    assert steps(tmp_path) == ["00000002", "00000003", "00000004"]
    found = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 3


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "missing") is None


def test_another_format_and_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    manifest = Path(made().save(tmp_path)) / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(DigerError, match="format"):
        load(manifest.parent)
    content["files"]["../escape.json"] = content["files"]["state.json"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(DigerError, match="impossible"):
        load(manifest.parent)


def test_numbers_that_json_cannot_hold_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Checkpoint({}, {"step": 1, "loss": float("nan")}).save(tmp_path)
    assert steps(tmp_path) == []


def test_an_object_store_gets_the_manifest_last_and_gives_back_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    written: list[str] = []
    put = type(fs).put_file

    def noted(self: object, local: str, remote: str, **kwargs: object) -> None:
        written.append(remote.rsplit("/", 1)[-1])
        put(self, local, remote, **kwargs)

    monkeypatch.setattr(type(fs), "put_file", noted)
    saved = made(3)
    saved.save("memory://checkpoints/run")
    assert written[-1] == "manifest.json"
    assert len(written) == 5
    found = newest_valid("memory://checkpoints/run")
    assert found is not None
    assert torch.equal(found.tensors["schedule"]["f"], saved.tensors["schedule"]["f"])
    fs.rm("/checkpoints/run/00000003/manifest.json")
    assert newest_valid("memory://checkpoints/run") is None


def test_what_a_killed_run_has_begun_to_write_is_removed_before_the_next(tmp_path: Path) -> None:
    run, told = tmp_path / "run", Told()
    made().save(run)
    (run / f".{'a' * 32}.tmp").mkdir()
    (run / f".{'a' * 32}.tmp" / "recommender.safetensors").write_bytes(b"half")
    sweep(run, told)
    sweep(tmp_path / "never", told)
    assert [path.name for path in run.iterdir()] == [made().name]
    assert told.lines == ["1 unfinished uploads of a run that was killed were removed"]
