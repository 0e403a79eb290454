"""Bundles and gates over made-up models in a real store: what the tests of the release start from. Nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from diger_core.config import NeighboursConfig, RecommenderConfig, TokenizerConfig, TrainingConfig
from diger_core.data.neighbours import ItemTable, empty_table, transitions
from diger_core.data.sequences import sequences
from diger_core.evaluation.recipes import Fitted, Recipe
from diger_core.ids.id_table import IdTable, assignment_hash, item_hash_order, stable_suffixes, to_arrow
from diger_core.progress import Silent
from diger_core.recommender.model import Recommender
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from diger_core.tokenizer.rqvae import Tokenizer, tokenizer_state
from orchestration.champion.log import Entry, current
from orchestration.champion.model_artefact import with_assignment, write_model
from orchestration.engine.registry import Registered
from orchestration.engine.runner import Session
from orchestration.features.embeddings import write_state
from orchestration.features.encoders import EncoderState
from orchestration.features.neighbour_blocks import counted_tables
from orchestration.graph import BY_NAME
from orchestration.params.load import build_params
from orchestration.params.sections import Params

SHAPE = RecommenderConfig(encoder_layers=1, decoder_layers=1, d_model=16, d_ff=32, heads=2, d_head=8, history=6, history_input="hard")
CODES, LEVELS, SUFFIXES, WIDTH, FACTORS = 8, 2, 16, 5, 3
ITEMS, USERS = 40, 60
EASY: dict[str, Any] = {  # untrained models: what they recommend is noise
    "evaluation": {"beams": 20, "bootstrap": 100},
    "gate": {
        "beat_baseline": False,
        "beat_most_popular": False,
        "min_coverage": 0.0,
        "judge": "mean",  # 60 users: the intervals are wide
        "min_relative_ndcg": 0.0,
        "min_relative_anchor": 0.0,
        "min_relative_slice": 0.0,
        "bootstrap": 100,
    },
    "cluster": {"workers": 0},
}


# Lists are the model's own, so that what differs between two made-up models shows; what counting gives is there to be compared with.
MODEL_ALONE = Fitted(
    {"item_item": Recipe({"transitions": 1.0}, raw=True), "most_popular": Recipe({"popular": 1.0}, raw=True)},
    Recipe({"generative": 1.0}),
    None,
    ({"generative": 1.0}, {"generative": 1.0}),
    0.0,
    0.0,
)
COUNTED = Recipe({"transitions": 1.0}, {"transitions": 0.2}, raw=True)  # what follows the last item: on walks as good as any rule


def item_name(index: int) -> str:
    return f"item-{index:03d}"


def easy(**gate: Any) -> Params:
    """Parameters under which an untrained candidate passes; `gate` replaces single rules."""
    return build_params({**EASY, "gate": EASY["gate"] | gate})


class ReleaseWorld:
    """A store; `candidate` publishes everything that a bundle is made of, and the bundle."""

    def __init__(self, folder: Path | str) -> None:
        self.store = Store(folder)
        with self.store.writer("encoder") as out:
            write_state(out, EncoderState({"encoder": "vectors", "width": WIDTH}))
            out.facts.update(encoder="vectors", width=WIDTH)
            self.encoder = self.store.publish(out)

    def data(
        self,
        seed: int = 0,
        items: Iterable[int] = range(ITEMS),
        users: int = USERS,
        start: int = 1_000,
        *,
        walks: bool = False,
        sold: int | None = None,
        text: ItemTable | None = None,
    ) -> dict[str, Artefact]:
        """Sequences of random events, embeddings and item-to-item tables over the named items.

        `walks`: every user goes from item to item in the order of `items` instead. `sold`: only so many of the items have events.
        `text`: neighbours by text; none unless given.
        """
        random, names = np.random.default_rng(seed), pa.array([item_name(i) for i in items])
        lengths = random.integers(3, 12, users)
        user = np.repeat(np.arange(users), lengths)
        chosen = (random.power(0.5, len(user)) * (sold or len(names))).astype(int)
        if walks:
            chosen = (np.repeat(chosen[np.cumsum(lengths) - 1] - np.cumsum(lengths), lengths) + np.arange(len(user))) % len(names)
        item = names.take(pa.array(chosen))
        events = pa.table({"user_id": user, "item_id": item, "timestamp": start + np.arange(len(user))})
        seq, item_table, user_table = sequences(events, pa.table({"item_id": names}))

        def write_sequences(out: Any) -> None:
            out.tensors("sequences.safetensors", seq.to_tensors())
            out.table("items.parquet", item_table, sort_by=("item_index",))
            out.table("users.parquet", user_table, sort_by=("user_index",))
            out.facts.update(events=len(seq.events_E), users=seq.users)

        def write_embeddings(out: Any) -> None:
            columns = {"item_index": item_table["item_index"], "item_id": item_table["item_id"], "text_hash": item_table["item_id"]}
            out.tensors("vectors.safetensors", {"vectors": torch.randn(len(names), WIDTH, generator=torch.Generator().manual_seed(seed))})
            out.table("texts.parquet", pa.table(columns), sort_by=("item_index",))
            out.facts.update(encoder_hash=self.encoder.hash)

        def write_neighbours(out: Any) -> None:
            tables = {name: transitions(counted, NeighboursConfig()) for name, counted in counted_tables(seq).items()}
            tables["text"] = text or empty_table(seq.items)
            out.tensors("neighbours.safetensors", {key: tensor for name, table in tables.items() for key, tensor in table.to_tensors(name).items()})

        made = {"sequences": self.publish("sequences", write_sequences), "embeddings": self.publish("embeddings", write_embeddings)}
        made["neighbours"] = self.publish("neighbours", write_neighbours)
        checks = {"passed": True, "seed": seed, "checks": [], "counts": {}}
        columns = {"item_id": names, "title": [f"thing {i % 7}" for i in range(len(names))], "brand": [f"brand-{i % 4}" for i in range(len(names))]}

        def write_items(out: Any) -> None:
            out.json("checks.json", checks)
            out.table("items.parquet", pa.table(columns), sort_by=("item_id",))

        made["validated_items"] = self.publish("validated_items", write_items)
        made["validated_interactions"] = self.publish("validated_interactions", lambda out: out.json("checks.json", checks))
        return made

    def candidate(
        self, seed: int = 0, data: Mapping[str, Artefact] | None = None, table: IdTable | None = None, **inputs: Artefact
    ) -> dict[str, Artefact]:
        """An untrained model of this seed over `data`, with a random ID table unless one is given, and its bundle."""
        made: dict[str, Artefact] = dict(data or self.data())
        item_ids = made["sequences"].table("items.parquet")["item_id"]
        table = table or random_table(item_ids, seed)
        torch.manual_seed(seed)
        weights, document = tokenizer_state(Tokenizer(WIDTH + FACTORS, CODES, TokenizerConfig(levels=LEVELS, codes=CODES, code_dim=4, hidden=(8,))))
        model = Recommender(SHAPE, CODES, LEVELS, SUFFIXES)
        with torch.no_grad():
            for tokens in model.token_tables:
                tokens.mul_(50)  # wide enough apart that different users get different items
        tensors = {f"recommender.{k}": v for k, v in model.state_dict().items()} | {f"tokenizer.{k}": v for k, v in weights.items()}
        config = {
            "recommender": asdict(SHAPE),
            "training": asdict(TrainingConfig()),
            "tokenizer": document,
            "codes": CODES,
            "levels": LEVELS,
            "suffixes": SUFFIXES,
            "alarm": None,
        }
        factors = torch.randn(len(item_ids), FACTORS, generator=torch.Generator().manual_seed(seed))
        hash_ = assignment_hash(item_ids, table)

        def write_semantic_ids(out: Any) -> None:
            out.table("semantic_ids.parquet", with_assignment(to_arrow(item_ids, table), hash_), sort_by=("item_id",))
            out.facts.update(assignment_hash=hash_)

        made["tokenizer"] = self.publish("tokenizer", lambda out: out.tensors("inputs.safetensors", {"factors": factors}))
        made["joint_model"] = self.publish("joint_model", lambda out: write_model(out, tensors, config, item_ids, table, []))
        made["refit"] = self.publish("refit", lambda out: write_model(out, tensors, config, item_ids, table, []))
        made["semantic_ids"] = self.publish("semantic_ids", write_semantic_ids)
        made["fusion"] = self.publish("fusion", lambda out: out.json("fusion.json", MODEL_ALONE.document()))
        made |= inputs
        made["bundle"] = self.compute("bundle", made)
        return made

    def publish(self, stage: str, write: Any) -> Artefact:
        with self.store.writer(stage) as out:
            write(out)
            return self.store.publish(out)

    def compute(self, name: str, inputs: Mapping[str, Artefact], params: Params | None = None, said: Any = None) -> Artefact:
        """Runs the stage's function on the inputs, as the runner would."""
        with self.store.writer(name) as out:
            run = SimpleNamespace(
                stage=BY_NAME[name],
                key="k" * 64,
                inputs=inputs,
                params=params or easy(),
                out=out,
                store=self.store,
                progress=said or Silent(),
                facts=lambda **values: out.facts.update(values),
                note=lambda **values: None,
            )
            BY_NAME[name].compute(run)
            return self.store.publish(out)


def random_table(item_ids: Any, seed: int) -> IdTable:
    """Random codes with sound suffixes."""
    codes_NM = torch.from_numpy(np.random.default_rng(seed).integers(0, CODES, (len(item_ids), LEVELS)).astype(np.int32))
    suffix_N, overflow = stable_suffixes(codes_NM, item_hash_order(item_ids), suffixes=SUFFIXES)
    assert not overflow
    return IdTable(codes_NM, suffix_N)


def launched(world: ReleaseWorld, made: Mapping[str, Artefact], params: Params | None = None) -> Session:
    """A new session in which everything before the gate exists, as a person's lone click on `gate` or `release` finds it."""
    report = world.publish("report", lambda out: out.json("report.json", {"bundle": made["bundle"].hash}))
    known = {name: ("k" * 64, artefact) for name, artefact in {**made, "report": report}.items()}
    store = Store(world.store.url)  # nothing remembered from before
    snapshot = Registered("snap-00000000", "nowhere", "0" * 64, {}, None, "2026-01-01T00:00:00+00:00")
    return Session(store, params or easy(), snapshot, _known=known)


def released(world: ReleaseWorld, made: Mapping[str, Artefact], params: Params | None = None) -> Entry:
    """Gate and release, one after the other; the entry that was made."""
    session = launched(world, made, params)
    for name in ("gate", "release"):
        session.materialise(BY_NAME[name])
    entry = current(session.store)
    assert entry is not None
    return entry
