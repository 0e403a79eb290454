"""The pictures of docs/concepts.md, drawn from a real run: `python -m docs.pictures --store store` after `make demo` (two minutes).

Three read the newest report of the store; `collapse.png` trains the small setting of tests/diger_core/training/test_collapse.py afresh.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.verdict.report.drawing import BLUE, GREY, VERMILLION, draw_lines, png, series, whole_epochs

if TYPE_CHECKING:
    from orchestration.verdict.report.drawing import Panel
    from orchestration.verdict.report.material import Material

HERE = Path(__file__).parent / "pictures"
SEEDS = (0, 1, 2)


def meaning(material: Material) -> list[Panel]:
    """How alike two items are, and how often one follows the other, by how many codes they share from the left."""
    codes_NM = material.semantic_ids[0]
    levels = codes_NM.shape[1]
    vectors_ND = material.vectors / np.maximum(np.linalg.norm(material.vectors, axis=1, keepdims=True), 1e-12)
    random = np.random.default_rng(0)
    pairs = random.integers(0, len(codes_NM), (2_000_000, 2))
    shared = (np.cumprod(codes_NM[pairs[:, 0]] == codes_NM[pairs[:, 1]], axis=1)).sum(axis=1)
    alike = np.array([_cosine(vectors_ND, pairs[(shared == n) & (pairs[:, 0] != pairs[:, 1])][:20_000]) for n in range(levels + 1)])
    before, after = material.seq.events_E[:-1], material.seq.events_E[1:]
    inside = np.ones(len(before), dtype=bool)
    inside[material.seq.offsets_U1[1:-1] - 1] = False  # the next event is another user's
    followed = (np.cumprod(codes_NM[before[inside]] == codes_NM[after[inside]], axis=1)).sum(axis=1)
    lift = [(followed >= n).mean() / max((shared >= n).mean(), 1e-9) for n in range(1, levels + 1)]

    def text(ax: Any) -> str:
        _bars(ax, [str(n) for n in range(levels + 1)], alike, [f"{value:.2f}" for value in alike])
        ax.set_xlabel("codes that two items share, from the left")
        ax.set_ylabel("mean cosine of their vectors")
        return f"Items that share codes have similar texts: cosine {alike[0]:.2f} with none, {alike[-1]:.2f} with all {levels}"

    def shopping(ax: Any) -> str:
        _bars(ax, [f"{n}+" for n in range(1, levels + 1)], np.array(lift), [f"{value:.0f}×" for value in lift])
        ax.set_xlabel("codes shared with the item before, from the left")
        ax.set_ylabel("times as often as by chance")
        return f"People go on to items that share codes: the first code {lift[0]:.0f} times as often as by chance"

    return [text, shopping]


def _cosine(unit_ND: np.ndarray, pairs: np.ndarray) -> float:
    return float((unit_ND[pairs[:, 0]] * unit_ND[pairs[:, 1]]).sum(axis=1).mean()) if len(pairs) else float("nan")


def _bars(ax: Any, names: list[str], values: np.ndarray, labels: list[str]) -> None:
    ax.bar_label(ax.bar(range(len(names)), values, color=BLUE), labels, padding=3)
    ax.set_xticks(range(len(names)), names)
    ax.margins(y=0.15)


def noise(material: Material) -> list[Panel]:
    """How often each code of level 1 is drawn for one item, by sigma: softmax(logits / sigma) (docs/method.md, section 3)."""
    import torch

    from orchestration.champion.model_artefact import load_model

    tokenizer = load_model(material.inputs["joint_model"]).tokenizer
    factors = material.inputs["tokenizer"].tensors("inputs.safetensors")["factors"]
    with torch.no_grad():
        z_Ne = tokenizer.encode(torch.cat([torch.from_numpy(material.vectors), factors], dim=1))
        logits_NK = -tokenizer.alpha * torch.cdist(z_Ne, tokenizer.codebooks[0]).square()
        top = logits_NK.topk(2).values
        gap = (top[:, 0] - top[:, 1]).numpy()
        item = int(np.abs(gap - np.median(gap)).argmin())
        best = logits_NK[item].sort(descending=True).values[:8]
        shares = {sigma: torch.softmax(logits_NK[item] / sigma, 0).sort(descending=True).values[:8].numpy() for sigma in (0.25, 1.0, 2.0)}

    def panel(sigma: float) -> Panel:
        def draw(ax: Any) -> str:
            _bars(ax, [f"{rank}." for rank in range(1, len(best) + 1)], shares[sigma], [f"{100 * share:.0f}%" for share in shares[sigma]])
            ax.set_ylim(0, 1.1)
            ax.set_xlabel("codes, nearest first")
            ax.set_ylabel("share of the draws")
            return f"σ = {sigma:g}: the nearest code is drawn in {100 * shares[sigma][0]:.0f}% of the steps"

        return draw

    return [panel(sigma) for sigma in shares]


def decay(material: Material) -> list[Panel]:
    """FrqUD's hot codes at the end of the run, and SDUD's sigma for the loss that the run had."""
    from diger_core.config import ScheduleConfig

    defaults = ScheduleConfig()
    usage_K = np.bincount(material.semantic_ids[0][:, 0], minlength=material.code_count)
    share_K = np.sort(usage_K / usage_K.sum())[::-1]
    line = defaults.r / material.code_count
    hot, items = int((share_K > line).sum()), float(share_K[share_K > line].sum())
    rows = material.curves["joint_model"]
    epochs, loss = series(rows, "loss_gen")
    sigma = np.maximum(0.0, np.sqrt(loss) - defaults.lambda_ * np.sqrt(np.log(material.code_count) / np.log(256)))

    def frequency(ax: Any) -> str:
        ax.bar(range(len(share_K)), 100 * share_K, width=1.0, color=np.where(share_K > line, VERMILLION, BLUE).tolist())
        ax.axhline(100 * line, color=GREY, linewidth=1)
        ax.annotate("r / K", (len(share_K), 100 * line), ha="right", va="bottom", color=GREY)
        ax.set_xlabel("codes of level 1, fullest first")
        ax.set_ylabel("% of the items")
        return f"FrqUD: noise goes to the {100 * items:.0f}% of the items that sit on the {hot} codes above r / K"

    def standard_deviation(ax: Any) -> str:
        draw_lines(ax, [("loss", GREY, epochs, loss), ("σ*", BLUE, epochs, sigma)], from_zero=True)
        whole_epochs(ax)
        ax.set_ylabel("nats; noise scale")
        off = epochs[np.flatnonzero(sigma == 0)]
        return (
            f"SDUD: σ* = √loss − λ for this run's loss; the noise is off from epoch {off[0]:.0f} on" if len(off) else "SDUD: σ* falls with the loss"
        )

    return [frequency, standard_deviation]


def collapse() -> list[Panel]:
    """Distinct IDs before and after a short joint training, without and with noise, on three seeds."""
    from tests.diger_core.training.test_collapse import unique_prefixes_before_and_after

    found = {name: [unique_prefixes_before_and_after(name, seed) for seed in SEEDS] for name in ("none", "gumbel")}

    def draw(ax: Any) -> str:
        for place, (name, runs) in enumerate(found.items()):
            for offset, (before, after) in enumerate(runs):
                x = place + 0.22 * (offset - 1)
                ax.bar([x], [before], width=0.18, color="#d5d9df")
                ax.bar([x], [after], width=0.12, color=VERMILLION if name == "none" else BLUE)
        ax.set_xticks([0, 1], ["straight-through, no noise", "Gumbel noise"])
        ax.set_ylabel("distinct IDs (grey: before)")
        lost, kept = (sum(after for _, after in runs) / sum(before for before, _ in runs) for runs in found.values())
        return f"Joint training keeps {100 * lost:.0f}% of the distinct IDs without noise and {100 * kept:.0f}% with it (three seeds)"

    return [draw]


def main() -> None:
    from diger_core.store.artefacts import Store
    from orchestration.audit.index import Index
    from orchestration.verdict.report.found import find_report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="store")
    parser.add_argument("--report", default="report", help="which report of the store: a hash, a snapshot, or the newest")
    given = parser.parse_args()
    material = find_report(Index(Store(given.store)), given.report).material
    HERE.mkdir(exist_ok=True)
    for name, panels, columns in (
        ("meaning", meaning(material), 2),
        ("noise", noise(material), 3),
        ("decay", decay(material), 2),
        ("collapse", collapse(), 1),
    ):
        (HERE / f"{name}.png").write_bytes(png(panels, columns=columns, width=5.6))
        print(HERE / f"{name}.png", (HERE / f"{name}.png").stat().st_size)


if __name__ == "__main__":
    main()
