"""A study's page, made from numbers instead of trials: what the browser's tests look at."""

from __future__ import annotations

from typing import Any

from orchestration.params.search import SearchConfig
from orchestration.search.journal import Told, Trial
from orchestration.search.page import page
from orchestration.search.writing import summary


def study_page(trials: int = 12, epochs: int = 5) -> str:
    """report.html of a study: every third trial pruned, one collapsed, two finalists on three seeds each."""
    config = SearchConfig(trials=trials)
    told = {number: _told(number, epochs, trials) for number in range(1, trials + 1)}
    for extra, (of, seed) in enumerate([(of, seed) for of in (trials, trials - 1) for seed in (1, 2, 3)], trials + 1):
        told[extra] = Told(Trial(extra, told[of].trial.config, seed, of), _rows(epochs, 0.06 + 0.002 * seed + 0.0001 * of), "finished")
    found = summary("ab12" * 16, config, epochs, told)
    return page(found, config, told, [("sequences", "c" * 64), ("embeddings", "d" * 64), ("tokenizer", "e" * 64)], "the warm-up's")


def _told(number: int, epochs: int, trials: int) -> Told:
    config: dict[str, Any] = {
        "schedule": ("frqud", "sdud", "gumbel", "linear")[number % 4],
        "codebook_learning_rate": 1e-5 * 1.4**number,
        "forward": ("cached", "sampled")[number % 2],
        "paths": ("all", "labels")[number // 2 % 2],
    }
    finished = number % 3 != 0 or number == trials
    if number == 4:
        return Told(Trial(number, config, 0), _rows(2, 0.02), "collapsed", "codebooks collapsed: level 1 has perplexity 3.0")
    return Told(Trial(number, config, 0), _rows(epochs if finished else 1, 0.05 + 0.002 * number), "finished" if finished else "pruned")


def _rows(epochs: int, best: float) -> dict[int, dict[str, Any]]:
    return {
        epoch: {
            "epoch": epoch,
            "validation_ndcg_10": best * epoch / epochs,
            "unique_prefixes": 2800 - round(9000 * best) + epoch,
            "churn": 2 * best,
            "sigma": 1.0 / epoch,
            "perplexity": [60.0 + epoch, 50.0, 40.0 - 100 * best],
        }
        for epoch in range(1, epochs + 1)
    }
