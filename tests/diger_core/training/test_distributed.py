"""Two gloo processes against one: docs/method.md, section 8. Everything is compared after one run of 20 steps for each schedule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from diger_core.config import ScheduleConfig
from diger_core.training.checkpoint import Checkpoint, load, newest_valid
from diger_core.training.distributed import Distributed
from tests.support import small_setting as small

ROOT = Path(__file__).resolve().parents[3]
CASES = ("sdud", "frqud", "frozen", "detached")
TWENTY_STEPS = replace(small.TRAINING, epochs=3)  # 24 of them


def case(name: str) -> Any:
    if name == "frozen":
        return replace(small.JOINT, tokenizer="frozen")
    if name == "detached":
        return replace(small.JOINT, paths=small.NO_PATHS)
    return replace(small.JOINT, schedule=ScheduleConfig(name=name, r=1.0), forward="sampled" if name == "sdud" else "cached")  # type: ignore[arg-type]


def worker(rank: int, world: int, folder: Path) -> None:
    """One rank: every case to the end, then one with dropout, killed in the middle and resumed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    ranks = Distributed.current()
    for name in CASES:
        checkpoint = small.last_checkpoint(case(name), TWENTY_STEPS, small.without_dropout(), distributed=ranks)
        checkpoint.save(folder / f"{name}.{rank}")
    kept: list[Checkpoint] = []
    small.run(training=TWENTY_STEPS, distributed=ranks, on_checkpoint=kept.append, checkpoint_steps=4)
    resumed = small.last_checkpoint(training=TWENTY_STEPS, distributed=ranks, resume=kept[1])
    (folder / f"resume.{rank}.json").write_text(json.dumps({"different": small.equal(kept[-1], resumed), "from": kept[1].step}))
    rows = torch.arange(10)[ranks.share(10)].numpy() * 3
    gathered = ranks.gather_rows(rows, 10, torch.device("cpu")).tolist()
    idle = ranks.gather_rows(rows[:0] if rank else rows[:1], 1, torch.device("cpu")).tolist()
    (folder / f"rows.{rank}.json").write_text(json.dumps([gathered, idle]))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-m", "tests.diger_core.training.test_distributed", str(rank), "2", str(folder)] for rank in range(2)]
    workers = [subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    outputs = [process.communicate(timeout=280)[0] for process in workers]
    assert [process.returncode for process in workers] == [0, 0], "\n".join(outputs)
    return folder


def newest(folder: Path) -> Checkpoint:
    found = newest_valid(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_match_one_after_twenty_steps(name: str, two_ranks: Path) -> None:
    one = small.last_checkpoint(case(name), TWENTY_STEPS, small.without_dropout())
    two = newest(two_ranks / f"{name}.0")
    assert one.step == two.step >= 20
    assert any(len(b) % 2 for b in _batches()), "some batch must split unevenly"
    for part in ("recommender", "tokenizer", "schedule"):
        for key, value in one.tensors[part].items():
            assert torch.allclose(value, two.tensors[part][key], rtol=0, atol=1e-5), f"{part}: {key}"
    assert one.state["assignment_hash"] == two.state["assignment_hash"]
    for row, other in zip(one.state["curves"], two.state["curves"], strict=True):
        for key in ("loss", "loss_gen", "loss_vq", "loss_recon", "sigma", "validation_ndcg_10", "unique_prefixes"):
            assert row[key] == pytest.approx(other[key], abs=1e-4), key


def _batches() -> list[Any]:
    from diger_core.data.batches import Batches

    return Batches(small.sequences(), TWENTY_STEPS.batch_size, small.RECOMMENDER.history, TWENTY_STEPS.seed).order(0)


@pytest.mark.parametrize("name", CASES)
def test_all_ranks_end_with_the_same_bits(name: str, two_ranks: Path) -> None:
    first, second = (newest(two_ranks / f"{name}.{rank}") for rank in range(2))
    assert small.equal(first, second) == []


def test_ranks_draw_different_dropout_and_resume_each_their_own(two_ranks: Path) -> None:
    told = [json.loads((two_ranks / f"resume.{rank}.json").read_text()) for rank in range(2)]
    assert [t["different"] for t in told] == [[], []]
    generators = load(next((two_ranks / "sdud.0").iterdir())).tensors["rng"]
    assert not torch.equal(generators["cpu.0"], generators["cpu.1"])


def test_rows_are_gathered_in_order_also_from_a_rank_that_has_none(two_ranks: Path) -> None:
    for rank in range(2):
        gathered, idle = json.loads((two_ranks / f"rows.{rank}.json").read_text())
        assert gathered == [3 * i for i in range(10)]
        assert idle == [0]


@pytest.mark.parametrize("rows", [0, 1, 5, 256])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_cover_all_rows_once_and_differ_by_one_at_most(rows: int, world: int) -> None:
    shares = [Distributed(rank, world).share(rows) for rank in range(world)]
    assert [i for share in shares for i in range(rows)[share]] == list(range(rows))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_without_a_process_group_there_is_one_rank_and_sums_are_the_identity() -> None:
    ranks = Distributed.current()
    value = torch.ones(3)
    ranks.sum_([value])
    assert (ranks.rank, ranks.world, ranks.main) == (0, 1, True)
    assert torch.equal(value, torch.ones(3))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("name", ["frqud", "frozen", "detached"])
def test_a_step_exchanges_its_gradients_and_two_losses_and_nothing_else(name: str, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/cluster.md: payload = 4 (P + 2) bytes, P the parameters that learn, whatever the number of ranks, of items, and the schedule."""
    sent: list[int] = []
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, *_, **__: sent.append(tensor.numel() * tensor.element_size()))
    loop = small.loop(case(name), ranks=Distributed(0, world))
    batch = next(loop.context.batches.epoch(0))
    loop.step(batch.share(loop.ranks))
    learning = sum(p.numel() for p in loop.state.optimisation.parameters)
    assert sent == ([] if world == 1 else [4 * (learning + 2)])
    assert learning == sum(p.numel() for p in loop.state.recommender.parameters()) + (
        0 if name == "frozen" else loop.state.tokenizer.codebooks.numel()
    )


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
