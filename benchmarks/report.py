"""Renders benchmarks/RESULTS.md from benchmarks/results/*.jsonl: `python -m benchmarks.report`. The last line for each setting counts.

The page is for reading: the conclusion, tables of today, notes. What is in no table, and every command: `python -m benchmarks.rows`.
"""

from __future__ import annotations

from benchmarks import report_lists, report_quality, report_speed
from benchmarks.tables import FOLDER, last_run, made_by, rows, table


def retraining() -> str:
    """One line for each cut and method; free and pinned IDs, cold starts and first trainings stay in the records."""
    found = [
        r
        for r in rows("retraining", "data", "cut", "method", "seed", "label")
        if "kept_weighted" in r and r["method"] not in ("free", "pinned", "cold")
    ]
    body = []
    for r in sorted(found, key=lambda r: (r["data"], r["cut"], r["seed"], r["method"] != "scratch", r["method"], r["label"])):
        beside = "" if r.get("ndcg_difference") is None else f"{r['ndcg_difference']:+.4f} [{r['ndcg_low']:+.4f}, {r['ndcg_high']:+.4f}]"
        new = "" if r["new_recall@10"] is None else f"{r['new_recall@10']:.4f} / {r['new_ndcg@10']:.4f} ({r['new_targets']})"
        name = f"{r['method']} {r['label']}".strip()
        body.append(
            [f"{r['share']:.0%}", name, f"{r['recall@10']:.4f} / {r['ndcg@10']:.4f}", new, beside, f"{r['kept_weighted']:.1%}", f"{r['seconds']:.0f}"]
        )
    header = ["events", "method", "R@10 / N@10", "on new items (targets)", "N@10 minus scratch", "IDs kept, by traffic", "seconds"]
    title = "## Retraining as the catalogue grows, Beauty cut by date\n\n"
    return title + table(header, body) + made_by(found) if found else ""


def robustness() -> str:
    """What was provoked and what was noticed."""
    told = [line for line in (_faults(), _damages(), _questions(), _pruning(), _traffic()) if line]
    return "## Faults, audit, search, ranks\n\n" + " ".join(told) + "\n" if told else ""


def _faults() -> str:
    found = [r for r in rows("faults", "fault", "quick") if not r["quick"]]
    lost = [r["what"] for r in found if r["failed"]]
    end = f"NOT survived: {', '.join(lost)}" if lost else "all survived"
    scenarios, minutes = sum(r["passed"] + r["failed"] for r in found), sum(r["seconds"] for r in found) / 60
    return f"`make faults`: {len(found)} kinds of fault in {scenarios} scenarios, {end} ({minutes:.0f} minutes)." if found else ""


def _damages() -> str:
    found = rows("audit_damages", "damage", "where")
    missed = [r["damage"] for r in found if not r["right"]]
    end = f"MISSED: {', '.join(missed)}" if missed else "all were found and named"
    return f"`diger why champion --verify`: {len(found)} damages to a store, on disk and on an S3 server; {end}." if found else ""


def _questions() -> str:
    found = rows("audit_questions", "question", "where", "artefacts")
    seconds = [r["seconds"] for r in found]
    largest = max((r["artefacts"] for r in found), default=0)
    return f"Audit questions to stores of up to {largest:,} artefacts take {min(seconds):.1f} to {max(seconds):.1f} s." if found else ""


def _pruning() -> str:
    compared = {r["study"]: r for r in rows("search", "study")}.get("comparison")
    if compared is None:
        return ""
    winner = "and the same configuration wins" if compared["same_winner"] else f"another configuration wins, with {compared['difference']:+.4f}"
    return f"Decay search on the embedded shop: pruning saves {compared['epochs_saved']:.0%} of the epochs {winner}."


def _traffic() -> str:
    over = [r["sent"] / r["formula_all_ranks"] for r in last_run("traffic") if r["formula_all_ranks"]]
    return f"Ranks that train together send {min(over):.3f} to {max(over):.3f} times the bytes of a ring all-reduce." if over else ""


def render() -> str:
    """The whole page."""
    texts = {name: (FOLDER / "results" / f"{name}.md").read_text(encoding="utf-8") for name in ("conclusion", "notes")}
    parts = [texts["conclusion"], report_lists.lists(), report_quality.quality(), report_speed.aims(), report_speed.fast(), report_speed.scale()]
    parts += [retraining(), robustness(), texts["notes"]]
    return "\n".join(part for part in parts if part)


def main() -> None:
    report_speed.plot()
    (FOLDER / "RESULTS.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
