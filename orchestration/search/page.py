"""The study's page and its Markdown summary: self-contained, in the report's style, functions of the trials alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.params.search import SearchConfig
from orchestration.search import figures
from orchestration.search.journal import Told
from orchestration.search.ranking import importance, pareto, ranked_finalists, searched
from orchestration.search.terminal import shown
from orchestration.verdict.report import drawing, text
from orchestration.verdict.report.markdown import picture_markdown
from orchestration.verdict.report.pictures import THIRD, environment, pictures

HERE = Path(__file__).parent
REPORT = Path(__file__).parents[1] / "verdict" / "report"


def page(study: Mapping[str, Any], config: SearchConfig, trials: Mapping[int, Told], lineage: list[tuple[str, str]], reference: str) -> str:
    """report.html. `reference`: what churn is counted against, in words."""
    from jinja2 import FileSystemLoader
    from markupsafe import Markup

    made = environment()
    made.loader = FileSystemLoader([HERE, REPORT])
    listed = sorted(searched(trials), key=lambda t: (-(t.score or 0.0), t.trial.number))
    sentence, details, tone = verdict(study)
    context = {
        "study": study,
        "css": Markup((REPORT / "style.css").read_text(encoding="utf-8")),
        "sentence": sentence,
        "details": details,
        "tone": tone,
        "shown": shown,
        "reference": reference,
        "rows": listed,
        "pareto_rows": pareto(trials),
        "lineage": lineage,
        "settings": json.dumps(study["settings"], indent=2, sort_keys=True, ensure_ascii=False),
        **{name: pictures(panels, name, **size) for name, (panels, size) in panels_of(study, config, trials).items()},
    }
    return made.get_template("study.html.j2").render(context)


def panels_of(study: Mapping[str, Any], config: SearchConfig, trials: Mapping[int, Told]) -> dict[str, tuple[list[drawing.Panel], dict[str, float]]]:
    """The panels of each section, and their size where it is not the usual one (inches)."""
    search, winner, best = searched(trials), study["winner"]["trial"], study["pareto"]
    levels = max((drawing.levels(t.curve, "perplexity") for t in search), default=0)
    ranked, found = ranked_finalists(trials, config.finalists), importance(trials, config.grace_epochs)
    usage = [figures.curves(search, "perplexity", "perplexity (codes)", f"Codes in use at level {j + 1}", winner, j) for j in range(levels)]
    return {
        "finalists": ([figures.finalists_panel(ranked)], {"width": 6.8, "height": 1.0 + 0.4 * len(ranked)}),
        "parallel": ([figures.parallel_coordinates(search, best, winner)], {"width": 9.4, "height": 3.6}),
        "importance": ([figures.importance_panel(found)], {"width": 6.8, "height": 1.0 + 0.32 * len(found)}),
        "pareto": (
            [
                figures.pareto_panel(search, best, "unique_prefixes", "unique prefixes", winner),
                figures.pareto_panel(search, best, "churn", "churn (share of items)", winner),
            ],
            {},
        ),
        "curves": (
            [
                figures.curves(search, "validation_ndcg_10", "validation NDCG@10", "NDCG@10 by epoch", winner),
                figures.curves(search, "sigma", "mean σ", "Noise by epoch, over items and levels", winner),
                *usage,
            ],
            dict(THIRD),
        ),
        "each": (
            [figures.trial_panel(t, levels, study["epochs_of_a_trial"]) for t in sorted(search, key=lambda t: t.trial.number) if t.rows],
            dict(THIRD),
        ),
    }


def verdict(study: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """(the sentence, details, tone: better where the lead over the other finalists is beyond their 95% intervals, else open)."""
    winner, others, epochs = study["winner"], study["finalists"][1:], study["epochs"]
    interval = winner["interval"]
    seeds = f"{len(winner['scores'])} seed" + ("s" if len(winner["scores"]) > 1 else "")
    within = f" (95% interval of the mean {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    clear = bool(others) and interval is not None and all(o["interval"] is not None and interval[0] > o["interval"][1] for o in others)
    lead = ""
    if others:
        gap, second = winner["mean"] - others[0]["mean"], f"trial {others[0]['trial']}"
        certain = "beyond the seeds' spread" if clear else "a lead that more seeds may reverse"
        lead = f", {gap:.4f} above {second}: {certain}" if gap >= 0.00005 else f", level with {second}"
    sentence = f"{shown(winner['config'])} reaches a validation NDCG@10 of {winner['mean']:.4f} over {seeds}{within}{lead}."
    saved = 1 - epochs["search"] / max(1, epochs["search_without_pruning"])
    states = ", ".join(f"{count} {state}" for state, count in study["states"].items())
    details = [
        f"{sum(study['states'].values())} trials: {states}.",
        f"Pruning: {epochs['search']} of {epochs['search_without_pruning']} epochs were trained, {saved:.0%} saved; "
        f"{epochs['seeds']} more for the finalists' seeds.",
    ]
    return sentence, details, "better" if clear else "open"


def summary_markdown(study: Mapping[str, Any], config: SearchConfig, trials: Mapping[int, Told]) -> str:
    """report.md: the winner, the finalists, and the parallel coordinates as a picture."""
    sentence, details, _ = verdict(study)
    lines = [
        f"# Decay search `{study['study'][:12]}`",
        "",
        f"**{text.markdown_escape(sentence)}**",
        "",
        *(f"- {text.markdown_escape(d)}" for d in details),
    ]
    lines += ["", "| trial | mean NDCG@10 | spread | each seed | configuration |", "|---|---:|---:|---|---|"]
    for f in study["finalists"]:
        scores = " ".join(text.decimal(s) for s in f["scores"])
        configuration = text.markdown_escape(shown(f["config"]))
        lines.append(f"| {f['trial']} | {text.decimal(f['mean'])} | {text.decimal(f['spread'])} | {scores} | {configuration} |")
    lines += [
        "",
        "```",
        *study["winner"]["overrides"],
        "```",
        "",
        picture_markdown(picture(study, config, trials), "Trials by dimension and NDCG@10"),
    ]
    return "\n".join(lines) + "\n"


def picture(study: Mapping[str, Any], config: SearchConfig, trials: Mapping[int, Told]) -> bytes:
    """parallel.png, for Dagster's UI."""
    panels = panels_of(study, config, trials)
    return drawing.png(panels["parallel"][0], columns=1, width=9.4, height=3.6)
