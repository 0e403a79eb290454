"""The search space, typed: which values of the joint model's configuration a trial may take, and how a trial's configuration is applied.

A trial's configuration is a flat mapping from the space's names to plain values. A dimension that the drawn schedule does not read (r under
`sdud`, say) is left out of it, so that two trials which would train the same model are seen to be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any, ClassVar

from diger_core.config import SCHEDULES, STRICT, JointModelConfig, PathsConfig

Value = float | str
Config = dict[str, Value]
PATHS = ("history", "teacher", "labels")
# What the project's schedules do not read (docs/method.md, section 4); one of your own is taken to read everything. tau, rates, forward mode and
# paths concern all.
NOT_READ_BY = {
    "sigma_0": ("none", "frqud"),
    "lambda_": ("none", "gumbel", "gaussian", "linear", "cosine", "exponential", "frqud"),
    "r": ("none", "gumbel", "gaussian", "linear", "cosine", "exponential", "sdud"),
}


@dataclass(frozen=True)
class Dimension:
    """One of: `choice` [values], `uniform` [low, high], `loguniform` [low, high], `fixed` value."""

    __pydantic_config__: ClassVar = STRICT
    choice: tuple[float | str, ...] | None = None  # one of these values
    uniform: tuple[float, float] | None = None  # between low and high
    loguniform: tuple[float, float] | None = None  # between low and high, evenly in the logarithm
    fixed: float | str | None = None  # this value alone

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'nothing'} given: give exactly one of choice, uniform, loguniform, fixed")
        if self.choice is not None and (not self.choice or len(set(self.choice)) != len(self.choice)):
            raise ValueError(f"choice = {list(self.choice)!r}: must hold at least one value, and none twice")
        for name in ("uniform", "loguniform"):
            bounds = getattr(self, name)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{name} = {list(bounds)!r}: must be [low, high] with low < high")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform = {list(self.loguniform)!r}: must be positive")

    @property
    def values(self) -> tuple[Value, ...]:
        """The listed values, or the two ends of a range: what has to be valid."""
        return self.choice or self.uniform or self.loguniform or (self.fixed,)  # type: ignore[return-value]

    @property
    def is_range(self) -> bool:
        return self.uniform is not None or self.loguniform is not None

    def at(self, share: float) -> Value:
        """The value at `share` in [0, 1) of the dimension: by equal lengths, by equal ratios, or by equal counts."""
        if self.uniform is not None:
            return self.uniform[0] + share * (self.uniform[1] - self.uniform[0])
        if self.loguniform is not None:
            return float(self.loguniform[0] * (self.loguniform[1] / self.loguniform[0]) ** share)
        return self.values[int(share * len(self.values))]

    def points(self, count: int) -> tuple[Value, ...]:
        """A grid's values: all listed ones, or `count` that divide the range evenly, both ends included."""
        if not self.is_range:
            return self.values
        low, high = self.values[0], self.values[1]
        inner = [self.at(i / (count - 1)) for i in range(1, count - 1)]
        return (low, *inner, high)


@dataclass(frozen=True)
class SpaceConfig:
    """The dimensions, each optional: those you leave out keep their value under `joint_model`. `paths`: all, none, or names joined by +."""

    __pydantic_config__: ClassVar = STRICT
    schedule: Dimension | None = field(default_factory=lambda: Dimension(choice=("frqud", "sdud", "gumbel", "linear")))
    sigma_0: Dimension | None = field(default_factory=lambda: Dimension(uniform=(0.25, 2.0)))
    lambda_: Dimension | None = field(default_factory=lambda: Dimension(uniform=(1.2, 2.2)))
    r: Dimension | None = field(default_factory=lambda: Dimension(uniform=(1.0, 3.0)))
    tau: Dimension | None = field(default_factory=lambda: Dimension(uniform=(1.0, 3.0)))
    codebook_learning_rate: Dimension | None = field(default_factory=lambda: Dimension(loguniform=(1e-5, 1e-3)))
    forward: Dimension | None = None  # of joint_model.forward
    paths: Dimension | None = None  # of joint_model.paths: all, none, or names joined by +

    def __post_init__(self) -> None:
        if not self.named:
            raise ValueError("no dimension is given: name at least one")
        for name, dimension in self.named.items():
            for value in dimension.values:
                try:
                    applied(JointModelConfig(), {name: value})
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{name}: {error}") from error

    @property
    def named(self) -> dict[str, Dimension]:
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


def applied(base: JointModelConfig, config: Mapping[str, Value]) -> JointModelConfig:
    """`base` with a trial's values. ValueError where one is out of its range or of the wrong type."""
    schedule: dict[str, Any] = {}
    joint: dict[str, Any] = {}
    for name, value in config.items():
        if name in ("schedule", "forward", "paths") and not isinstance(value, str):
            raise ValueError(f"{value!r} is not a name")
        if name == "schedule":
            if value not in SCHEDULES:
                raise ValueError(f"{value!r} is no schedule; there are {', '.join(SCHEDULES)}")
            schedule["name"] = value
        elif name == "forward":
            if value not in ("cached", "sampled"):
                raise ValueError(f"{value!r}: must be cached or sampled")
            joint["forward"] = value
        elif name == "paths":
            joint["paths"] = paths(str(value))
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number")
        elif name == "codebook_learning_rate":
            joint[name] = float(value)
        else:
            schedule[name] = float(value)
    return replace(base, schedule=replace(base.schedule, **schedule), **joint)


def present(space: SpaceConfig, base: JointModelConfig) -> Config:
    """What `joint_model` says now, as a configuration of this space."""
    opened = [path for path in PATHS if getattr(base.paths, path)]
    values: Config = {"schedule": base.schedule.name, "forward": base.forward, "codebook_learning_rate": base.codebook_learning_rate}
    values["paths"] = "all" if len(opened) == len(PATHS) else "+".join(opened) or "none"
    values |= {name: getattr(base.schedule, name) for name in ("sigma_0", "lambda_", "r", "tau")}
    return relevant({name: values[name] for name in space.named}, base.schedule.name)


def paths(text: str) -> PathsConfig:
    """`all`, `none`, or open paths joined by `+`, for instance `labels+teacher`."""
    names = {"all": list(PATHS), "none": []}.get(text, text.split("+"))
    if not set(names) <= set(PATHS):
        raise ValueError(f"{text!r}: must be all, none, or some of {', '.join(PATHS)} joined by +")
    return PathsConfig(**{name: name in names for name in PATHS})


ORDER = tuple(f.name for f in fields(SpaceConfig))


def ordered(config: Mapping[str, Value]) -> Config:
    """The values in the order of the space, however they were stored."""
    return {name: config[name] for name in sorted(config, key=ORDER.index)}


def relevant(config: Mapping[str, Value], default_schedule: str) -> Config:
    """The configuration without what its schedule does not read."""
    schedule = str(config.get("schedule", default_schedule))
    return ordered({name: value for name, value in config.items() if schedule not in NOT_READ_BY.get(name, ())})


def grid(space: SpaceConfig, points: int, default_schedule: str) -> list[Config]:
    """Every combination once, in the order of the space."""
    named = space.named
    found: dict[tuple[tuple[str, Value], ...], Config] = {}
    for values in product(*(dimension.points(points) for dimension in named.values())):
        config = relevant(dict(zip(named, values, strict=True)), default_schedule)
        found.setdefault(tuple(config.items()), config)
    return list(found.values())


def overrides(config: Mapping[str, Value]) -> list[str]:
    """The configuration as `section.key=value`, for `--set` and for params.yaml."""
    lines = []
    for name, value in config.items():
        if name == "paths":
            opened = paths(str(value))
            lines += [f"joint_model.paths.{path}={str(getattr(opened, path)).lower()}" for path in PATHS]
        elif name in ("forward", "codebook_learning_rate"):
            lines.append(f"joint_model.{name}={value}")
        else:
            lines.append(f"joint_model.schedule.{'name' if name == 'schedule' else name}={value}")
    return lines
