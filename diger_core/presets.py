"""The paper's settings (docs/method.md, section 3) and a small default, as configurations of the same code.

A preset names what the paper states: shapes, epochs, beams, rates and the schedules' constants. What it leaves open keeps this project's defaults.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from diger_core.config import JointModelConfig, PathsConfig, RecommenderConfig, ScheduleConfig, TeacherConfig, TokenizerConfig, TrainingConfig
from diger_core.errors import DigerError

PAPER_TOKENIZER = TokenizerConfig(levels=3, codes=256, code_dim=256, hidden=(2048, 1024, 512), alpha=1.0, epochs=500, item_factors=0)
PAPER_RECOMMENDER = RecommenderConfig(
    encoder_layers=6, decoder_layers=6, d_model=128, d_ff=512, heads=4, d_head=64, dropout=0.1, history=50, history_input="hard", item_tokens="all"
)
NO_TEACHER = TeacherConfig(share=0.0, synthetic=0.0)
PAPER_TRAINING = TrainingConfig(
    batch_size=256, learning_rate=1e-3, weight_decay=0.05, warmup_steps=500, patience=15, precision="bf16", teacher=NO_TEACHER
)


@dataclass(frozen=True)
class Preset:
    """One setting; `schedules`: the constants that each decay takes in it."""

    name: str
    tokenizer: TokenizerConfig
    recommender: RecommenderConfig
    training: TrainingConfig
    joint: JointModelConfig
    schedules: dict[str, ScheduleConfig]

    def variant(self, name: str) -> JointModelConfig:
        """A control or a schedule by name: `frozen`, `detached` (FrqUD without L_gen's gradient), or any decay of docs/method.md, section 4."""
        if name == "frozen":
            return replace(self.joint, tokenizer="frozen")
        if name == "detached":
            return replace(self.joint, schedule=self.schedules["frqud"], paths=PathsConfig(False, False, False))
        if name not in self.schedules:
            raise DigerError(f"variant {name!r}: choose one of frozen, detached, {', '.join(self.schedules)}")
        return replace(self.joint, schedule=self.schedules[name])

    def overrides(self) -> list[str]:
        """`SECTION.KEY=VALUE` of all that the preset decides, as `--set` takes them; seed, device and how states are kept stay the caller's."""
        sections: dict[str, Any] = {
            "tokenizer": self.tokenizer,
            "recommender": self.recommender,
            "training": self.training,
            "joint_model": self.joint,
        }
        return [
            f"{section}.{key}={_written(value)}"
            for section, config in sections.items()
            for key, value in asdict(config).items()
            if key not in _OF_THE_MACHINE
        ]


_OF_THE_MACHINE = {"seed", "device", "precision", "compile", "checkpoint_every", "checkpoints_kept"}


def _written(value: object) -> str:
    """YAML of one value. YAML takes 1e-05 for a text: it wants the point."""
    text = json.dumps(value)
    return re.sub(r"(?<![\d.])(\d+)e", r"\1.0e", text)


def _schedules(tau: float, r: float, sigma_0: float, lambda_: float) -> dict[str, ScheduleConfig]:
    sdud = ScheduleConfig(name="sdud", tau=tau, sigma_0=sigma_0, lambda_=lambda_, sigma_learning_rate=1e-3)
    return {
        "none": ScheduleConfig(name="none", tau=tau),
        "gumbel": ScheduleConfig(name="gumbel", tau=tau),
        "gaussian": ScheduleConfig(name="gaussian", tau=tau),
        "frqud": ScheduleConfig(name="frqud", tau=tau, r=r),
        "sdud": sdud,
        "sdud+frqud": replace(sdud, name="sdud+frqud", r=r),
    }


def _paper(name: str, epochs: int, beams: int, codebook_rate: float, tau: float, r: float, sigma_0: float, lambda_: float) -> Preset:
    schedules = _schedules(tau, r, sigma_0, lambda_)
    training = replace(PAPER_TRAINING, epochs=epochs, beams=beams)
    joint = JointModelConfig(schedule=schedules["frqud"], forward="cached", codebook_learning_rate=codebook_rate)
    return Preset(name, PAPER_TOKENIZER, PAPER_RECOMMENDER, training, joint, schedules)


_SMALL = _schedules(tau=2.0, r=1.5, sigma_0=1.0, lambda_=1.7)

PRESETS: dict[str, Preset] = {
    "beauty": _paper("beauty", 120, 20, 1e-5, tau=2.0, r=1.5, sigma_0=2.0, lambda_=1.7),
    "instruments": _paper("instruments", 100, 20, 2e-5, tau=2.0, r=2.0, sigma_0=1.0, lambda_=1.8),
    "yelp": _paper("yelp", 200, 80, 2e-6, tau=1.5, r=1.1, sigma_0=2.0, lambda_=1.7),
    "small": Preset("small", TokenizerConfig(), RecommenderConfig(), TrainingConfig(), JointModelConfig(schedule=_SMALL["frqud"]), _SMALL),
}


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise DigerError(f"preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
