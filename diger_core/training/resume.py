"""A training state becomes a checkpoint between two steps, and a checkpoint the state that its run continues from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import torch

from diger_core.errors import DigerError
from diger_core.ids.id_table import IdTable, assignment_hash
from diger_core.training.checkpoint import Checkpoint, Tensors
from diger_core.training.device import RANK_STRIDE
from diger_core.training.distributed import Distributed
from diger_core.training.state import Best, Position, TrainingState


def checkpoint_of(state: TrainingState, item_ids: pa.Array, ranks: Distributed) -> Checkpoint:
    """A copy of the complete state. Every rank takes part (each has generators of its own) and gets the whole."""
    generators = {"cpu": torch.get_rng_state()}
    if state.device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state()
    gathered = {name: ranks.gather_bytes(values, state.device) for name, values in generators.items()}
    best = {f"recommender.{name}": value for name, value in state.best.recommender.items()}
    best |= {f"tokenizer.{name}": value for name, value in state.best.tokenizer.items()}
    tensors: dict[str, Tensors] = {
        "recommender": dict(state.recommender.state_dict()),
        "tokenizer": dict(state.tokenizer.state_dict()),
        "optimizer": state.optimisation.state(),
        "schedule": dict(state.schedule),
        "rng": {f"{name}.{rank}": values for name, ranked in gathered.items() for rank, values in enumerate(ranked)},
        "table": {**_table_tensors(state.table), "sums": state.sums, "usage": torch.stack(state.usage)},
        "best": {**best, **_table_tensors(state.best.table)},
    }
    document = {
        **asdict(state.position),
        "world": ranks.world,
        "curves": [dict(row) for row in state.curves],
        "gradients": state.gradients.state,
        "best": {"epoch": state.best.epoch, "ndcg": state.best.ndcg, "assignment_hash": assignment_hash(item_ids, state.best.table)},
        "assignment_hash": assignment_hash(item_ids, state.table),
        "fingerprint": state.fingerprint,
    }
    copied = {file: {name: value.detach().clone() for name, value in named.items()} for file, named in tensors.items()}
    return Checkpoint(copied, document)


def restore(state: TrainingState, checkpoint: Checkpoint, item_ids: pa.Array) -> None:
    """Puts a checkpoint into a state that has just begun. DigerError where it belongs to another configuration or to other data."""
    document, tensors = checkpoint.state, checkpoint.tensors
    where = f"checkpoint of step {checkpoint.step}"
    if "usage" not in tensors["table"]:
        raise DigerError(f"{where}: written by an earlier version of this code; remove it and train again")
    if document["fingerprint"] != state.fingerprint:
        raise DigerError(f"{where}: written with another configuration, tokenizer or data; remove it or restore those")
    try:
        state.recommender.load_state_dict(tensors["recommender"])
        state.tokenizer.load_state_dict(tensors["tokenizer"])
    except (RuntimeError, KeyError) as error:
        raise DigerError(f"{where}: its tensors do not fit this model ({str(error).splitlines()[0]})") from error
    state.optimisation.load_state(tensors["optimizer"])
    state.schedule = {name: value.to(state.device) for name, value in tensors["schedule"].items()}
    table = _table(tensors["table"], torch.device("cpu"))
    if assignment_hash(item_ids, table) != document["assignment_hash"]:
        raise DigerError(f"{where}: its ID table does not belong to these items; resume with the catalogue it was written for")
    state.table = _table(tensors["table"], state.device)  # beside the tables that later epochs make there
    state.sums.copy_(tensors["table"]["sums"])
    state.usage = list(tensors["table"]["usage"].cpu())
    best = {
        part: {name.removeprefix(f"{part}."): value.to(state.device) for name, value in tensors["best"].items() if name.startswith(f"{part}.")}
        for part in ("recommender", "tokenizer")
    }
    state.best = Best(
        best["recommender"], best["tokenizer"], _table(tensors["best"], state.device), document["best"]["epoch"], document["best"]["ndcg"]
    )
    state.position = Position(**{name: document[name] for name in ("epoch", "batch", "step", "stale", "last_from")})
    state.curves = [dict(row) for row in document["curves"]]
    state.gradients.load(document["gradients"])


def restore_generators(checkpoint: Checkpoint, seed: int, device: torch.device, ranks: Distributed) -> bool:
    """This rank's generators as they were; False after a change of the number of ranks: then fresh ones, keyed by (seed, step, rank)."""
    states, rank = checkpoint.tensors["rng"], ranks.rank
    kinds = ("cpu", "cuda") if device.type == "cuda" else ("cpu",)
    if checkpoint.state["world"] != ranks.world or any(f"{kind}.{rank}" not in states for kind in kinds):
        torch.manual_seed((seed + checkpoint.step) * RANK_STRIDE + rank)
        return False
    torch.set_rng_state(states[f"cpu.{rank}"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[f"cuda.{rank}"])
    return True


def _table_tensors(table: IdTable) -> Tensors:
    return {"codes": table.codes_NM, "suffix": table.suffix_N}


def _table(tensors: Mapping[str, Any], device: torch.device) -> IdTable:
    return IdTable(tensors["codes"].to(device, copy=True), tensors["suffix"].to(device, copy=True))
