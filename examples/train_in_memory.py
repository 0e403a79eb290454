"""Warm up a tokenizer, train it together with a recommender, and recommend: the core alone, all data in memory, some ten seconds on one CPU core."""

import numpy as np
import pyarrow as pa
import torch

from diger_core.config import EvaluationConfig, JointModelConfig, ModelConfig, RecommenderConfig, ScheduleConfig, TokenizerConfig, TrainingConfig
from diger_core.data.sequences import Sequences
from diger_core.evaluation.metrics import recall
from diger_core.evaluation.ranking import rank_targets
from diger_core.recommender.history_input import table_tokens
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import train

ITEMS, GROUPS, USERS, EVENTS = 60, 6, 80, 10
SCHEDULE = ScheduleConfig(name="frqud", r=1.5)


def data(seed: int = 0) -> TrainingInputs:
    """Users who walk through the items of one group, one after the other, and skip one now and then. An item's vector shows its group and place."""
    random, size = np.random.default_rng(seed), ITEMS // GROUPS
    steps_UE = 1 + (random.random((USERS, EVENTS)) < 0.1)
    place_UE = (random.integers(0, size, (USERS, 1)) + steps_UE.cumsum(axis=1)) % size
    events_E = (random.integers(0, GROUPS, (USERS, 1)) * size + place_UE).astype(np.int32).ravel()
    sequences = Sequences(events_E, np.arange(0, USERS * EVENTS + 1, EVENTS, dtype=np.int64), ITEMS)
    group_N, place_N = np.divmod(np.arange(ITEMS), size)
    shown_ND = np.concatenate([2 * np.eye(GROUPS)[group_N], np.eye(size)[place_N]], axis=1)
    vectors_ND = torch.from_numpy((shown_ND + 0.1 * random.normal(size=shown_ND.shape)).astype(np.float32))
    warm, _ = tokenizer(vectors_ND, TokenizerConfig(levels=2, codes=10, code_dim=8, hidden=(32,), epochs=50, seed=seed))
    return TrainingInputs(vectors_ND, sequences, pa.array([f"item-{i}" for i in range(ITEMS)]), warm)


def main(schedule: ScheduleConfig = SCHEDULE) -> float:
    """Trains, prints Recall@10 and a few recommendations, and returns the recall (chance: 10 of 60)."""
    inputs = data()
    recommender = RecommenderConfig(encoder_layers=1, decoder_layers=1, d_model=32, d_ff=64, heads=2, dropout=0.0, history=8)
    training = TrainingConfig(epochs=9, batch_size=16, learning_rate=3e-3, evaluate_every=3, device="cpu")
    trained = train(inputs, ModelConfig(recommender, training, JointModelConfig(schedule=schedule)))
    codes_NM, suffix_N, seq = trained.table.codes_NM, trained.table.suffix_N, inputs.sequences
    tokens_NTd = table_tokens(trained.recommender, trained.table, trained.tokenizer, trained.z_Ne)
    found = rank_targets(trained.recommender, codes_NM, suffix_N, seq, "test", EvaluationConfig(beams=20), tokens_NTd=tokens_NTd)
    recall_10 = float(recall(found.rank_T, 10).mean())
    print(f"Recall@10 {recall_10:.3f}, best epoch {trained.best_epoch}, {schedule.name}")
    for user, items_k in zip(found.users_T[:3], found.items_Tk[:3, :5], strict=True):
        print(f"user {user}: " + ", ".join(str(inputs.item_ids[int(item)]) for item in items_k))
    return recall_10


if __name__ == "__main__":
    main()
