"""What a training run is besides its loop: where it stands, its best state, its generators, and how all of it becomes a checkpoint and back."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diger_core.config import JointModelConfig, RecommenderConfig, TableConfig, TrainingConfig
from diger_core.data.sequences import Sequences
from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable, assignment_hash
from diger_core.ids.stability import Hold
from diger_core.recommender.model import Recommender
from diger_core.store.canonical import canonical_json, digest
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.checkpoint import Checkpoint, Tensors
from diger_core.training.distillation import TeacherTargets
from diger_core.training.distributed import Distributed
from diger_core.training.validation import suffix_values

if TYPE_CHECKING:
    from diger_core.training.loop import Loop

_RANK_STRIDE = 1_000_003  # keeps the dropout streams of (seed, rank) apart for neighbouring seeds


@dataclass
class Position:
    """The next batch to train on, and how many evaluations ago the best one was."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    stale: int = 0


@dataclass(frozen=True)
class Best:
    """A copy of the best evaluated state and of the ID table it was evaluated with. Epoch 0: the start."""

    recommender: Tensors
    tokenizer: Tensors
    table: IdTable
    epoch: int = 0
    ndcg: float = -1.0

    @classmethod
    def of(cls, recommender: Recommender, tokenizer: Tokenizer, table: IdTable, epoch: int = 0, ndcg: float = -1.0) -> Best:
        copies = [{name: value.detach().clone() for name, value in module.state_dict().items()} for module in (recommender, tokenizer)]
        return cls(copies[0], copies[1], table, epoch, ndcg)

    def load(self, recommender: Recommender, tokenizer: Tokenizer) -> IdTable:
        recommender.load_state_dict(self.recommender)
        tokenizer.load_state_dict(self.tokenizer)
        return self.table


def training_device(config: TrainingConfig) -> torch.device:
    """`auto`: the accelerator where there is one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise DigerError("training.device = 'cuda', but no CUDA device is available; set training.device to auto or cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def reproducible(config: TrainingConfig, device: torch.device, ranks: Distributed) -> Iterator[None]:
    """Seeds dropout by (seed, rank), switches deterministic algorithms on where wanted, and gives the process back as it was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic
    filled = filling.fill_uninitialized_memory
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(config.seed * _RANK_STRIDE + ranks.rank)
        try:
            torch.use_deterministic_algorithms(config.deterministic)
            filling.fill_uninitialized_memory = False  # it would write every new tensor twice
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            filling.fill_uninitialized_memory = filled


def fingerprint(
    recommender: RecommenderConfig,
    training: TrainingConfig,
    joint: JointModelConfig,
    table: TableConfig,
    sequences: Sequences,
    item_ids: pa.Array,
    tokenizer: Tokenizer,
    *,
    previous: IdTable | None = None,
    reserved: Tensor | None = None,
    held: Hold | None = None,
    start: Mapping[str, Tensor] | None = None,
    teacher: TeacherTargets | None = None,
) -> str:
    """SHA-256 of all that decides the result: a checkpoint may be resumed only where it agrees. Device and saving habits do not count."""
    same = replace(training, device="auto", checkpoint_every=1, checkpoints_kept=1)
    configs = [asdict(config) for config in (recommender, same, joint, table)]
    arrays = [np.ascontiguousarray(sequences.events_E).tobytes(), np.ascontiguousarray(sequences.offsets_U1).tobytes()]
    arrays += [] if sequences.weights_E is None else [np.ascontiguousarray(sequences.weights_E).tobytes()]
    arrays += [] if teacher is None else [teacher.items_Rk.tobytes(), teacher.cumulative_Rk.tobytes(), str(teacher.share).encode()]
    state = [value.detach().cpu().contiguous().numpy().tobytes() for _, value in sorted(tokenizer.state_dict().items())]
    return digest(canonical_json(configs), *arrays, *state, str(len(item_ids)), *_warm_parts(previous, reserved, held, start))


def _warm_parts(previous: IdTable | None, reserved: Tensor | None, held: Hold | None, start: Mapping[str, Tensor] | None) -> list[bytes]:
    """What a retraining depends on besides; nothing for a first training."""
    tensors = [previous.tuples if previous is not None else None, reserved, held.weight_N if held is not None else None]
    tensors += [value for _, value in sorted(start.items())] if start is not None else []
    if held is None and all(tensor is None for tensor in tensors):
        return []
    named = canonical_json({"held": None if held is None else [held.mode, held.anchor], "start": sorted(start) if start is not None else None})
    return [named, *(b"" if t is None else t.detach().cpu().contiguous().numpy().tobytes() for t in tensors)]


def capture(loop: Loop) -> Checkpoint:
    """The complete state between two steps. Every rank takes part (each has generators of its own) and gets the whole."""
    loop.guard()
    generators = {"cpu": torch.get_rng_state()}
    if loop.device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state()
    gathered = {name: loop.ranks.gather_bytes(state, loop.device) for name, state in generators.items()}
    best = {f"recommender.{name}": value for name, value in loop.best.recommender.items()}
    best |= {f"tokenizer.{name}": value for name, value in loop.best.tokenizer.items()}
    tensors: dict[str, Tensors] = {
        "recommender": dict(loop.recommender.state_dict()),
        "tokenizer": dict(loop.tokenizer.state_dict()),
        "optimizer": loop.optimisation.state(),
        "schedule": dict(loop.state),
        "rng": {f"{name}.{rank}": state for name, states in gathered.items() for rank, state in enumerate(states)},
        "table": {**_table_tensors(loop.table), "sums": loop.sums, "usage": torch.stack(loop.usage)},
        "best": {**best, **_table_tensors(loop.best.table)},
    }
    state = {
        **asdict(loop.position),
        "world": loop.ranks.world,
        "curves": [dict(row) for row in loop.curves],
        "gradients": loop.gradients.state,
        "best": {"epoch": loop.best.epoch, "ndcg": loop.best.ndcg, "assignment_hash": assignment_hash(loop.item_ids, loop.best.table)},
        "assignment_hash": assignment_hash(loop.item_ids, loop.table),
        "fingerprint": loop.fingerprint,
    }
    copied = {file: {name: value.detach().clone() for name, value in named.items()} for file, named in tensors.items()}
    return Checkpoint(copied, state)


def restore(loop: Loop, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's state into a loop that was just built. DigerError where it belongs to another configuration or to other data."""
    state, tensors = checkpoint.state, checkpoint.tensors
    if "usage" not in tensors["table"]:
        raise DigerError(f"checkpoint of step {state['step']}: written by an earlier version of this code; remove it and train again")
    if state["fingerprint"] != loop.fingerprint:
        raise DigerError(f"checkpoint of step {state['step']}: written with another configuration, tokenizer or data; remove it or restore those")
    try:
        loop.recommender.load_state_dict(tensors["recommender"])
        loop.tokenizer.load_state_dict(tensors["tokenizer"])
    except (RuntimeError, KeyError) as error:
        raise DigerError(f"checkpoint of step {state['step']}: its tensors do not fit this model ({str(error).splitlines()[0]})") from error
    loop.optimisation.load_state(tensors["optimizer"])
    loop.state = {name: value.to(loop.device) for name, value in tensors["schedule"].items()}
    loop.table = _table(tensors["table"])
    if assignment_hash(loop.item_ids, loop.table) != state["assignment_hash"]:
        raise DigerError(
            f"checkpoint of step {state['step']}: its ID table does not belong to these items; resume with the catalogue it was written for"
        )
    loop.use_table()
    loop.sums.copy_(tensors["table"]["sums"])
    loop.usage = list(tensors["table"]["usage"].cpu())
    best = {
        part: {name.removeprefix(f"{part}."): value.to(loop.device) for name, value in tensors["best"].items() if name.startswith(f"{part}.")}
        for part in ("recommender", "tokenizer")
    }
    loop.best = Best(best["recommender"], best["tokenizer"], _table(tensors["best"]), state["best"]["epoch"], state["best"]["ndcg"])
    loop.position = Position(**{name: state[name] for name in ("epoch", "batch", "step", "stale")})
    loop.curves = [dict(row) for row in state["curves"]]
    loop.gradients.load(state["gradients"])


def restore_generators(loop: Loop, checkpoint: Checkpoint) -> None:
    """This rank's generators as they were; after a change of the number of ranks, fresh ones keyed by (seed, step, rank)."""
    states, rank = checkpoint.tensors["rng"], loop.ranks.rank
    kinds = ("cpu", "cuda") if loop.device.type == "cuda" else ("cpu",)
    if checkpoint.state["world"] != loop.ranks.world or any(f"{kind}.{rank}" not in states for kind in kinds):
        torch.manual_seed((loop.training.seed + checkpoint.step) * _RANK_STRIDE + rank)
        if rank == 0:
            loop.progress.message("resumed on other ranks or another device: dropout continues with new, equally reproducible draws")
        return
    torch.set_rng_state(states[f"cpu.{rank}"])
    if loop.device.type == "cuda":
        torch.cuda.set_rng_state(states[f"cuda.{rank}"])


def _table_tensors(table: IdTable) -> Tensors:
    return {"codes": table.codes_NM, "suffix": table.suffix_N}


def _table(tensors: Mapping[str, Any]) -> IdTable:
    return IdTable(tensors["codes"].clone(), tensors["suffix"].clone())


def learning_copy(tokenizer: Tokenizer, joint: JointModelConfig) -> Tokenizer:
    """A copy whose parameters ask for a gradient exactly where they learn."""
    prepared = copy.deepcopy(tokenizer)
    for name, parameter in prepared.named_parameters():
        learns = joint.tokenizer == "joint" and (name == "codebooks" or joint.train_encoder)
        parameter.requires_grad_(learns)
    return prepared


def built_recommender(config: RecommenderConfig, tokenizer: Tokenizer, seed: int, start: Mapping[str, Tensor] | None) -> Recommender:
    """A recommender whose initial weights depend on the seed alone, not on the rank; or the one whose tensors are `start`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = Recommender(config, tokenizer.codes, tokenizer.levels, suffix_values(tokenizer))
    if start is not None:
        wanted, found = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (built.state_dict(), start))
        if wanted != found:
            name = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))[0]
            raise DigerError(
                f"warm start: the baseline's recommender has {name} of shape {found.get(name, 'none')}, these params ask for "
                f"{wanted.get(name, 'none')}: keep the recommender's and the tokenizer's sizes, or set retraining.start=scratch"
            )
        built.load_state_dict(start)
    return built
