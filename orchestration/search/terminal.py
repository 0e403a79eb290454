"""A study's trials as lines and a table, for a terminal and for Dagster's log."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

from orchestration.search.journal import Told
from orchestration.search.space import ORDER, Value

_FIGURES = {"validation_ndcg_10": ".4f", "unique_prefixes": ",", "churn": ".1%"}
SHORT = {"codebook_learning_rate": "rate", "lambda_": "lambda"}


def shown(config: Mapping[str, Value]) -> str:
    """The configuration on one line."""
    return " ".join(f"{name}={_value(value)}" for name, value in config.items())


def _value(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ended_line(told: Told, epochs: int) -> str:
    """What came of a trial, in one line."""
    score = "no score" if told.score is None else f"NDCG@10 {told.score:.4f}"
    after = f"after epoch {len(told.rows)} of {epochs}" if told.state == "pruned" else f"epoch {(told.best or {}).get('epoch', 0)}"
    repeat = "" if told.trial.repeats is None else f" (trial {told.trial.repeats} on seed {told.trial.seed})"
    why = f": {told.reason}" if told.reason else ""
    return f"decay_search: trial {told.trial.number}{repeat} {told.state}, {score}, {after}: {shown(told.trial.config)}{why}"


def trials_table(title: str, trials: Iterable[Told], epochs: int) -> str:
    """All trials, best first; a column for each dimension (rate: the codebooks'), a dash where the schedule does not read it.

    Where trials are repeated on other seeds, what they repeat stands in the place of prefixes and churn: a log is 120 characters wide.
    """
    from orchestration.engine.console import print_table

    listed = sorted(trials, key=lambda t: (-(t.score or 0.0), t.trial.number))
    names = [name for name in ORDER if any(name in told.trial.config for told in listed)]
    again = any(told.trial.repeats is not None for told in listed)
    columns = ["trial", *(["repeats", "seed"] if again else []), "state", "epochs", "NDCG@10", *([] if again else ["prefixes", "churn"])]
    rows = []
    for told in listed:
        best, config = told.best or {}, told.trial.config
        score, prefixes, churn = (f"{best[name]:{form}}" if name in best else "–" for name, form in _FIGURES.items())
        values = [_value(config[name]) if name in config else "–" for name in names]
        of, ids = ([str(told.trial.repeats or "–"), str(told.trial.seed)], []) if again else ([], [prefixes, churn])
        rows.append([str(told.trial.number), *of, told.state, f"{len(told.rows)}/{epochs}", score, *ids, *values])
    text = io.StringIO()
    print_table(title, [*columns, *(SHORT.get(name, name) for name in names)], rows, stream=text)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
