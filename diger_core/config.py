"""Typed, frozen configuration of the method. Symbols follow docs/concepts.md; ranges are checked on construction.

The same classes are read from params.yaml (orchestration/params/sections.py), where an unknown key is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Forward = Literal["cached", "sampled"]
TableMethod = Literal["argmin", "sinkhorn"]
Precision = Literal["fp32", "bf16"]
HistoryInput = Literal["hard", "soft"]
ItemTokens = Literal["all", "one"]

# The uncertainty decays: name -> module:class. Adding one is one new file and one line here. Names only, so that a wrong one in params.yaml is an
# error before torch is loaded.
_SCHEDULES = "diger_core.training.schedules"
SCHEDULES = {
    "none": f"{_SCHEDULES}.constant:NoNoise",
    "gumbel": f"{_SCHEDULES}.constant:Gumbel",
    "gaussian": f"{_SCHEDULES}.constant:Gaussian",
    "linear": f"{_SCHEDULES}.annealed:Annealed",
    "cosine": f"{_SCHEDULES}.annealed:Annealed",
    "exponential": f"{_SCHEDULES}.annealed:Annealed",
    "sdud": f"{_SCHEDULES}.sdud:SDUD",
    "frqud": f"{_SCHEDULES}.frqud:FrqUD",
    "sdud+frqud": f"{_SCHEDULES}.product:SDUDFrqUD",
}

# Read by pydantic where it is installed; plain data here, so that the core does not need it.
STRICT = {"extra": "forbid"}

NEW_ITEMS_COST = 0.005  # share of the lists' validation NDCG@10 that a place for items without a training event may cost


def check(condition: bool, key: str, value: object, wanted: str) -> None:
    """ValueError that names the key, its value and what was wanted."""
    if not condition:
        raise ValueError(f"{key} = {value!r}: must be {wanted}")


@dataclass(frozen=True)
class TokenizerConfig:
    """Stage `tokenizer`: the RQ-VAE and its warm-up (docs/method.md, section 2)."""

    __pydantic_config__: ClassVar = STRICT
    levels: int = 3  # M
    codes: int | None = None  # K; None: 256, or fewer where the catalogue is small
    suffixes: int | None = None  # S; None: max(K, 256), or more where more items have equal text and factors, or none
    code_dim: int = 32  # d_e
    hidden: tuple[int, ...] = (512, 256, 128)  # widths of the encoder's layers; the decoder has them in reverse
    beta: float = 0.25  # weight of the commitment loss
    alpha: float | None = None  # None: 1 / median gap of squared distances at level 1, after warm-up
    epochs: int = 100  # of the warm-up
    batch_size: int = 1024  # items
    learning_rate: float = 1e-3  # of the warm-up; AdamW
    weight_decay: float = 1e-4  # of the warm-up
    item_factors: int = 64  # width of the PPMI factors of training events appended to the vectors; 0: text only
    item_factors_weight: float = 1.0  # scale of the factors beside the standardised vectors
    seed: int = 0  # of initialisation and order

    def __post_init__(self) -> None:
        check(1 <= self.levels <= 8, "levels", self.levels, "between 1 and 8")
        check(self.codes is None or self.codes >= 2, "codes", self.codes, "at least 2, or null")
        check(self.suffixes is None or self.suffixes >= 1, "suffixes", self.suffixes, "at least 1, or null")
        check(self.code_dim >= 1, "code_dim", self.code_dim, "at least 1")
        check(all(h >= 1 for h in self.hidden), "hidden", self.hidden, "positive widths")
        check(self.alpha is None or self.alpha > 0, "alpha", self.alpha, "positive, or null")
        check(self.beta >= 0, "beta", self.beta, "at least 0")
        check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        check(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2")
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        check(self.item_factors >= 0, "item_factors", self.item_factors, "at least 0")
        check(self.item_factors_weight > 0, "item_factors_weight", self.item_factors_weight, "positive")


@dataclass(frozen=True)
class RecommenderConfig:
    """Shared by `frozen_model` and `joint_model`: the encoder-decoder (docs/method.md, section 3)."""

    __pydantic_config__: ClassVar = STRICT
    encoder_layers: int = 2  # layers that read the history
    decoder_layers: int = 2  # layers that generate the codes
    d_model: int = 64  # width of the hidden states
    d_ff: int = 256  # width of the feed-forward layers
    heads: int = 4  # attention heads
    d_head: int = 16  # width of a head
    dropout: float = 0.1  # share of activations that are set to zero in training
    history: int = 20  # L, items
    history_input: HistoryInput = "soft"  # mixtures of token tables by the distances to the codes; hard: the codes' own tokens
    history_tau: float = 0.3  # tau_in of soft input
    item_tokens: ItemTokens = "one"  # encoder tokens of an item: one, the sum of its codes' and its suffix's, or all of them
    relative_buckets: int = 32  # buckets of the relative position bias, as in T5
    relative_max_distance: int = 128  # distances beyond share the last bucket

    def __post_init__(self) -> None:
        for key in ("encoder_layers", "decoder_layers", "d_model", "d_ff", "heads", "d_head", "history"):
            check(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        check(self.history_tau > 0, "history_tau", self.history_tau, "positive")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        check(self.relative_buckets >= 4, "relative_buckets", self.relative_buckets, "at least 4")
        distance = self.relative_max_distance
        check(distance >= self.relative_buckets, "relative_max_distance", distance, f"at least relative_buckets, {self.relative_buckets}")


@dataclass(frozen=True)
class TeacherConfig:
    """What the item-to-item tables teach the recommender (diger_core/data/teacher.py); a run that is given no tables has no teacher."""

    __pydantic_config__: ClassVar = STRICT
    share: float = 0.0  # of the training rows' targets that are drawn from the tables; 0: none. It takes a wide model: see docs/tuning.md
    synthetic: float = 0.0  # synthetic histories for each training row; 0: none
    text: float = 0.7  # weight of the neighbours by text beside the transitions
    tau: float = 5.0  # an event with a later ones counts exp(-a / tau)
    temperature: float = 1.0  # below 1: the likeliest items more often
    candidates: int = 50  # items that a target is drawn from

    def __post_init__(self) -> None:
        check(0 <= self.share <= 1, "share", self.share, "in [0, 1]")
        check(0 <= self.synthetic <= 10, "synthetic", self.synthetic, "between 0 and 10")
        check(self.text >= 0, "text", self.text, "at least 0")
        check(self.tau > 0, "tau", self.tau, "positive")
        check(self.temperature > 0, "temperature", self.temperature, "positive")
        check(1 <= self.candidates <= 1000, "candidates", self.candidates, "between 1 and 1000")


@dataclass(frozen=True)
class TrainingConfig:
    """Shared by `frozen_model` and `joint_model`: the optimisation of the recommender (docs/method.md, section 3)."""

    __pydantic_config__: ClassVar = STRICT
    epochs: int = 12  # at most: see patience
    batch_size: int = 256  # B, over all ranks
    learning_rate: float = 1e-3  # of the recommender; AdamW, after the warm-up steps
    weight_decay: float = 0.05  # of the recommender
    warmup_steps: int = 500  # at most 5% of all steps
    crop: float = 0.0  # share of an epoch's rows whose history is cut to a random length
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    gradient_clip: float = 1.0  # largest norm of the gradient
    gradient_alarm: float = 1000.0  # stop where the gradient's norm grows to so many times its usual size; 0: off
    last_stage_epochs: int = 0  # of the recommender alone, from the best state and on its ID table, after both kinds of training
    last_stage_learning_rate: float | None = None  # null: a third of learning_rate
    patience: int = 15  # evaluations without a better validation NDCG@10
    evaluate_every: int = 1  # epochs
    evaluation_users: int | None = None  # validation on a fixed sample of users; None: all
    beams: int = 20  # W, in validation
    checkpoint_every: int = 1  # epochs
    checkpoints_kept: int = 2  # of an unfinished training
    precision: Precision = "fp32"  # bf16: matrix products in bfloat16, on CUDA
    deterministic: bool = True  # the same bytes from the same inputs on one kind of device
    compile: bool = False  # CUDA only: CUDA graphs of the whole step
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    seed: int = 0  # of initialisation, order, dropout and noise

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "patience", "evaluate_every", "beams", "checkpoint_every", "checkpoints_kept"):
            check(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")
        check(self.last_stage_epochs >= 0, "last_stage_epochs", self.last_stage_epochs, "at least 0")
        rate = self.last_stage_learning_rate
        check(rate is None or rate > 0, "last_stage_learning_rate", rate, "positive, or null")
        check(0 <= self.crop <= 1, "crop", self.crop, "in [0, 1]")
        check(self.gradient_clip > 0, "gradient_clip", self.gradient_clip, "positive")
        check(self.gradient_alarm == 0 or self.gradient_alarm > 1, "gradient_alarm", self.gradient_alarm, "above 1, or 0 to switch it off")


@dataclass(frozen=True)
class ScheduleConfig:
    """The uncertainty decay (docs/method.md, section 4)."""

    __pydantic_config__: ClassVar = STRICT
    # how the noise goes down: frqud and sdud are the paper's, gumbel and gaussian keep it, none has none
    name: str = field(default="frqud", metadata={"choices": SCHEDULES})
    sigma_0: float = 1.0  # scale of the noise at the start
    sigma_min: float = 0.0  # the least scale
    lambda_: float = 1.7  # SDUD; scaled by sqrt(ln K / ln 256) for other K
    sigma_learning_rate: float | None = None  # SDUD; None: max(1e-3, 4 sigma_0 / all steps)
    r: float = 1.5  # FrqUD; inf: deterministic, 0: plain Gumbel
    level1: bool = False  # FrqUD: decide once, at level 1, for all levels
    usage_decay: float = 0.99  # FrqUD: weight of the past in the moving average of how often a code is used
    tau: float = 2.0  # temperature of the softmax over the codes
    tau_end: float | None = None  # tau annealing (ablation); None: constant
    tau_shape: Literal["linear", "cosine", "exponential"] = "linear"  # how tau goes to tau_end

    def __post_init__(self) -> None:
        check(self.name in SCHEDULES, "name", self.name, f"one of {', '.join(SCHEDULES)}")
        check(self.sigma_0 >= 0 and math.isfinite(self.sigma_0), "sigma_0", self.sigma_0, "finite and at least 0")
        check(0 <= self.sigma_min <= max(self.sigma_0, 0), "sigma_min", self.sigma_min, "between 0 and sigma_0")
        check(self.lambda_ > 0, "lambda_", self.lambda_, "positive")
        check(self.r >= 0, "r", self.r, "at least 0")
        check(0 < self.usage_decay < 1, "usage_decay", self.usage_decay, "in (0, 1)")
        check(self.tau > 0, "tau", self.tau, "positive")
        check(self.tau_end is None or self.tau_end > 0, "tau_end", self.tau_end, "positive, or null")


@dataclass(frozen=True)
class PathsConfig:
    """Which gradient paths from L_gen into the tokenizer are open (docs/method.md, section 3). All off: the `detached` control."""

    __pydantic_config__: ClassVar = STRICT
    history: bool = True  # through the codes of the history that the encoder reads
    teacher: bool = True  # through the codes that the decoder is given while it predicts the next one
    labels: bool = True  # through the codes that are predicted


@dataclass(frozen=True)
class JointModelConfig:
    """Stage `joint_model`: how the tokenizer takes part in the recommender's training (docs/method.md, sections 3 to 5)."""

    __pydantic_config__: ClassVar = STRICT
    tokenizer: Literal["joint", "frozen"] = "joint"  # frozen: the TIGER-like two-stage control
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    forward: Forward = "cached"  # codes of the forward pass: the current ID table's (cached), or those that the noise drew (sampled)
    codebook_learning_rate: float = 1e-5  # of the codebooks
    codebook_weight_decay: float = 0.0  # of the codebooks
    train_encoder: bool = False  # train the tokenizer's encoder, too; otherwise the codebooks alone
    encoder_learning_rate: float = 1e-5  # where train_encoder is true
    weight_vq: float = 1.0  # of the quantisation loss beside the recommendation loss
    weight_recon: float = 1.0  # of the reconstruction loss beside the recommendation loss
    collapse_unique_prefixes: float = 0.5  # alarm: below this share of the warm-up's unique prefixes
    collapse_perplexity: float = 0.1  # alarm: any level's perplexity below this share of the warm-up's

    def __post_init__(self) -> None:
        check(self.codebook_learning_rate >= 0, "codebook_learning_rate", self.codebook_learning_rate, "at least 0")
        check(self.codebook_weight_decay >= 0, "codebook_weight_decay", self.codebook_weight_decay, "at least 0")
        check(self.encoder_learning_rate >= 0, "encoder_learning_rate", self.encoder_learning_rate, "at least 0")
        check(min(self.weight_vq, self.weight_recon) >= 0, "weight_vq, weight_recon", (self.weight_vq, self.weight_recon), "at least 0")
        check(
            0 <= self.collapse_unique_prefixes < 1, "collapse_unique_prefixes", self.collapse_unique_prefixes, "in [0, 1); 0 switches the alarm off"
        )
        check(0 <= self.collapse_perplexity < 1, "collapse_perplexity", self.collapse_perplexity, "in [0, 1); 0 switches the alarm off")


@dataclass(frozen=True)
class TableConfig:
    """Stage `semantic_ids`: how codes are read off the tokenizer (docs/method.md, section 5)."""

    __pydantic_config__: ClassVar = STRICT
    method: TableMethod = "argmin"  # argmin: the nearest code; sinkhorn: every code of a level equally often, for comparison
    sinkhorn_epsilon: float = 0.003  # sinkhorn: smaller is nearer to the nearest code
    sinkhorn_iterations: int = 50  # sinkhorn: rounds of balancing
    chunk: int = 65536  # items quantised at once

    def __post_init__(self) -> None:
        check(self.sinkhorn_epsilon > 0, "sinkhorn_epsilon", self.sinkhorn_epsilon, "positive")
        check(self.sinkhorn_iterations >= 1, "sinkhorn_iterations", self.sinkhorn_iterations, "at least 1")
        check(self.chunk >= 1, "chunk", self.chunk, "at least 1")


@dataclass(frozen=True)
class ModelConfig:
    """All that configures one training of a model: `training.loop.train` takes it beside its `TrainingInputs`."""

    recommender: RecommenderConfig = field(default_factory=RecommenderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    joint: JointModelConfig = field(default_factory=JointModelConfig)
    table: TableConfig = field(default_factory=TableConfig)

    @property
    def learns(self) -> bool:
        """Whether the tokenizer learns beside the recommender."""
        return self.joint.tokenizer == "joint"


Mode = Literal["pinned", "anchored", "free"]
Weighting = Literal["none", "log", "count"]


@dataclass(frozen=True)
class StabilityConfig:
    """What a retraining may do to the IDs that a release has given out."""

    __pydantic_config__: ClassVar = STRICT
    mode: Mode = "anchored"  # pinned: a released ID never changes; anchored: it changes where the gain is worth it; free: it follows the codebooks
    anchor: float = 1.0  # anchored: what a move must gain, in nats of the tokenizer's logits, for an item of mean traffic
    weighting: Weighting = "log"  # w_v from training events n_v: log(1 + n_v), n_v, or 1 for every item

    def __post_init__(self) -> None:
        if not self.anchor >= 0:
            raise ValueError(f"anchor = {self.anchor!r}: must be at least 0 (0: free, .inf: pinned)")


@dataclass(frozen=True)
class NeighboursConfig:
    """Stage `neighbours`: item-to-item tables (diger_core/data/neighbours.py)."""

    __pydantic_config__: ClassVar = STRICT
    window: int = 20  # events between the two of a pair, at most
    gap: float = 3.0  # a pair g events apart counts exp(-(g - 1) / gap)
    half_life_days: float | None = None  # a pair this old counts half; null: all count the same
    keep: int = 300  # strongest neighbours kept of each item
    text_keep: int = 100  # neighbours kept by text
    text_max_df: float = 0.2  # terms that more than this share of the items have tell nothing

    def __post_init__(self) -> None:
        check(1 <= self.window <= 1000, "window", self.window, "between 1 and 1000")
        check(self.gap > 0, "gap", self.gap, "positive")
        check(self.half_life_days is None or self.half_life_days > 0, "half_life_days", self.half_life_days, "positive, or null")
        check(self.keep >= 1, "keep", self.keep, "at least 1")
        check(self.text_keep >= 0, "text_keep", self.text_keep, "at least 0")
        check(0 < self.text_max_df <= 1, "text_max_df", self.text_max_df, "above 0 and at most 1")


@dataclass(frozen=True)
class EvaluationConfig:
    """Stage `evaluation` (docs/method.md, section 6)."""

    __pydantic_config__: ClassVar = STRICT
    beams: int = 50  # of the search for each list; at least the largest cut-off
    recall_at: tuple[int, ...] = (1, 5, 10, 20)  # cut-offs of Recall
    ndcg_at: tuple[int, ...] = (5, 10, 20)  # cut-offs of NDCG
    constrained: bool = True  # generate only codes that an item has
    remove_seen: bool = False  # judge lists without what the user had before; `recommendations.seen` decides what the lists that ship hold
    batch_size: int | None = None  # users ranked at once; null: by the device and the beams
    head_share: float = 0.2  # the most popular items of training events that form the head slice
    new_item_events: int = 0  # a target with at most this many training events is a new item
    bootstrap: int = 1000  # resamples of users for the intervals

    def __post_init__(self) -> None:
        for key in ("recall_at", "ndcg_at"):
            cuts = getattr(self, key)
            check(len(cuts) > 0 and min(cuts) >= 1, key, cuts, "a list of cut-offs, each at least 1")
        check(self.new_item_events >= 0, "new_item_events", self.new_item_events, "at least 0")
        check(self.beams >= max((*self.recall_at, *self.ndcg_at)), "beams", self.beams, "at least the largest cut-off")
        check(0 < self.head_share < 1, "head_share", self.head_share, "in (0, 1)")
        check(self.batch_size is None or self.batch_size >= 1, "batch_size", self.batch_size, "at least 1, or null")
        check(self.bootstrap >= 100, "bootstrap", self.bootstrap, "at least 100")
