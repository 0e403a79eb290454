"""The comparison's page, Markdown summary and picture, and its lines for a terminal: functions of comparison.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diger_core.evaluation.crossed import FEWEST
from orchestration.verdict.report import drawing, text
from orchestration.verdict.report.drawing import BETTER, GREY, WORSE
from orchestration.verdict.report.markdown import picture_markdown
from orchestration.verdict.report.pictures import environment, pictures

if TYPE_CHECKING:
    from orchestration.search.comparison_document import ComparisonDocument, Gain, Trained
    from orchestration.verdict.report.drawing import Axes, Panel

HERE = Path(__file__).parent
REPORT = Path(__file__).parents[1] / "verdict" / "report"
LABELS = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10"}
WORDS = {"better": "better", "worse": "worse", "open": "no difference established", "unclaimed": "no claim"}
COLOURS = {"better": BETTER, "worse": WORSE, "open": GREY, "unclaimed": GREY}


def label_of(found: ComparisonDocument, name: str) -> str:
    """What a variant is called: "continued frozen" where a control began from a joint champion."""
    return next(variant["label"] for variant in found["variants"] if variant["name"] == name)


def told(found: ComparisonDocument, gain: Gain) -> str:
    """One difference in a sentence, with what may be said of it."""
    ours, theirs = label_of(found, gain["variant"]), label_of(found, found["reference"])
    what = f"{ours} against {theirs}: {LABELS[gain['metric']]} {gain['mean']:+.4f}"
    seeds = f"{len(found['seeds'])} seed{'s' if len(found['seeds']) > 1 else ''}"
    if gain["low"] is None or gain["high"] is None:
        return f"{what} on {seeds}: one seed has no interval, and a claim needs {FEWEST}"
    within = f"{what} (95% interval over seeds and users {gain['low']:+.4f} to {gain['high']:+.4f}; {seeds}, {found['users']:,} users)"
    if gain["word"] == "unclaimed":
        return f"{within}: on these seeds alone; a claim needs {FEWEST}"
    return f"{within}: {WORDS[gain['word']]}"


def summary_line(found: ComparisonDocument) -> str:
    """Every variant's difference in NDCG@10, in one line."""
    return "; ".join(told(found, gain) for gain in found["gains"] if gain["metric"] == "ndcg@10")


def rows(found: ComparisonDocument) -> list[list[str]]:
    """One row a variant: its mean over seeds, each seed, and the difference with its interval."""
    listed = []
    for variant in found["variants"]:
        scores = [training["ndcg@10"] for training in variant["trainings"]]
        gain = next((g for g in found["gains"] if g["variant"] == variant["name"] and g["metric"] == "ndcg@10"), None)
        difference, word = "reference", ""
        if gain is not None:
            interval = "" if gain["low"] is None or gain["high"] is None else f" ({gain['low']:+.4f} to {gain['high']:+.4f})"
            difference, word = f"{gain['mean']:+.4f}{interval}", WORDS[gain["word"]]
        each = " ".join(f"{score:.4f}" for score in scores)
        listed.append([variant["label"], f"{sum(scores) / len(scores):.4f}", each, difference, word])
    return listed


COLUMNS = ["variant", "NDCG@10", "each seed", "difference (95% interval)", ""]


def warnings(found: ComparisonDocument) -> list[str]:
    """Trainings that ended on an alarm, what a small number of seeds means, and where trainings began."""
    lines = [
        f"{variant['label']}, seed {training['seed']}, stopped on an alarm: {training['alarm']}"
        for variant in found["variants"]
        for training in variant["trainings"]
        if training["alarm"] is not None
    ]
    if len(found["seeds"]) < FEWEST:
        lines.append(f"{len(found['seeds'])} seeds say nothing about others: give at least {FEWEST} (training_comparison.seeds)")
    if "start" in found and any(variant["label"] != variant["name"] for variant in found["variants"]):
        lines.append(
            f"all trainings continue from bundle {found['start'][:12]}, whose tokenizer was trained jointly: the control is continued frozen, "
            "not a frozen control; retraining.baseline=none compares trainings from the beginning"
        )
    return lines


def tone(found: ComparisonDocument) -> str:
    """The colour of the verdict: that of the differences in NDCG@10 where they agree, else open."""
    words = {gain["word"] for gain in found["gains"] if gain["metric"] == "ndcg@10"}
    return words.pop() if len(words) == 1 and words <= {"better", "worse"} else "open"


def differences_panel(found: ComparisonDocument, metric: str) -> Panel:
    """Each variant's difference: seeds as points, the mean, and the interval."""
    gains = [gain for gain in found["gains"] if gain["metric"] == metric]

    def draw(ax: Axes) -> str:
        for place, gain in enumerate(gains):
            colour = COLOURS[gain["word"]]
            if gain["low"] is not None and gain["high"] is not None:
                ax.plot([gain["low"], gain["high"]], [place, place], color=colour, linewidth=3)
            ax.plot(gain["each"], [place] * len(gain["each"]), "o", color=colour, markersize=4, alpha=0.6)
            ax.plot([gain["mean"]], [place], "D", color=colour, markersize=7)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_yticks(range(len(gains)), [label_of(found, gain["variant"]) for gain in gains])
        ax.set_ylim(len(gains) - 0.4, -0.6)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(f"{LABELS[metric]} minus {label_of(found, found['reference'])}'s: seeds, mean, 95% interval")
        return f"{LABELS[metric]}: what each way to train adds, over {len(found['seeds'])} seeds"

    return draw


def page(found: ComparisonDocument, lineage: list[tuple[str, str]]) -> str:
    """report.html."""
    from jinja2 import FileSystemLoader
    from markupsafe import Markup

    made = environment()
    made.loader = FileSystemLoader([HERE, REPORT])
    height = 1.1 + 0.4 * (len(found["variants"]) - 1)
    context = {
        "css": Markup((REPORT / "style.css").read_text(encoding="utf-8")),
        "found": found,
        "sentences": [told(found, gain) for gain in found["gains"]],
        "warnings": warnings(found),
        "tone": tone(found),
        "columns": COLUMNS,
        "rows": rows(found),
        "variants": [(variant, settings(variant)) for variant in found["variants"]],
        "pictures": pictures([differences_panel(found, metric) for metric in LABELS], "difference", width=5.4, height=height),
        "lineage": lineage,
    }
    return made.get_template("comparison.html.j2").render(context)


def settings(variant: Trained) -> str:
    """How a variant trains, in words."""
    return " ".join([variant["model"].replace("_", " "), *variant["overrides"]])


def summary_markdown(found: ComparisonDocument) -> str:
    """report.md, for the UI."""
    head = f"# Trainings compared on {len(found['seeds'])} seeds and {found['users']:,} users ({found['split'].replace('_', ' ')})"
    lines = [head, "", *(f"- {text.markdown_escape(told(found, gain))}" for gain in found["gains"])]
    lines += [f"- {text.markdown_escape(warning)}" for warning in warnings(found)]
    lines += ["", "| variant | NDCG@10 | each seed | difference (95% interval) | |", "|---|---:|---|---:|---|"]
    lines += ["| " + " | ".join(text.markdown_escape(cell) for cell in row) + " |" for row in rows(found)]
    return "\n".join([*lines, "", picture_markdown(picture(found), "Differences between the trainings")]) + "\n"


def picture(found: ComparisonDocument) -> bytes:
    """comparison.png."""
    return drawing.png([differences_panel(found, metric) for metric in LABELS], columns=1, width=6.8, height=1.1 + 0.4 * (len(found["variants"]) - 1))
