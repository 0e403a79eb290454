"""The rules of the gate: pure functions of what was measured. Every rule says what was found, what is wanted, and what to do about it.

A rule about the candidate alone is excused where the champion meets it no better: to refuse the candidate would only keep the worse model serving.
What makes a bundle unsound (it cannot serve, its training ended on an alarm, IDs are not unique or were given out before) is never excused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestration.params.verdict import GateConfig
from orchestration.verdict.gate.document import NDCG, Comparison, K, Measured, Rule, Slice


def rules(measured: Measured, config: GateConfig) -> list[Rule]:
    """[{"name", "passed", "observed", "wanted", "message"}], in the order of the page. Without a champion only soundness and counting judge."""
    found = [*_sound(measured, config), *_against_counting(measured, config)]
    return [*found, *_against_champion(measured, config)] if "champion" in measured["models"] else found


def _rule(name: str, passed: bool, observed: Any, wanted: Any, message: str) -> Rule:
    return {"name": name, "passed": bool(passed), "observed": observed, "wanted": wanted, "message": message}


def _unless(rule: Rule, ours: float, theirs: float | None, met: bool, figure: str) -> Rule:
    """The rule, excused where it is not met and the champion (`theirs`; `met`: whether it meets the rule) is no better than the candidate."""
    if rule["passed"] or theirs is None or met or theirs > ours:
        return rule
    told = f"{rule['message']}; not met, but the champion is no better ({figure}): no reason to keep it"
    return {**rule, "passed": True, "excused": True, "message": told}


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
    share, least, theirs = ids["unique_prefix_share"], config.min_unique_prefixes, measured.get("champion_prefixes")
    text = f"{ids['unique_prefixes']:,} prefixes for {ids['items']:,} items; the fullest holds {ids['largest_group']:,}"
    yield _unless(
        _rule("unique_prefixes", share >= least, share, least, text), share, theirs, (theirs or 0) >= least, f"{theirs or 0:.2f} prefixes an item"
    )
    covered, least, theirs = measured["coverage"]["candidate"], config.min_coverage, measured["coverage"].get("champion")
    text = f"{covered:.1%} of the catalogue stands in somebody's top {K}"
    yield _unless(_rule("coverage", covered >= least, covered, least, text), covered, theirs, (theirs or 0) >= least, f"{theirs or 0:.1%}")


def _against_counting(measured: Measured, config: GateConfig) -> Iterator[Rule]:
    models, champion = measured["models"], measured["models"].get("champion")
    ours, theirs = models["candidate"][NDCG], None if champion is None else champion[NDCG]
    told = f"NDCG@{K} {theirs or 0:.4f}"
    if config.beat_most_popular:
        popular = models["most_popular"][NDCG]
        rule = _rule("most_popular", ours >= popular, ours, popular, f"NDCG@{K} {ours:.4f}; the most popular items reach {popular:.4f}")
        yield _unless(rule, ours, theirs, (theirs or 0) >= popular, told)
    if config.beat_baseline:
        beside = measured["baseline"].get("champion")
        yield _unless(_baseline(measured), ours, theirs, beside is None or beside["high"] >= 0, told)
    if "new_items" in measured and champion is not None:  # of a first release the report warns: nothing better would stay
        yield _new_items(measured, config)


def _baseline(measured: Measured) -> Rule:
    """Not below what counting gives: refused where the whole interval of the difference lies below zero."""
    found = measured["baseline"]
    ours, theirs = measured["models"]["candidate"][NDCG], measured["models"]["baseline"][NDCG]
    text = (
        f"NDCG@{K} {ours:.4f}; the best baseline, {found['name']}, reaches {theirs:.4f}: {found['mean']:+.4f} "
        f"(95% interval {found['low']:+.4f} to {found['high']:+.4f})"
    )
    return _rule("best_baseline", found["high"] >= 0, found["mean"], 0, text)


def _new_items(measured: Measured, config: GateConfig) -> Rule:
    """Items that nobody has bought yet: a large share of what their texts alone would find, or no interval that says the loss is real."""
    found, least = measured["new_items"], config.min_new_items
    ours, text, theirs = found["candidate"], found["text"], found.get("champion")
    share = ours / text if text > 0 else None
    lost = share is not None and share < least and found["difference"]["high"] < 0
    said = f"NDCG@{K} {ours:.4f} on targets without a training event, by text alone {text:.4f} ({found['users']:,} users)"
    if lost:
        said += ": give the lists' text part more weight or train with synthetic histories (training.teacher), or lower gate.min_new_items"
    rule = _rule("new_items", not lost, share, least, said)
    return _unless(rule, ours, theirs, (theirs or 0) >= least * text, f"NDCG@{K} {theirs or 0:.4f} on them")


def _against_champion(measured: Measured, config: GateConfig) -> Iterator[Rule]:
    slices = measured["slices"]
    yield _relative("relative_ndcg", slices["all"], config, config.min_relative_ndcg, "the champion", "")
    if "unknown_to_champion" in slices and slices["unknown_to_champion"]["users"] and NDCG in slices["known_to_both"]:
        where = " on targets that both know"
        yield _relative("known_to_both", slices["known_to_both"], config, config.min_relative_ndcg, "the champion", where)
    for name in ("head", "tail"):
        if name in slices and NDCG in slices[name]:
            yield _slice(name, slices[name], config)
    if "anchor" in measured:
        yield _anchor(measured, config)
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


def _relative(name: str, found: Slice, config: GateConfig, least: float, who: str, where: str) -> Rule:
    """The candidate's mean over the other's: the end of its interval that `gate.judge` names must reach `least`."""
    row = found.get(NDCG)
    if row is None or row["relative"] is None:  # nothing to lose
        return _rule(name, True, None, least, f"{who} finds no target of these {found['users']:,} users")
    seen, wide = row["relative"], ""
    if seen[config.judge] < least <= seen["mean"]:
        wide = f"; the interval is too wide to rule out a loss of more than {1 - least:.0%}: more test users narrow it, gate.judge=mean looks past it"
    text = (
        f"NDCG@{K}{where} {row['candidate']:.4f}, {who}'s {row['champion']:.4f}: {seen['mean'] - 1:+.1%} "
        f"(95% interval {seen['low'] - 1:+.1%} to {seen['high'] - 1:+.1%}, {found['users']:,} users; judged by {config.judge}){wide}"
    )
    return _rule(name, seen[config.judge] >= least, seen[config.judge], least, text)


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


def _anchor(measured: Measured, config: GateConfig) -> Rule:
    """Each release may lose a little against the one before; against a bundle that stays the same the losses do not add up."""
    found, least = measured["anchor"], config.min_relative_anchor
    who = f"anchor {found['bundle'][:12]}"
    if found["common_items"] < config.min_common_items:
        text = f"{found['common_items']:.1%} of {who}'s items are in the catalogue: too few to compare; name a newer bundle in gate.anchor"
        return _rule("anchor", True, None, least, text)
    rule = _relative("anchor", found["candidate"], config, least, who, " on targets that the anchor knows")
    ours, theirs = found["candidate"].get(NDCG), found["champion"].get(NDCG)
    if ours is None or theirs is None:
        return rule
    return _unless(rule, ours["candidate"], theirs["candidate"], _reaches(theirs, config, least), f"NDCG@{K} {theirs['candidate']:.4f} on them")


def _reaches(row: Comparison, config: GateConfig, least: float) -> bool:
    return row["relative"] is None or row["relative"][config.judge] >= least
