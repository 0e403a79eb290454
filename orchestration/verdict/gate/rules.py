"""The rules of the gate: pure functions of what was measured. Every rule says what was found, what is wanted, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestration.params.verdict import GateConfig
from orchestration.verdict.gate.document import NDCG, K, Measured, Rule, Slice


def rules(measured: Measured, config: GateConfig) -> list[Rule]:
    """[{"name", "passed", "observed", "wanted", "message"}], in the order of the page. Without a champion only soundness counts."""
    found = list(_sound(measured, config))
    return [*found, *_against_champion(measured, config)] if "champion" in measured["models"] else found


def _rule(name: str, passed: bool, observed: Any, wanted: Any, message: str) -> Rule:
    return {"name": name, "passed": bool(passed), "observed": observed, "wanted": wanted, "message": message}


def _sound(measured: Measured, config: GateConfig) -> Iterator[Rule]:
    serves, ids = measured["servability"], measured["ids"]
    yield _rule("servable", serves["passed"], serves["users"], 1, serves["message"])
    alarm = measured["alarm"]
    said = "training ended without an alarm" if alarm is None else f"training stopped on an alarm: {alarm}"
    yield _rule("no_alarm", alarm is None, alarm or "none", "none", said)
    text = "every item has an ID of its own" if not ids["duplicates"] else f"{ids['duplicates']} items share their full ID: raise tokenizer.suffixes"
    yield _rule("unique_ids", ids["duplicates"] == 0, ids["duplicates"], 0, text)
    reused = ids["reused_tuples"]
    text = "no item holds what a released table gave to another" if not reused else f"{reused} items hold an ID that a released table gave to another"
    yield _rule("reserved_ids", reused == 0, reused, 0, text)
    share = ids["unique_prefix_share"]
    text = f"{ids['unique_prefixes']:,} prefixes for {ids['items']:,} items; the fullest holds {ids['largest_group']:,}"
    yield _rule("unique_prefixes", share >= config.min_unique_prefixes, share, config.min_unique_prefixes, text)
    covered = measured["coverage"]["candidate"]
    text = f"{covered:.1%} of the catalogue stands in somebody's top {K}"
    yield _rule("coverage", covered >= config.min_coverage, covered, config.min_coverage, text)
    if config.beat_most_popular:
        ours, popular = measured["models"]["candidate"][NDCG], measured["models"]["most_popular"][NDCG]
        yield _rule("most_popular", ours >= popular, ours, popular, f"NDCG@{K} {ours:.4f}; the most popular items reach {popular:.4f}")

    if config.beat_baseline:
        yield _baseline(measured)


def _baseline(measured: Measured) -> Rule:
    """Not below what counting gives: refused where the whole interval of the difference lies below zero."""
    found = measured["baseline"]
    ours, theirs = measured["models"]["candidate"][NDCG], measured["models"]["baseline"][NDCG]
    text = (
        f"NDCG@{K} {ours:.4f}; the best baseline, {found['name']}, reaches {theirs:.4f}: {found['mean']:+.4f} "
        f"(95% interval {found['low']:+.4f} to {found['high']:+.4f})"
    )
    return _rule("best_baseline", found["high"] >= 0, found["mean"], 0, text)


def _against_champion(measured: Measured, config: GateConfig) -> Iterator[Rule]:
    yield _relative_ndcg(measured["slices"]["all"], config)
    for name in ("head", "tail"):
        if name in measured["slices"] and NDCG in measured["slices"][name]:
            yield _slice(name, measured["slices"][name], config)
    ours, theirs = (measured["coverage"][name] for name in ("candidate", "champion"))
    ratio = ours / theirs if theirs else 1.0
    text = f"{ours:.1%} of the catalogue, the champion {theirs:.1%}"
    yield _rule("relative_coverage", ratio >= config.min_relative_coverage, ratio, config.min_relative_coverage, text)
    moved = measured["churn"]
    text = f"{moved['common_items']:.1%} of the champion's items are in the catalogue"
    if moved["common_items"] < config.min_common_items:
        text += ": were all ids re-mapped? If that is meant, lower gate.min_common_items"
    yield _rule("common_items", moved["common_items"] >= config.min_common_items, moved["common_items"], config.min_common_items, text)
    text = f"{moved['items']:.1%} of the items that both know get another ID, {moved['events']:.1%} of their events"
    if moved["events"] > config.max_churn:
        text += ": retrain from the champion, or raise gate.max_churn where a new ID space is meant"
    yield _rule("churn", moved["events"] <= config.max_churn, moved["events"], config.max_churn, text)


def _relative_ndcg(found: Slice, config: GateConfig) -> Rule:
    row = found.get(NDCG)
    if row is None or row["relative"] is None:  # nothing to lose
        return _rule("relative_ndcg", True, None, config.min_relative_ndcg, f"the champion finds no target of these {found['users']:,} users")
    seen = row["relative"]
    text = (
        f"NDCG@{K} {row['candidate']:.4f}, the champion's {row['champion']:.4f}: {seen['mean'] - 1:+.1%} "
        f"(95% interval {seen['low'] - 1:+.1%} to {seen['high'] - 1:+.1%}, {found['users']:,} users; judged by {config.judge})"
    )
    return _rule("relative_ndcg", seen[config.judge] >= config.min_relative_ndcg, seen[config.judge], config.min_relative_ndcg, text)


def _slice(name: str, found: Slice, config: GateConfig) -> Rule:
    """A slice is small and its figures noisy: it refuses only where the loss is large and its interval says that it is real."""
    row = found[NDCG]
    if row["relative"] is None:
        return _rule(name, True, None, config.min_relative_slice, f"the champion finds no target of these {found['users']:,} users")
    seen = row["relative"]
    lost = seen["mean"] < config.min_relative_slice and row["difference"]["high"] < 0
    text = (
        f"NDCG@{K} on {name} targets {row['candidate']:.4f}, the champion's {row['champion']:.4f}: {seen['mean'] - 1:+.1%} ({found['users']:,} users)"
    )
    return _rule(name, not lost, seen["mean"], config.min_relative_slice, text)
