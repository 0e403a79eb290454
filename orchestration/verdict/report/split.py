"""How the test targets were held out, in plain words: what was trained on, who is judged and who is not, and what flatters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration.verdict.report.text import percent

MISSING = {
    "users_without_events_after_validation": "{} users have no event after it",
    "users_new_after_validation": "{} users have no event before it",
    "users_with_fewer_than_3_events": "{} users have fewer than three events",
}


def sentences(facts: Mapping[str, Any], users: int) -> list[str]:
    """From the facts of `sequences`; `users`: how many have a test target."""
    told = _temporal(facts, users) if facts.get("split") == "temporal" else _leave_one_out(facts, users)
    return [*told, *_without(facts), *_same_time(facts)]


def _temporal(facts: Mapping[str, Any], users: int) -> list[str]:
    return [
        f"Split by time: models are trained on the events up to {facts['train_until']}, chosen on those up to {facts['validate_until']} (UTC), "
        f"and tested on the first event after that of {users:,} users, as a shop would meet it."
    ]


def _leave_one_out(facts: Mapping[str, Any], users: int) -> list[str]:
    told = (
        f"Leave one out: tested on the last event of {users:,} users, chosen on the one before, trained on all others. This flatters: training sees "
        "events of other users that are later than the targets, and earlier events of the same users."
    )
    why = facts.get("why_leave_one_out")
    return [told, f"It was used because a split by time was not possible. {why}"] if why else [told]


def _without(facts: Mapping[str, Any]) -> list[str]:
    """Who is not judged."""
    counts = [words.format(f"{facts[name]:,}") for name, words in MISSING.items() if facts.get(name)]
    return [f"Not judged: {' and '.join(counts)}."] if counts else []


def _same_time(facts: Mapping[str, Any]) -> list[str]:
    share = facts.get("same_time_targets")
    if share is None:
        return ["The events have no times, so nothing says how many targets share their time with the event before."]
    if not share:
        return ["No target has the same time as the event before it."]
    return [
        f"{percent(share)} of the targets have the same time as the event before: their order is not known, and a model that counts pairs may "
        "learn the order of the file there. The slices below tell them apart."
    ]
