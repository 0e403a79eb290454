"""The gate's verdict for people: a Markdown page and a picture for the UI, and the compact form for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestration.verdict.gate.document import NDCG, Comparison, GateVerdict, Rule
from orchestration.verdict.models import NAMES
from orchestration.verdict.report.drawing import BETTER, DATA, GREY, INK, LISTS, WORSE, Panel, png
from orchestration.verdict.report.text import decimal, markdown_escape, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "all": "all users",
    "head": "head",
    "tail": "tail",
    "known_to_both": "items that both know",
    "new_items": "new items",
    "unknown_to_champion": "items the champion lacks",
    "fresh": "newer than the champion",
}
RULES = {
    "servable": "can serve",
    "no_alarm": "no training alarm",
    "unique_ids": "unique IDs",
    "reserved_ids": "released IDs stay reserved",
    "unique_prefixes": "unique prefixes",
    "coverage": "catalogue coverage",
    "most_popular": "at least most popular",
    "best_baseline": "not below the best counting baseline",
    "new_items": "new items against text alone",
    "relative_ndcg": "NDCG@10 against the champion",
    "known_to_both": "items that both know",
    "anchor": "NDCG@10 against the anchor",
    "head": "head items",
    "tail": "tail items",
    "relative_coverage": "coverage against the champion",
    "common_items": "same catalogue",
    "churn": "IDs changed, by events",
}


def conclusion(verdict: GateVerdict) -> str:
    """One sentence: accepted or refused, against whom, and which rules were not met."""
    failed = [RULES.get(rule["name"], rule["name"]) for rule in verdict["rules"] if not rule["passed"]]
    beside = f"against champion {verdict['champion'][:12]}" if verdict["champion"] else "as a first release, without a champion to compare with"
    users = f"{verdict['metrics']['users']:,} users"
    if not failed:
        excused = [RULES.get(rule["name"], rule["name"]) for rule in verdict["rules"] if rule.get("excused")]
        but = f" Not met, and the champion is no better: {', '.join(excused)}." if excused else ""
        return f"The gate accepts bundle {verdict['candidate'][:12]} {beside} ({len(verdict['rules'])} rules, {users}).{but}"
    return f"The gate refuses bundle {verdict['candidate'][:12]} {beside} ({users}): {', '.join(failed)}."


def refusal(verdict: GateVerdict) -> str:
    """What to say of a refused candidate: the sentence, what serves now, and each rule that was not met."""
    rules = "; ".join(rule["message"] for rule in verdict["rules"] if not rule["passed"])
    return f"{conclusion(verdict)} {after_refusal(verdict)} {rules}"


def after_refusal(verdict: GateVerdict) -> str:
    """What serves after a refusal."""
    return "What served before still serves." if verdict["champion"] else "Nothing serves yet."


def overall(verdict: GateVerdict) -> Comparison | None:
    """Candidate, champion and their difference over all users; None without a champion."""
    found = verdict["metrics"].get("slices", {}).get("all")
    return None if found is None else found.get(NDCG)


def against(verdict: GateVerdict) -> str | None:
    """NDCG@10 of candidate and champion with the interval of the paired difference; None without a champion."""
    row = overall(verdict)
    if row is None:
        return None
    gain = row["difference"]
    says = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "a difference that may be chance"
    relative = f", {100 * gain['mean'] / row['champion']:+.1f}%" if row["champion"] > 0 else ""
    users = verdict["metrics"]["slices"]["all"]["users"]
    return (
        f"On the same {users:,} users the new model reaches NDCG@10 {row['candidate']:.4f}, "
        f"the champion it was compared with {row['champion']:.4f}: {says} "
        f"({gain['mean']:+.4f}{relative}; 95% interval {gain['low']:+.4f} to {gain['high']:+.4f})."
    )


def verdict_markdown(verdict: GateVerdict) -> str:
    """The sentence, the rules, and the slices with intervals."""
    lines = [f"**{markdown_escape(conclusion(verdict))}**", "", "| rule | | found | wanted | |", "|---|---|---:|---:|---|"]
    for rule in verdict["rules"]:
        mark = {"yes": "passed", "no": "**not met**"}.get(mark_of(rule), mark_of(rule))
        cells = (
            RULES.get(rule["name"], rule["name"]),
            mark,
            value(rule["observed"]),
            value(rule["wanted"]),
            markdown_escape(printable(rule["message"], 300)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    rows = slice_rows(verdict)
    if rows:
        lines += ["", "| NDCG@10 | users | candidate | champion | difference (95% interval) |", "|---|---:|---:|---:|---:|"]
        lines += [f"| {r['name']} | {r['users']:,} | {r['candidate']} | {r['champion']} | {r['difference']} |" for r in rows]
        lines += ["", markdown_escape(freshness(verdict))]
    return "\n".join(lines) + "\n"


def mark_of(rule: Rule) -> str:
    """Whether a rule is met, in a word."""
    return "excused" if rule.get("excused") else "yes" if rule["passed"] else "no"


def value(found: Any) -> str:
    """A rule's number as it is read: four digits, or the text."""
    if isinstance(found, bool) or found is None:
        return "–" if found is None else str(found)
    if isinstance(found, float):
        return f"{found:.4g}"
    return markdown_escape(printable(str(found), 60))


def slice_rows(verdict: GateVerdict) -> list[dict[str, Any]]:
    """One row a slice that was measured, as text."""
    rows = []
    for name, found in verdict["metrics"].get("slices", {}).items():
        row = found.get("ndcg@10")
        if row is None:
            continue
        gain = row["difference"]
        rows.append(
            {
                "name": LABELS.get(name, name),
                "users": found["users"],
                "candidate": decimal(row["candidate"]),
                "champion": decimal(row["champion"]),
                "difference": f"{gain['mean']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})",
            }
        )
    return rows


def freshness(verdict: GateVerdict) -> str:
    """How many targets neither model can have seen, and what the comparison counts as a miss."""
    fresh = verdict["metrics"].get("fresh_targets")
    text = "the events have no times, so none is known to be" if fresh is None else f"{fresh:,} of {verdict['metrics']['users']:,} are"
    return (
        f"Both rank the candidate's users and targets; {text} newer than all events that the champion was made from. "
        "A target that the champion does not know counts as its miss."
    )


def slices_panel(verdict: GateVerdict) -> Panel:
    """The paired difference in NDCG@10 on each slice, with its interval."""

    def draw(ax: Axes) -> str:
        found = {name: row["ndcg@10"] for name, row in verdict["metrics"].get("slices", {}).items() if "ndcg@10" in row}
        for place, row in enumerate(found.values()):
            gain = row["difference"]
            colour = BETTER if gain["low"] > 0 else WORSE if gain["high"] < 0 else GREY
            ax.plot([gain["low"], gain["high"]], [place, place], color=colour, linewidth=3)
            ax.plot([gain["mean"]], [place], marker="o", markersize=8, color=colour, linestyle="")
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_yticks(range(len(found)), [LABELS.get(name, name) for name in found])
        ax.set_ylim(len(found) - 0.4, -0.6)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("NDCG@10, candidate minus champion (95% interval)")
        change = found["all"]["difference"]["mean"] if "all" in found else 0.0
        return f"Against the champion, NDCG@10 changes by {change:+.4f} over all users"

    return draw


def models_panel(verdict: GateVerdict) -> Panel:
    """NDCG@10 of candidate, champion, the best counting baseline and most popular."""
    colours = {"candidate": LISTS, "champion": INK, "baseline": DATA, "most_popular": DATA}
    shown = {"baseline": NAMES.get(verdict["metrics"]["baseline"]["name"], "baseline")}

    def draw(ax: Axes) -> str:
        models = verdict["metrics"]["models"]
        names = [name for name in colours if name in models]
        for place, name in enumerate(names):
            low, high = models[name]["intervals"]["ndcg@10"]
            ax.plot([low, high], [place, place], color=colours[name], linewidth=3)
            ax.plot([models[name]["ndcg@10"]], [place], marker="o", markersize=8, color=colours[name], linestyle="")
        ax.set_yticks(range(len(names)), [shown.get(name, name.replace("_", " ")) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlim(left=0)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("NDCG@10 (95% interval)")
        return f"The gate {'accepts' if verdict['verdict'] == 'accept' else 'refuses'}: the candidate reaches {models['candidate']['ndcg@10']:.4f}"

    return draw


def picture(verdict: GateVerdict) -> bytes:
    """PNG: the models, and the slices where there is a champion."""
    return png([models_panel(verdict), *([slices_panel(verdict)] if "slices" in verdict["metrics"] else [])])
