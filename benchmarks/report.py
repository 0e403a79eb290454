"""Renders benchmarks/RESULTS.md from benchmarks/results/*.jsonl: `python -m benchmarks.report`. The last line for each setting counts."""

from __future__ import annotations

import json
import re

from benchmarks import report_quality, report_speed
from benchmarks.tables import FOLDER, WHERE, Row, last_run, rows, table, where


def retraining() -> str:
    """One line for each cut and method: quality, churn, cost, and where the run stands beside the one from scratch."""
    found = rows("retraining", "data", "cut", "method", "seed", "label")
    body = []
    for r in sorted(found, key=lambda r: (r["data"], r["cut"], r["seed"], r["method"] != "scratch", r["method"], r["label"])):
        beside = "" if r.get("ndcg_difference") is None else f"{r['ndcg_difference']:+.4f} [{r['ndcg_low']:+.4f}, {r['ndcg_high']:+.4f}]"
        reached = ""
        if r.get("scratch_best_seconds") is not None and r["method"] != "cold":
            reached = "not" if r["reached_seconds"] is None else f"epoch {r['reached_epoch']}, {r['reached_seconds']:.0f} s"
            reached += f" (scratch: {r['scratch_best_seconds']:.0f} s)"
        new = "" if r["new_recall@10"] is None else f"{r['new_recall@10']:.4f} / {r['new_ndcg@10']:.4f} ({r['new_targets']})"
        churn = [f"{r[name]:.1%}" if name in r else "" for name in ("kept_weighted", "kept", "changed_users")]
        quality = [f"{r['recall@10']:.4f} / {r['ndcg@10']:.4f}", new, beside]
        name = f"{r['method']} {r['label']}".strip()
        body.append([f"{r['share']:.0%}", name, r["seed"], *quality, *churn, r["epochs_run"], f"{r['seconds']:.0f}", reached, *where(r)])
    header = ["events", "method", "seed", "R@10 / N@10", "on new items (targets)", "N@10 minus scratch", "IDs kept, by traffic", "by item"]
    header += ["users touched", "epochs", "seconds", "reached scratch's best validation", *WHERE]
    return "## Retraining as the catalogue grows, Beauty cut by date\n\n" + table(header, body) if found else ""


def cpu() -> str:
    """Both sides of the newest run of `make bench`."""
    found = last_run("cpu_train")
    rates = {record["side"]: record["rows_per_second"] for record in found}
    body = []
    for r in found:
        spread = f"{min(r['repeats']):,.0f} to {max(r['repeats']):,.0f}"
        times = f"{r['rows_per_second'] / rates['peer']:.2f}"
        cost = r["processor_seconds_per_1000_rows"]
        body.append([r["side"], r["batch"], r["threads"], f"{r['rows_per_second']:,.0f}", spread, times, cost, r["load_before"], *where(r)])
    header = ["side", "batch", "threads", "rows/s, median", "rounds", "times the peer", "processor s for 1,000 rows", "load before", *WHERE]
    return "## On the CPU, small model (`make bench`)\n\n" + table(header, body) if found else ""


def traffic() -> str:
    """The newest run of `python -m benchmarks.traffic`."""
    found = last_run("traffic")
    if not found:
        return ""
    one, body = next((r["rows_per_second"] for r in found if r["ranks"] == 1), None), []
    for r in found:
        formula, wire = r["formula_payload"], r["formula_all_ranks"]
        over = f"{r['sent'] / wire:.3f}" if wire else ""
        speed = f"{r['rows_per_second']:,.0f} ({r['rows_per_second'] / one:.2f})" if one else f"{r['rows_per_second']:,.0f}"
        spread = f"{min(r['repeats']):,.0f} to {max(r['repeats']):,.0f}"
        cells = [r["ranks"], f"{r['parameters']:,}", f"{r['payload']:,.0f}", f"{formula:,}", f"{r['sent']:,}", f"{wire:,}", over]
        body.append([*cells, speed, spread, r["ms_per_step"], r["exchange_ms"], r["load_before"], *where(r)])
    header = ["ranks", "learning parameters", "payload, bytes a step", "formula", "sent by all ranks, bytes a step", "ring", "sent / ring"]
    header += ["rows/s (times one rank)", "rounds", "ms a step", "of them in the exchange", "load before", *WHERE]
    told = f"One batch of {found[0]['batch']} rows in all, whatever the number of ranks; one thread a rank; gloo over loopback.\n\n"
    return "## Scaling: bytes and rows (`python -m benchmarks.traffic`)\n\n" + told + table(header, body)


def audit() -> str:
    """Speed of questions and of hashing, and what was said about each damage."""
    asked = rows("audit_questions", "question", "where", "artefacts")
    if not asked:
        return ""
    body = [
        [
            r["question"],
            r["where"],
            f"{r['artefacts']:,}",
            f"{r['seconds']:.2f}",
            f"{s:.2f}" if (s := r.get("seconds_without_start")) else "",
            *where(r),
        ]
        for r in asked
    ]
    parts = [
        "## Audit: questions to a store\n\n" + table(["question", "store", "artefacts", "seconds, process start included", "without", *WHERE], body)
    ]
    body = [
        [r["what"], f"{r['bytes']:,}", r["cpus"], f"{r['mb_per_second']:,.0f}", f"{r['of_sha256sum']:.2f}", *where(r)]
        for r in rows("audit_hashing", "what")
    ]
    parts.append("## Audit: hashing\n\n" + table(["command", "bytes", "processors", "MB/s", "times sha256sum", *WHERE], body))
    body = []
    for r in rows("audit_damages", "damage", "where"):
        verdict = ("passes, and says so" if r["passes"] else "detected and named") if r["right"] else "MISSED"
        body.append([r["damage"], r["where"], verdict, _shortened(r["said"]), *where(r)[2:]])
    parts.append("## Audit: damages (`diger why champion --verify`)\n\n" + table(["damage", "store", "result", "what is said", *WHERE[2:]], body))
    return "\n".join(parts)


def faults() -> str:
    """What was provoked, by which tests, and whether it was survived: each fault's newest line, but for those of a quick bench."""
    found = sorted([r for r in rows("faults", "fault", "quick") if not r["quick"]], key=lambda r: r["fault"])
    body = []
    for r in found:
        survived = "yes" if not r["failed"] else f"NO ({r['failed']} failed)"
        measured = "; ".join(f"{name}: {value:g}" for name, value in sorted(r.get("measured", {}).items()))
        body.append([r["fault"], r["what"], r["passed"], survived, f"{r['seconds']:.0f}", measured, *where(r)[2:]])
    minutes = sum(r["seconds"] for r in found) / 60
    commits = sorted({r["commit"] for r in found})
    whole = f"all of commit `{commits[0]}`" if len(commits) == 1 else "each is the newest of its fault, and they are of several commits"
    told = f"The lines below sum to {minutes:.1f} minutes; {whole}.\n\n"
    return (
        "## Faults (`make faults`)\n\n"
        + told
        + table(["number", "fault", "scenarios passed", "survived", "seconds", "measured (largest)", *WHERE[2:]], body)
        if found
        else ""
    )


def search() -> str:
    """The decay search with and without pruning, and whether pruning lost the better schedule. The last complete measurement counts."""
    found = {record["study"]: record for record in rows("search", "study")}
    if not found:
        return ""
    body = []
    for r in (found["pruned"], found["unpruned"]):
        wall, busy = "not timed: trainings shared", ""
        if r["seconds"] is not None:
            wall = f"{r['seconds_of_search']:.0f} + {r['seconds'] - r['seconds_of_search']:.0f}, in {r['pieces']} piece(s)"
            busy = f"{r['others_cpu_seconds']:.0f} (load {r['load']:.1f}, {r['cpus']} cores)"
        cpu_seconds = f"{r['cpu_seconds'] - r['cpu_seconds_of_finalists']:.0f} + {r['cpu_seconds_of_finalists']:.0f}"
        score = f"{r['mean']:.4f}" + ("" if r["spread"] is None else f" ± {r['spread']:.4f}")
        each = ", ".join(f"{value:.4f}" for value in r["scores"])
        epochs = f"{r['epochs']} of {r['epochs_unpruned']}, + {r['epochs_of_finalists']}"
        body.append(
            [r["study"], r["trials"], epochs, wall, cpu_seconds, busy, f"{r['winner']}: {r['configuration']}", f"{score} ({each})", *where(r)]
        )
    header = ["study", "trials", "epochs, + of finalists", "seconds, search + finalists", "CPU seconds", "CPU seconds of other programs"]
    header += ["winner", "validation NDCG@10 over seeds", *WHERE]
    return "## Decay search on the embedded shop, with and without pruning\n\n" + table(header, body) + "\n" + _pruning(found["comparison"])


def _pruning(c: Row) -> str:
    winner = "the same configuration wins" if c["same_winner"] else f"another configuration wins, with {c['difference']:+.4f}"
    place = f"{'within' if c['within'] else 'BELOW'} the spread of the unpruned winner's seeds ({c['spread']:.4f})"
    checked = f"{c['equal']} of the {c['epochs_of_both']} epochs that pruned trials had and both studies trained have equal figures"
    return f"Pruning saves {c['epochs_saved']:.0%} of the epochs; {winner}, {place}. {checked}.\n"


def _shortened(text: str) -> str:
    """Hashes by their beginnings, and no more than a table's cell can hold."""
    text = re.sub(r"[0-9a-f]{40,64}", lambda m: m[0][:8] + "…", text).replace("|", "\\|")
    return text if len(text) <= 260 else text[:260] + " …"


def commands() -> str:
    found = sorted({record["command"] for path in (FOLDER / "results").glob("*.jsonl") for record in map(json.loads, path.read_text().splitlines())})
    return (
        "## Commands\n\nOne seed (0) for speed; a figure is the median of three repetitions, for training the mean over an epoch's steps.\n\n"
        + "".join(f"- `{command}`\n" for command in found)
    )


def main() -> None:
    notes = FOLDER / "results" / "notes.md"
    head = "# Results\n\nWritten by `python -m benchmarks.report` from `benchmarks/results/`; the last section is written by hand.\n"
    parts = [
        head,
        report_speed.aims(),
        report_speed.fast(),
        report_speed.scale(),
        report_quality.quality(),
        report_quality.same_epochs(),
        retraining(),
        cpu(),
        traffic(),
        audit(),
        faults(),
        search(),
        commands(),
        notes.read_text(encoding="utf-8") if notes.exists() else "",
    ]
    (FOLDER / "RESULTS.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


if __name__ == "__main__":
    main()
