"""Which parameters learn how fast, and which of them decay."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from diger_core.config import JointModelConfig, TrainingConfig
from diger_core.training.optimisation import FusedAdamW, Optimisation


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


def test_the_functional_adamw_is_torch_s_own_to_the_bit() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(7, 5), nn.Linear(7, 5)
    theirs.load_state_dict(ours.state_dict())
    rates = [torch.tensor(0.01), torch.tensor(0.02)]
    first = FusedAdamW([{"params": [p], "lr": r, "weight_decay": d} for p, r, d in zip(ours.parameters(), rates, (0.1, 0.0), strict=True)])
    groups = [{"params": [p], "lr": r, "weight_decay": d} for p, r, d in zip(theirs.parameters(), rates, (0.1, 0.0), strict=True)]
    second = torch.optim.AdamW(groups, fused=True)
    for step in range(4):
        rates[0].fill_(0.01 / (step + 1))
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        if step == 2:
            ours.bias.grad = theirs.bias.grad = None  # a parameter without a gradient stands still, and so does its count
        first.step()
        second.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)
        assert {name: value.tolist() for name, value in first.state[p].items()} == {name: value.tolist() for name, value in second.state[q].items()}


def test_a_step_does_not_import_torch_s_compiler() -> None:
    code = """
import sys, torch
from diger_core.config import JointModelConfig, TrainingConfig
from diger_core.training.device import reproducible
from diger_core.training.distributed import Distributed
from diger_core.training.optimisation import Optimisation
model, none = torch.nn.Linear(3, 2), torch.nn.Identity()
with reproducible(TrainingConfig(), torch.device("cpu"), Distributed()):
    assert torch.are_deterministic_algorithms_enabled()
    optimisation = Optimisation(model, none, TrainingConfig(), JointModelConfig(), total_steps=3)
    model(torch.ones(1, 3)).sum().backward()
    optimisation.step()
    optimisation.zero_grad()
assert not torch.are_deterministic_algorithms_enabled()
assert model.weight.grad is None
sys.exit("torch._dynamo" in sys.modules or "torch._inductor" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
