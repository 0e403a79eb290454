"""A small run's artefacts in a real store, made from numbers instead of training: what the report's tests read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from diger_core.data.sequences import Sequences
from diger_core.evaluation.recipes import Fitted, Recipe
from diger_core.progress import Silent
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.verdict.models import BASELINES
from orchestration.verdict.report.identity import Identity

WORDS = ("Trail", "Copper", "Linen", "Compact", "Quiet", "Folding", "Ceramic", "Travel", "Daily", "Winter")
THINGS = ("kettle", "jacket", "lamp", "notebook", "speaker", "backpack", "chair", "knife", "blanket", "bottle")
SPLIT = {
    "split": "temporal",
    "train_until": "2026-03-01 11:59:59",
    "validate_until": "2026-04-01 08:30:00",
    "same_time_targets": 0.1896,
    "users_without_events_after_validation": 812,
    "users_new_after_validation": 95,
}
HOSTILE = (
    "<script>alert('x')</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
    "</title></style></script><h1>broken",
    "abc\u202egpj.exe",
    "&lt;b&gt; already escaped",
    "line\nbreak\x00null",
)


IDENTITY = Identity("shop-1-0123abcd")  # as the stage knows it
Gain = tuple[float, float, float]  # a difference with the ends of its interval
MODELS = {
    "lists": 0.16,
    "joint_model": 0.12,
    "frozen_model": 0.115,
    "lists_frozen": 0.158,
    "item_item_text": 0.14,
    "item_item": 0.13,
    "text": 0.08,
    "markov": 0.07,
    "recent_popular": 0.035,
    "most_popular": 0.03,
    "lists_earlier": 0.19,
    "baseline_earlier": 0.17,
}  # recall@10; NDCG@10 is half of it
BEATEN: Gain = (0.01, 0.006, 0.014)  # the lists above the strongest of these baselines


def fake_metrics(models: dict[str, float] = MODELS, gain: Gain = (0.005, 0.001, 0.009), beats: Gain = BEATEN) -> dict[str, Any]:
    """metrics.json whose recall@10 are the given ones. `gain`: joint minus frozen; `beats`: the lists minus each of the other models."""

    def row(value: float) -> dict[str, Any]:
        values = {f"recall@{k}": value * s for k, s in ((1, 0.2), (5, 0.6), (10, 1.0), (20, 1.5))} | {
            f"ndcg@{k}": value * s for k, s in ((5, 0.4), (10, 0.5), (20, 0.6))
        }
        return {**values, "intervals": {k: [v * 0.95, v * 1.05] for k, v in values.items()}}

    def difference(ours: str, theirs: str) -> dict[str, Any]:
        plain = (models[ours] - models[theirs], 0.01, 0.2)
        middle, low, high = gain if (ours, theirs) == ("joint_model", "frozen_model") else beats if ours == "lists" else plain
        return {k: {"mean": middle, "low": low, "high": high} for k in row(1.0)["intervals"]}

    names = list(models)
    differences = {f"{a} - {b}": difference(a, b) for place, a in enumerate(names) for b in names[place + 1 :]}
    slices = {s: {n: row(v * f) for n, v in models.items()} for s, f in (("head", 1.3), ("tail", 0.6), ("same_time", 1.4), ("other_time", 0.7))}
    return {
        "models": {n: row(v) for n, v in models.items()},
        "slices": slices,
        "differences": differences,
        "users": 1234,
        "period": {"events": 4321, "models": {n: row(v * 0.8) for n, v in models.items()}, "differences": differences},
        "slice_users": {"head": 800, "tail": 434, "new_items": 0, "same_time": 234, "other_time": 1000},
    }


def fake_curves(epochs: int = 12, levels: int = 3, scale: float = 1.0) -> list[dict[str, Any]]:
    return [
        {
            "epoch": e + 1,
            "step": (e + 1) * 40,
            "loss": 5.2 - 0.2 * e,
            "loss_gen": 5.0 - 0.2 * e / scale,
            "loss_vq": 0.1,
            "loss_recon": 0.2,
            "sigma": max(0.0, 1 - 0.1 * e),
            "noisy_share": max(0.0, 0.3 - 0.03 * e),
            "validation_recall_10": 0.12 * scale * (1 - np.exp(-(e + 1) / 3)),
            "validation_ndcg_10": 0.06 * scale * (1 - np.exp(-(e + 1) / 3)),
            "unique_prefixes": 2800 + 3 * e,
            "largest_group": 7,
            "flipped": 30 - e,
            "agreement": 0.9,
            "entropy": [4.0] * levels,
            "perplexity": [60.0 - j * 8 + e * 0.2 for j in range(levels)],
            "dead_codes": [j for j in range(levels)],
        }
        for e in range(epochs)
    ]


def fake_usage(codes_NM: np.ndarray, codes: int, epochs: int) -> pa.Table:
    """code_usage.parquet of a training that ends with the given codes: in each epoch fewer items are on code 0."""
    rows, crowd = [], len(codes_NM) // 3
    for epoch in range(epochs + 1):
        on_zero_N = np.arange(len(codes_NM)) < crowd * (epochs - epoch) // epochs
        for level in range(codes_NM.shape[1]):
            counts = np.bincount(np.where(on_zero_N, 0, codes_NM[:, level]), minlength=codes)
            rows.append({"epoch": epoch, "level": level + 1, "items": counts.tolist()})
    kinds = pa.schema([("epoch", pa.int32()), ("level", pa.int32()), ("items", pa.list_(pa.int32()))])
    return pa.Table.from_pylist(rows, schema=kinds)


def fake_fusion(fallback: str | None = None) -> dict[str, Any]:
    """fusion.json of a mixture, or of a baseline that serves because no mixture beat it."""
    counting = {
        "most_popular": Recipe({"popular": 1.0}, raw=True, ndcg=0.016),
        "item_item": Recipe({"transitions": 1.0}, {"transitions": 5.0}, True, 0.066),
        "item_item_text": Recipe({"transitions": 1.0, "text": 0.7}, {"transitions": 5.0, "text": 5.0}, True, 0.071),
    }
    weights = {"generative": 0.42, "transitions": 0.31, "text": 0.18, "repeat": 0.0, "recent": 0.07, "popular": 0.02}
    halves = ({**weights, "generative": 0.5, "transitions": 0.23}, {**weights, "generative": 0.36, "transitions": 0.37})
    mixture = Recipe(weights, {"transitions": 5.0, "text": 5.0, "repeat": 5.0}, ndcg=0.082)
    return Fitted(counting, counting[fallback] if fallback else mixture, fallback, halves, 0.14, 0.012).document()


def fake_verdict(gain: Gain | None, refused: str | None = None) -> dict[str, Any]:
    """verdict.json against a champion with the given difference in NDCG@10 and its interval; None: a first release. `refused`: a rule not met."""
    rules = [
        {"name": name, "passed": name != refused, "observed": 0.3, "wanted": 0.05, "message": f"{name} as measured"}
        for name in ("servable", "coverage", "best_baseline", "relative_ndcg")
    ]
    row: dict[str, Any] = {"ndcg@10": 0.08, "intervals": {"ndcg@10": [0.07, 0.09]}}
    beats = dict(zip(("mean", "low", "high"), BEATEN, strict=True))
    metrics: dict[str, Any] = {
        "users": 900,
        "models": {"candidate": row, "baseline": row},
        "baseline": {"name": "item_item_text", **beats, "slices": {name: {"users": 900, "difference": beats} for name in ("all", "tail")}},
    }
    if gain is not None:
        row = {"candidate": 0.08, "champion": 0.08 - gain[0], "difference": dict(zip(("mean", "low", "high"), gain, strict=True))}
        metrics |= {"slices": {name: {"users": users, "ndcg@10": row} for name, users in (("all", 900), ("head", 500))}, "fresh_targets": None}
    return {
        "verdict": "refuse" if refused else "accept",
        "candidate": "c" * 64,
        "champion": None if gain is None else "d" * 64,
        "rules": rules,
        "metrics": metrics,
    }


def fake_inputs(
    root: Path,
    items: int = 300,
    users: int = 120,
    codes: int = 16,
    frozen: bool = True,
    titles: dict[int, str] | None = None,
    gain: Gain = (0.005, 0.001, 0.009),
    beats: Gain = BEATEN,
    verdict: dict[str, Any] | None = None,
    epochs: int = 12,
    fallback: str | None = None,
    models: dict[str, float] = MODELS,
) -> dict[str, Artefact]:
    """Artefacts of every stage before `report`, published to a store under `root`. Events and codes are random with a fixed seed."""
    store, random = Store(root), np.random.default_rng(0)
    ids = pa.array([f"i{i:06d}" for i in range(items)])
    lengths = random.integers(1, 30, users)
    offsets = np.r_[0, np.cumsum(lengths)]
    events = (random.power(0.4, offsets[-1]) * items).astype(np.int32)
    code_NM = (random.beta(1, 2, (items, 3)) * codes).astype(np.int32)
    names = [(titles or {}).get(i, f"{WORDS[i % 10]} {THINGS[i // 10 % 10]} no. {i}") for i in range(items)]
    table = pa.table({"item_id": ids, **{f"code_{j + 1}": code_NM[:, j] for j in range(3)}, "suffix": pa.array(_suffixes(code_NM), pa.int32())})
    made: dict[str, Artefact] = {}

    def publish(stage: str, write: Any) -> None:
        with store.writer(stage) as out:
            write(out)
            made[stage] = store.publish(out)

    def checks(out: Any, name: str, rows: int) -> None:
        row = {"name": "row count", "passed": True, "severity": "critical", "message": f"{rows} rows"}
        warning = {"name": "title present", "passed": False, "severity": "warning", "column": "title", "message": "3 items have no title"}
        out.json(
            "checks.json",
            {
                "passed": True,
                "checks": [row, warning],
                "counts": {"rows_read": rows + 2, "rows_kept": rows, "quarantined": 2, "without_text": 0, "look_alike_ids": 0},
            },
        )
        reasons = pa.array(["duplicate item id", "duplicate item id"])
        out.table("quarantine.parquet", pa.table({"row": pa.array([4, 5]), "item_id": pa.array(["a", "b"]), "reason": reasons}), sort_by=("row",))

    def validated_items(out: Any) -> None:
        out.table("items.parquet", pa.table({"item_id": ids, "brand": pa.array(["Acme"] * items), "title": pa.array(names)}), sort_by=("item_id",))
        checks(out, "items", items)

    def sequences(out: Any) -> None:
        out.table("items.parquet", pa.table({"item_index": pa.array(range(items), pa.int32()), "item_id": ids}), sort_by=("item_index",))
        out.table(
            "users.parquet",
            pa.table({"user_index": pa.array(range(users), pa.int32()), "user_id": [f"secret-user-{u}" for u in range(users)]}),
            sort_by=("user_index",),
        )
        out.tensors("sequences.safetensors", Sequences(events, offsets, items).to_tensors())
        out.facts.update(SPLIT)

    def model(out: Any, scale: float, learns: bool = False) -> None:
        out.tensors(
            "model.safetensors", {"recommender.a": torch.zeros(10, 7), "tokenizer.codebooks": torch.zeros(3, codes, 4)}, {"assignment_hash": "h"}
        )
        out.json("config.json", {"forward": "cached", "schedule": {"name": "frqud"}})
        out.json("curves.json", fake_curves(epochs, scale=scale))
        if learns:
            out.table("code_usage.parquet", fake_usage(code_NM, codes, epochs), sort_by=("epoch", "level"))

    def evaluation(out: Any) -> None:
        metrics = fake_metrics({n: v for n, v in models.items() if frozen or n not in ("frozen_model", "lists_frozen")}, gain, beats)
        out.json("metrics.json", metrics)
        counting = {name: values for name, values in metrics["models"].items() if name in BASELINES}
        out.json("leave_one_out.json", {**metrics, "models": counting, "users": 2 * metrics["users"]})
        chosen = list(range(min(8, users)))
        lists = pa.list_(pa.int32())
        recommended = [random.choice(items, min(10, items), replace=False).tolist() for _ in chosen]
        columns = {
            "user_index": pa.array(chosen, pa.int32()),
            "history": pa.array([events[offsets[u] : offsets[u + 1]].tolist() for u in chosen], lists),
            "target": pa.array([r[min(2, items - 1)] for r in recommended], pa.int32()),
            "lists": pa.array([r[1:] + r[:1] for r in recommended], lists),
            "joint_model": pa.array(recommended, lists),
        }
        if frozen:
            columns["frozen_model"] = pa.array([r[::-1] for r in recommended], lists)
        out.table("recommendations.parquet", pa.table(columns), sort_by=("user_index",))

    publish("validated_items", validated_items)
    publish("validated_interactions", lambda out: checks(out, "interactions", int(offsets[-1])))
    publish("sequences", sequences)
    publish(
        "embeddings", lambda out: out.tensors("vectors.safetensors", {"vectors": torch.from_numpy(random.normal(size=(items, 8)).astype(np.float32))})
    )
    publish(
        "tokenizer",
        lambda out: (
            out.json("config.json", {"codes": codes}),
            out.json("curves.json", [{"epoch": e, "loss": 2 / (e + 1), "collisions": 90 - e} for e in range(20)]),
        ),
    )
    if frozen:
        publish("frozen_model", lambda out: model(out, 0.95))
    publish("joint_model", lambda out: model(out, 1.0, learns=True))
    publish("semantic_ids", lambda out: out.table("semantic_ids.parquet", table, sort_by=("item_id",)))
    publish("fusion", lambda out: out.json("fusion.json", fake_fusion(fallback)))
    publish("evaluation", evaluation)
    if verdict is not None:
        publish("gate", lambda out: out.json("verdict.json", verdict))
    return made


def _suffixes(code_NM: np.ndarray) -> np.ndarray:
    seen: dict[tuple, int] = {}
    suffix = []
    for row in map(tuple, code_NM.tolist()):
        suffix.append(seen.get(row, 0))
        seen[row] = suffix[-1] + 1
    return np.array(suffix)


class FakeOut:
    """Collects what a stage writes, by name."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}

    def bytes(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def json(self, name: str, value: Any) -> None:
        self.files[name] = value

    def table(self, name: str, table: pa.Table, sort_by: Any = ()) -> None:
        self.files[name] = table


def fake_run(inputs: dict[str, Artefact], **params: Any) -> SimpleNamespace:
    """A StageRun as far as a stage sees it; `run.said` holds the facts."""
    said: dict[str, Any] = {}
    return SimpleNamespace(
        inputs=inputs,
        params=SimpleNamespace(**params),
        snapshot=SimpleNamespace(key=IDENTITY.snapshot),
        out=FakeOut(),
        facts=lambda **v: said.update(v),
        note=lambda **v: None,
        said=said,
        progress=Silent(),
    )
