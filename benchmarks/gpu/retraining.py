"""Retraining as the catalogue grows: a data set cut by date into successive snapshots, and at each one the ways to continue from the one before.

    python -m benchmarks.gpu retraining --cuts 0 1 2 3 --methods scratch cold anchored pinned free --seeds 0

Cut 0 is trained from scratch. At each later one: `scratch` (new tokenizer, aligned to the one before, new recommender), `cold` (no training: new
items get IDs under the old tokenizer), and warm retraining with each stability (`anchored:0.3` names another cost than --anchor). Each method
continues from its own result of the cut before. Results are kept in --state, so that the same command, given again, continues where its time ended.
Compared at each cut, on the same users: the last event of each user in it; `new items`: targets that the cut before did not know.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.common import Data, device, record, wait
from benchmarks.gpu.quality import changed
from diger_core.config import EvaluationConfig, ModelConfig
from diger_core.data.sequences import Sequences
from diger_core.data.splits import training_counts
from diger_core.errors import CollapseError
from diger_core.evaluation.metrics import ndcg, paired_bootstrap, recall
from diger_core.evaluation.ranking import rank_targets
from diger_core.ids.alignment import align, rename_codebooks, rename_codes
from diger_core.ids.id_diff import changed_histories, id_diff, migration
from diger_core.ids.id_table import IdTable, item_hash_order, refresh, to_arrow
from diger_core.ids.stability import Hold, traffic_weights
from diger_core.presets import preset
from diger_core.recommender.history_input import table_tokens
from diger_core.tokenizer.rqvae import Tokenizer, tokenizer_from_state, tokenizer_state
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Loop
from diger_core.training.table_refresh import suffix_values

SHARES = (0.7, 0.8, 0.9, 1.0)
Given = argparse.Namespace


@dataclass(frozen=True)
class Cut:
    """One snapshot. `rows_N`: its items' rows in the whole catalogue, ascending, so that their canonical order stays."""

    data: Data
    rows_N: np.ndarray
    new_N: np.ndarray  # items that the cut before did not know


@dataclass(frozen=True)
class State:
    """What a run leaves for the next cut. `released`: table of the whole catalogue, -1 for items unknown so far; `reserved`: all released tuples."""

    tokenizer: Tokenizer
    recommender: dict[str, Tensor]
    released: IdTable
    reserved: Tensor
    rank_T: np.ndarray
    meta: dict[str, Any]


def cuts(data: Data) -> list[Cut]:
    """The events up to each share's date, and the items that occur in them."""
    seq = data.sequences
    if seq.timestamps_E is None:
        raise SystemExit("retraining: sequences.safetensors holds no timestamps: make the inputs again from interactions with a timestamp column")
    made: list[Cut] = []
    for share in SHARES:
        inside_E = seq.timestamps_E <= np.quantile(seq.timestamps_E, share, method="lower")
        counts_E1 = np.append(0, np.cumsum(inside_E))
        rows_N = np.unique(seq.events_E[inside_E])
        number = np.full(seq.items, -1, np.int32)
        number[rows_N] = np.arange(len(rows_N), dtype=np.int32)
        part = Sequences(number[seq.events_E[inside_E]], counts_E1[seq.offsets_U1], len(rows_N), seq.timestamps_E[inside_E])
        new_N = ~np.isin(rows_N, made[-1].rows_N) if made else np.zeros(len(rows_N), bool)
        vectors_ND = data.vectors_ND[torch.from_numpy(rows_N)]
        made.append(Cut(Data(data.name, part, data.item_ids.take(pa.array(rows_N)), vectors_ND, data.real_vectors), rows_N, new_N))
    return made


def spread(table: IdTable, rows_N: np.ndarray, items: int) -> IdTable:
    """A cut's table in the rows of the whole catalogue, -1 elsewhere."""
    rows = torch.from_numpy(rows_N).long()
    codes = torch.full((items, table.codes_NM.shape[1]), -1, dtype=torch.int32)
    suffix = torch.full((items,), -1, dtype=torch.int32)
    codes[rows], suffix[rows] = table.codes_NM.cpu().int(), table.suffix_N.cpu().int()
    return IdTable(codes, suffix)


def at(table: IdTable, rows_N: np.ndarray) -> IdTable:
    rows = torch.from_numpy(rows_N).long()
    return IdTable(table.codes_NM[rows], table.suffix_N[rows])


class Runs:
    """All runs of one command: settings, time, and the states kept between commands."""

    def __init__(self, data: Data, given: Given) -> None:
        self.given, self.chosen, self.begun = given, preset(given.preset), time.perf_counter()
        self.cuts, self.items, self.item_ids = cuts(data), data.sequences.items, data.item_ids
        training = replace(self.chosen.training, deterministic=False, compile=device().type == "cuda", device=device().type)
        self.training = changed(training, "training", given.set)
        self.settings = changed(self.chosen.tokenizer, "tokenizer", given.set)
        self.joint = changed(self.chosen.variant(given.joint), "joint", given.set)
        self.recommender = changed(replace(self.chosen.recommender, history=given.history), "recommender", given.set)

    @property
    def left(self) -> float:
        return self.given.seconds - (time.perf_counter() - self.begun)

    def path(self, cut: int, method: str, seed: int) -> Path:
        label = f"-{self.given.label}" if self.given.label and method not in ("scratch", "cold") else ""
        return self.given.state / f"{cut}-{method.replace(':', '_')}{label}-{seed}.safetensors"

    def load(self, cut: int, method: str, seed: int) -> State | None:
        path = self.path(cut, method if cut else "scratch", seed)
        if not path.with_suffix(".json").exists():
            return None
        tensors, meta = load_file(path), json.loads(path.with_suffix(".json").read_text())
        parts = {part: {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")} for part in ("tok", "rec")}
        tok = tokenizer_from_state(parts["tok"], meta["tokenizer"])
        return State(tok, parts["rec"], IdTable(tensors["codes"], tensors["suffix"]), tensors["reserved"], tensors["rank"].numpy(), meta)

    def save(self, cut: int, method: str, seed: int, state: State) -> None:
        tensors, document = tokenizer_state(state.tokenizer)
        path = self.path(cut, method, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"tok.{k}": v for k, v in tensors.items()} | {f"rec.{k}": v.detach().cpu().contiguous().clone() for k, v in state.recommender.items()}
        flat |= {"codes": state.released.codes_NM, "suffix": state.released.suffix_N, "reserved": state.reserved.int()}
        save_file({**flat, "rank": torch.from_numpy(state.rank_T.astype(np.int32))}, path)
        path.with_suffix(".json").write_text(json.dumps({**state.meta, "tokenizer": document}))

    # One run

    def run(self, index: int, method: str, seed: int) -> State | None:
        """Trains (or only extends) at one cut from the method's state of the cut before; None where that is missing or time is short."""
        before = self.load(index - 1, method, seed) if index else None
        if index and before is None:
            print(f"{index}-{method}-{seed}: the cut before was not run with this method", flush=True)
            return None
        epochs = self.training.epochs if method == "scratch" else self.given.warm_epochs
        if method != "cold" and not self.fits(epochs):
            print(f"{index}-{method}-{seed}: not enough time left ({self.left:.0f} s): give the command again", flush=True)
            return None
        cut, started = self.cuts[index], time.perf_counter()
        tok = before.tokenizer if before is not None and method != "scratch" else self.fresh(cut, before, seed)
        wait()
        meta: dict[str, Any] = {"tokenizer_seconds": time.perf_counter() - started, "curve": [], "epochs": 0 if method == "cold" else epochs}
        released = at(before.released, cut.rows_N) if before is not None else None
        reserved = before.reserved if before is not None else None
        if method == "cold":
            assert before is not None
            table = self.extended(cut, tok, released, reserved)
            recommender = before.recommender
            meta |= {"seconds": time.perf_counter() - started, "best_epoch": 0, "validation_ndcg@10": None, "alarm": None}
        else:
            loop = self.loop(cut, tok, method, released, reserved, before, seed)
            meta |= self.train(loop, started)
            table = loop.state.best.load(loop.state.recommender, loop.state.tokenizer)
            recommender, tok = dict(loop.state.recommender.state_dict()), loop.state.tokenizer
        rank_T = self.ranked(cut, tok, recommender, table, seed)
        whole = spread(table, cut.rows_N, self.items)
        if before is not None:  # an item that left keeps its last tuple; its row stays as it was
            gone = whole.suffix_N < 0
            whole = IdTable(
                torch.where(gone[:, None], before.released.codes_NM, whole.codes_NM), torch.where(gone, before.released.suffix_N, whole.suffix_N)
            )
        tuples = whole.tuples[whole.suffix_N >= 0]
        every = torch.unique(tuples if reserved is None else torch.cat([reserved.to(tuples), tuples]), dim=0)
        return State(tok.cpu(), recommender, whole, every, rank_T, meta)

    def fits(self, epochs: int) -> bool:
        """Whether a run is likely to end in time, by the dearest epoch of the runs so far."""
        curves = [json.loads(path.read_text())["curve"] for path in self.given.state.glob("*.json")] if self.given.state.exists() else []
        dearest = max(((c[-1]["seconds"] - c[0]["seconds"]) / max(1, c[-1]["epoch"] - c[0]["epoch"]) for c in curves if len(c) > 1), default=0.0)
        return self.left > 1.1 * epochs * dearest

    def fresh(self, cut: Cut, before: State | None, seed: int) -> Tokenizer:
        """A new tokenizer, its codes named like those of the cut before, where there is one."""
        tok = tokenizer(cut.data.vectors_ND.to(device()), replace(self.settings, seed=seed), device=device())[0]
        if before is None:
            return tok
        old = at(before.released, cut.rows_N)
        known = old.suffix_N >= 0
        with torch.no_grad():
            new_NM = tok.quantise(tok.encode(cut.data.vectors_ND.to(device()))).cpu()
        return rename_codebooks(tok, align(old.codes_NM[known], new_NM[known], tok.codes))

    def extended(self, cut: Cut, tok: Tokenizer, released: IdTable | None, reserved: Tensor | None) -> IdTable:
        with torch.no_grad():
            vectors_ND, order_N = cut.data.vectors_ND.to(device()), item_hash_order(cut.data.item_ids)
            return refresh(
                tok.to(device()), vectors_ND, order_N, suffixes=suffix_values(tok), released=released, held=Hold("pinned"), reserved=reserved
            )[0]

    def loop(self, cut: Cut, tok: Tokenizer, method: str, released: IdTable | None, reserved: Tensor | None, before: State | None, seed: int) -> Loop:
        mode, _, anchor = method.partition(":")
        warm = method != "scratch"
        held = Hold(mode, float(anchor or self.given.anchor), traffic_weights(cut.data.sequences, "log")) if warm else None  # type: ignore[arg-type]
        training = replace(self.training, seed=seed)
        if warm:
            training = replace(training, epochs=self.given.warm_epochs, learning_rate=self.given.warm_rate or training.learning_rate)
        data = cut.data
        inputs = TrainingInputs(
            data.vectors_ND, data.sequences, data.item_ids, tok, previous=released, reserved=reserved, held=held,
            start=before.recommender if warm and before is not None else None,
        )  # fmt: skip
        return Loop(inputs, ModelConfig(self.recommender, training, self.joint), device=device())

    def train(self, loop: Loop, started: float) -> dict[str, Any]:
        """Epochs to the end, the early stop, an alarm or the end of the command's time; each one's validation with the seconds since `started`."""
        loop.use_graphs()
        loop.evaluate_start()
        curve, alarm = [], None
        if loop.state.best.ndcg >= 0:
            curve.append({"epoch": 0, "seconds": self.since(started), "ndcg": loop.state.best.ndcg})
        while alarm is None and loop.state.position.epoch < loop.training.epochs and loop.state.position.stale < loop.training.patience:
            try:
                for _ in loop.epoch_steps():
                    pass
                loop.end_of_epoch()
            except CollapseError as stopped:
                alarm = str(stopped)
                break
            row = loop.state.curves[-1]
            curve.append({"epoch": row["epoch"], "seconds": self.since(started), "ndcg": row["validation_ndcg_10"], "flipped": row["flipped"]})
            if row["epoch"] % 5 == 1:
                print("   ", {k: round(v, 4) for k, v in curve[-1].items() if v is not None}, flush=True)
            if self.left < 0:
                alarm = "stopped by the time limit of the command"
        seconds = self.since(started)
        return {"curve": curve, "best_epoch": loop.state.best.epoch, "validation_ndcg@10": loop.state.best.ndcg, "seconds": seconds, "alarm": alarm}

    def since(self, started: float) -> float:
        wait()
        return time.perf_counter() - started

    def ranked(self, cut: Cut, tok: Tokenizer, tensors: dict[str, Tensor], table: IdTable, seed: int) -> np.ndarray:
        from diger_core.training.state import built_recommender

        recommender = built_recommender(self.recommender, tok, seed, {k: v.cpu() for k, v in tensors.items()}).to(device()).eval()
        config = EvaluationConfig(beams=max(self.training.beams, 10), recall_at=(5, 10), ndcg_at=(5, 10))
        with torch.no_grad():
            tok = tok.to(device())
            tokens_NTd = table_tokens(recommender, table, tok, tok.encode(cut.data.vectors_ND.to(device())))
        given = (recommender, table.codes_NM, table.suffix_N, cut.data.sequences, "test", config, device())
        return rank_targets(*given, precision=self.training.precision, tokens_NTd=tokens_NTd).rank_T

    # Figures

    def figures(self, index: int, method: str, seed: int, state: State) -> dict[str, Any]:
        """One line of the table: quality of all users and on new items, churn against the cut before, cost, and the run from scratch beside it."""
        cut, rank_T = self.cuts[index], state.rank_T
        ends = cut.data.sequences.offsets_U1[1:][np.diff(cut.data.sequences.offsets_U1) >= 3] - 1
        new_T = cut.new_N[cut.data.sequences.events_E[ends]]
        meta = state.meta
        found: dict[str, Any] = {
            "recall@10": float(recall(rank_T, 10).mean()), "ndcg@10": float(ndcg(rank_T, 10).mean()), "users": len(rank_T),
            "new_targets": int(new_T.sum()), "items": len(cut.rows_N), "new_items": int(cut.new_N.sum()),
            "new_recall@10": float(recall(rank_T[new_T], 10).mean()) if new_T.any() else None,
            "new_ndcg@10": float(ndcg(rank_T[new_T], 10).mean()) if new_T.any() else None,
            "epochs_run": len([row for row in meta["curve"] if row["epoch"]]),
            **{k: meta[k] for k in ("seconds", "tokenizer_seconds", "best_epoch", "validation_ndcg@10", "alarm", "epochs")},
        }  # fmt: skip
        found |= self.churn(index, method, seed, state) if index else {}
        scratch = self.load(index, "scratch", seed)
        if scratch is not None and index and method != "scratch":
            found |= beside_scratch(rank_T, meta, scratch)
        return found

    def churn(self, index: int, method: str, seed: int, state: State) -> dict[str, Any]:
        """Kept IDs of the cut before, by item and weighted by training events; kept codes after naming the new ones like the old; users touched."""
        before = self.load(index - 1, method, seed)
        assert before is not None
        cut, tables = self.cuts[index], []
        for table, rows_N in ((before.released, self.cuts[index - 1].rows_N), (state.released, cut.rows_N)):
            tables.append(to_arrow(self.item_ids.take(pa.array(rows_N)), at(table, rows_N)))
        change = migration(*tables)
        weights = pa.table({"item_id": cut.data.item_ids, "weight": training_counts(cut.data.sequences).astype(float)})
        report = id_diff(change, weights)
        common = self.cuts[index - 1].rows_N
        old, new = before.released.codes_NM[common], state.released.codes_NM[common]
        renamed = rename_codes(new, align(old, new, state.tokenizer.codes))
        return {
            "kept": report["shares"]["kept"], "kept_weighted": report["weighted"]["kept"], "level_differs": report["shares"]["level_differs"],
            "moved": report["counts"]["moved"], "suffix_only": report["counts"]["suffix"],
            "kept_codes_aligned": float((renamed == old).all(1).double().mean()),
            "changed_users": changed_histories(change, cut.data.sequences, cut.data.item_ids)["changed_users_share"],
        }  # fmt: skip


def beside_scratch(rank_T: np.ndarray, meta: dict[str, Any], scratch: State) -> dict[str, Any]:
    """N@10 minus the scratch run's (paired bootstrap over users), and when the run reached the scratch run's best validation."""
    theirs = scratch.meta
    mean, low, high = paired_bootstrap(ndcg(rank_T, 10), ndcg(scratch.rank_T, 10), 2000, 0)
    level = float(ndcg(scratch.rank_T, 10).mean())
    reached = next((row for row in meta["curve"] if row["ndcg"] is not None and row["ndcg"] >= theirs["validation_ndcg@10"]), None)
    best = next((row["seconds"] for row in theirs["curve"] if row["epoch"] == theirs["best_epoch"]), theirs["seconds"])
    return {
        "ndcg_difference": mean, "ndcg_low": low, "ndcg_high": high, "ndcg_low_relative": low / level if level else None,
        "scratch_best_seconds": best, "reached_epoch": reached and reached["epoch"], "reached_seconds": reached and reached["seconds"],
    }  # fmt: skip


def compiled() -> bool:
    return device().type == "cuda"


def run(data: Data, given: Given) -> None:
    """The chosen cuts, methods and seeds, in an order in which each finds what it continues from; runs whose result is kept are only told again."""
    runs = Runs(data, given)
    for index, cut in enumerate(runs.cuts):
        print(f"cut {index}: {len(cut.data.sequences.events_E):,} events, {len(cut.rows_N):,} items, {int(cut.new_N.sum())} new", flush=True)
    for index in sorted(given.cuts):
        for seed in given.seeds:
            for method in sorted(given.methods, key=lambda name: name != "scratch") if index else ["scratch"]:
                state = runs.load(index, method, seed)
                if state is None:
                    print(f"{index}-{method}-{seed} after {time.perf_counter() - runs.begun:.0f} s", flush=True)
                    state = runs.run(index, method, seed)
                    if state is None:
                        continue
                    stopped = str(state.meta["alarm"] or "").startswith("stopped by")
                    if not stopped:
                        runs.save(index, method, seed, state)
                    if compiled():
                        torch.cuda.empty_cache()
                told = {"data": data.name, "label": given.label, "cut": index, "share": SHARES[index], "method": method, "seed": seed}
                told |= {"joint": given.joint, "history": given.history, "changes": given.set, "warm_rate": given.warm_rate, "anchor": given.anchor}
                record("retraining", {**told, **runs.figures(index, method, seed, state), "rows": state.meta["curve"]}, given.out)
