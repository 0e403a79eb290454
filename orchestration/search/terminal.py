"""A study's trials as lines and a table, for a terminal and for Dagster's log."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

from orchestration.search.journal import Told
from orchestration.search.space import Value


def shown(config: Mapping[str, Value]) -> str:
    """The configuration on one line."""
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in config.items())


def ended_line(told: Told, epochs: int) -> str:
    """What came of a trial, in one line."""
    score = "no score" if told.score is None else f"NDCG@10 {told.score:.4f}"
    after = f"after epoch {len(told.rows)} of {epochs}" if told.state == "pruned" else f"epoch {(told.best or {}).get('epoch', 0)}"
    repeat = "" if told.trial.repeats is None else f" (trial {told.trial.repeats} on seed {told.trial.seed})"
    why = f": {told.reason}" if told.reason else ""
    return f"decay_search: trial {told.trial.number}{repeat} {told.state}, {score}, {after}: {shown(told.trial.config)}{why}"


def trials_table(title: str, trials: Iterable[Told], epochs: int) -> str:
    """All trials, best first; those without a score last."""
    from orchestration.console import print_table

    rows = []
    for told in sorted(trials, key=lambda t: (-(t.score or 0.0), t.trial.number)):
        best = told.best or {}
        figures = [
            f"{best[name]:{form}}" if name in best else "–"
            for name, form in (("validation_ndcg_10", ".4f"), ("unique_prefixes", ","), ("churn", ".1%"))
        ]
        rows.append([str(told.trial.number), told.state, f"{len(told.rows)}/{epochs}", *figures, str(told.trial.seed), shown(told.trial.config)])
    text = io.StringIO()
    print_table(title, ["trial", "state", "epochs", "NDCG@10", "prefixes", "churn", "seed", "configuration"], rows, stream=text)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
