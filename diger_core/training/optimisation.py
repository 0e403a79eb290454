"""AdamW over the recommender, the codebooks and the encoder; warm-up and cosine; gradient clipping (docs/method.md, section 3).

Learning rates live in 0-d tensors on the device, written by the host without waiting: a captured step reads the current value.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from diger_core.config import JointModelConfig, TrainingConfig
from diger_core.errors import DigerError


def warmup_steps(config: TrainingConfig, total_steps: int) -> int:
    """The configured warm-up, but at most 5% of all steps (docs/method.md, section 3)."""
    return min(config.warmup_steps, total_steps // 20)


def learning_rate_factor(step: int, warmup: int, total_steps: int) -> float:
    """The factor on every learning rate in step 0, 1, …: linear from 1/warmup to 1, then half a cosine down to 0 at `total_steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total_steps - warmup))))


class FusedAdamW:
    """torch.optim.AdamW(groups, fused=True) by its functional form, with the same kernel and state: the class imports torch's compiler at its first
    use, a second of every worker's start."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """Each group: `params`, `lr` (0-d, on their device) and `weight_decay`."""
        self.param_groups, self.state = groups, defaultdict[nn.Parameter, dict[str, Tensor]](dict)

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            known = [self._moments(p) for p in parameters]
            adamw(
                parameters, [p.grad for p in parameters if p.grad is not None], [k["exp_avg"] for k in known], [k["exp_avg_sq"] for k in known], [],
                [k["step"] for k in known], fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=group["lr"], weight_decay=group["weight_decay"],
                eps=1e-8, maximize=False,
            )  # fmt: skip

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        known = self.state[parameter]
        if not known:
            known["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq"):
                known[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return known


class Optimisation:
    """One fused AdamW with a group each for `recommender`, `codebooks` and `encoder` (the last two only where they learn).

    The recommender and the tokenizer are clipped separately: the tokenizer's gradient is small, and one common norm would let the
    recommender's decide how far the codebooks move.
    """

    def __init__(self, recommender: nn.Module, tokenizer: nn.Module, training: TrainingConfig, joint: JointModelConfig, total_steps: int,
                 first_step: int = 0) -> None:  # fmt: skip
        """`total_steps` from `first_step` on: the run's step in which these rates begin."""
        self.clip, self.total_steps, self.first_step = training.gradient_clip, total_steps, first_step
        self.warmup = warmup_steps(training, total_steps)
        self.names: dict[str, nn.Parameter] = {f"recommender.{name}": p for name, p in recommender.named_parameters() if p.requires_grad}
        self.clipped: list[list[nn.Parameter]] = [list(self.names.values())]
        learned = {name: p for name, p in tokenizer.named_parameters() if p.requires_grad}
        self.names |= {f"tokenizer.{name}": p for name, p in learned.items()}
        codebooks = [p for name, p in learned.items() if name == "codebooks"]
        encoder = [p for name, p in learned.items() if name != "codebooks"]
        settings = [
            (self.clipped[0], training.learning_rate, training.weight_decay),
            (codebooks, joint.codebook_learning_rate, joint.codebook_weight_decay),
            (encoder, joint.encoder_learning_rate, training.weight_decay),
        ]
        if learned:
            self.clipped.append(list(learned.values()))
        settings = [setting for setting in settings if setting[0]]
        device = self.clipped[0][0].device
        self.peaks = [rate for _, rate, _ in settings]
        self.rates = [torch.tensor(rate, dtype=torch.float32, device=device) for rate in self.peaks]
        groups = [{"params": p, "lr": rate, "weight_decay": decay} for (p, _, decay), rate in zip(settings, self.rates, strict=True)]
        self.adamw = FusedAdamW(groups)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.names.values())

    def set_rates(self, step: int) -> None:
        """Writes the learning rates of the run's step 0, 1, …."""
        factor = learning_rate_factor(step - self.first_step, self.warmup, self.total_steps)
        for rate, peak in zip(self.rates, self.peaks, strict=True):
            rate.fill_(peak * factor)

    def step(self) -> Tensor:
        """Clips recommender and tokenizer to the norm each, updates all parameters; returns the sum of the norms before clipping, 0-d."""
        norm = torch.zeros((), device=self.rates[0].device)
        for parameters in self.clipped:
            norm = norm + nn.utils.clip_grad_norm_(parameters, self.clip)
        self.adamw.step()
        return norm

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every state tensor as `<parameter name>|<moment>`: a plain flat dict, no numbering that a changed model could shift."""
        state = self.adamw.state
        return {f"{name}|{key}": value for name, p in self.names.items() if p in state for key, value in sorted(state[p].items())}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave. DigerError where a parameter is unknown or of another shape."""
        for key, value in tensors.items():
            name, _, moment = key.partition("|")
            parameter = self.names.get(name)
            if parameter is None or (moment != "step" and value.shape != parameter.shape):
                raise DigerError(
                    f"checkpoint: optimizer state {key!r} fits no parameter of this model; resume with the configuration it was written with"
                )
            self.adamw.state[parameter][moment] = value.to(parameter.device, copy=True)
