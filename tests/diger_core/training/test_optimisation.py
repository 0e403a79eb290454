"""Which parameters learn how fast, and which of them decay."""

from __future__ import annotations

import torch
from torch import nn

from diger_core.config import JointModelConfig, TrainingConfig
from diger_core.training.optimisation import Optimisation


class Tokenizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.ones(2, 4, 3))
        self.encoder = nn.Linear(3, 3)


def test_each_group_has_its_own_rate_and_decay() -> None:
    """The recommender's decay would pull the codebooks together, away from the vectors that they stand for."""
    recommender, tokenizer = nn.Linear(3, 2), Tokenizer()
    training = TrainingConfig(learning_rate=0.1, weight_decay=0.5)
    joint = JointModelConfig(codebook_learning_rate=0.2, codebook_weight_decay=0.0, encoder_learning_rate=0.3)
    optimisation = Optimisation(recommender, tokenizer, training, joint, total_steps=10)
    found = {id(p): (round(float(group["lr"]), 6), group["weight_decay"]) for group in optimisation.adamw.param_groups for p in group["params"]}
    assert {found[id(p)] for p in recommender.parameters()} == {(0.1, 0.5)}
    assert found[id(tokenizer.codebooks)] == (0.2, 0.0)
    assert {found[id(p)] for p in tokenizer.encoder.parameters()} == {(0.3, 0.5)}
    for parameter in optimisation.parameters:
        parameter.grad = torch.zeros_like(parameter)
    before = recommender.weight.detach().clone()
    optimisation.step()
    assert torch.equal(tokenizer.codebooks, torch.ones(2, 4, 3))
    assert not torch.equal(recommender.weight, before)
