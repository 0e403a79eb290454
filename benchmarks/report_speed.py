"""The report's parts on speed: the aims and what was measured against them, the tables of one run of `benchmarks.gpu fast`, cost against size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from benchmarks import tables
from benchmarks.tables import Row, last_run, made_by, rows, table

PLOT = "scale.png"  # in the results' folder
JOINT = "frqud"
SIDES = {"peer": "T5 peer, eager", "frozen": "frozen, captured", JOINT: "joint (FrqUD), captured"}
WAYS = (
    ("ours", True, True, "over fused kernels, real items only"),
    ("ours", True, False, "over fused kernels, unconstrained"),
    ("ours", False, True, "torch module, real items only"),
    ("peer", False, False, "T5 `generate`, unconstrained"),
    ("peer", False, True, "T5 `generate`, real items only"),
)  # side, fused, constrained, name


TOKENS = {"all": "all tokens of an item", "one": "one token an item"}
RANKED = ("fused bf16", "module bf16", "module fp32")


@dataclass(frozen=True)
class Aim:
    """What was to be reached; `measure` gives (what is told, reached or not), or None where the figures are missing."""

    text: str
    measure: Callable[[], tuple[str, bool] | None]

    def row(self) -> list[str]:
        found = self.measure()
        return [self.text, *(("not measured", "") if found is None else (found[0], "yes" if found[1] else "no"))]


def aims() -> str:
    """The table "Against the aims" from the newest run of `fast`, the CPU bench and the quality runs."""
    run = last_run("fast")
    speed = [
        Aim("joint training at batch 256 at least 25 times the peer, rows/s", lambda: _times_peer(run, JOINT, 25)),
        Aim("frozen training at batch 256 at least 30 times the peer, rows/s", lambda: _times_peer(run, "frozen", 30)),
        Aim("a joint step at most 1.25 times a frozen one, batch 256", lambda: _joint_over_frozen(run)),
        Aim("frozen training, each side at its best batch, at least 5 times the peer", lambda: _best_batches(run)),
        Aim("20 beams over the trie at least 20 times `generate`, each at its best batch", lambda: _beams(run, False, 20)),
        Aim("20 beams over the trie at least 100 times `generate` with the prefix function", lambda: _beams(run, True, 100)),
        Aim("evaluation of all 22,363 users under 1 s", lambda: _evaluation(run)),
        Aim("IDs of 1,000,000 items under 1 s, within 3 times of what memory and arithmetic allow", lambda: _id_table(run)),
        Aim("one Beauty run to early stop, evaluation every epoch, under 6 minutes", _early_stop),
        Aim("on 2 CPU cores, small model, joint rows/s at least 2 times the peer", _cpu),
    ]
    quality = [
        Aim("Beauty R@10 above .0825 and N@10 above .0457", _best_quality),
        Aim("joint training ahead of its frozen control by more than the seeds' spread, N@10", _gain),
    ]
    head = "## Against the aims\n\n"
    if run:
        spread = "a figure is the median of its repetitions, which went in turns through both sides"
        head += "The peer: a T5 of the same size (Hugging Face transformers, eager), as a published implementation uses it. "
        head += f"Speed on one {run[0]['device']}, all of run {run[0]['run']} (commit `{run[0]['commit']}`, {run[0]['time'][:10]}); {spread}.\n\n"
    return head + table(["aim", "measured", "reached"], [aim.row() for aim in speed + quality])


def _cell(run: list[Row], **wanted: Any) -> Row | None:
    return next((row for row in run if all(row.get(name) == value for name, value in wanted.items())), None)


def _best(run: list[Row], figure: str, **wanted: Any) -> Row | None:
    found = [row for row in run if all(row.get(name) == value for name, value in wanted.items())]
    return max(found, key=lambda row: row[figure], default=None)


def _times_peer(run: list[Row], side: str, wanted: float) -> tuple[str, bool] | None:
    ours, peer = (_cell(run, part="train", side=name, batch=256) for name in (side, "peer"))
    if ours is None or peer is None:
        return None
    ratio = ours["rows_per_second"] / peer["rows_per_second"]
    each = [a / b for a, b in zip(ours["repeats"], peer["repeats"], strict=False)]
    told = f"{ours['rows_per_second']:,.0f} / {peer['rows_per_second']:,.0f} = {ratio:.1f} (single repetitions {min(each):.1f} to {max(each):.1f})"
    return told, ratio >= wanted


def _joint_over_frozen(run: list[Row]) -> tuple[str, bool] | None:
    joint, frozen = (_cell(run, part="train", side=name, batch=256) for name in (JOINT, "frozen"))
    if joint is None or frozen is None:
        return None
    ratio = joint["ms_per_step"] / frozen["ms_per_step"]
    return f"{joint['ms_per_step']:.2f} / {frozen['ms_per_step']:.2f} ms = {ratio:.2f}", ratio <= 1.25


def _best_batches(run: list[Row]) -> tuple[str, bool] | None:
    ours, peer = (_best(run, "rows_per_second", part="train", side=name) for name in ("frozen", "peer"))
    if ours is None or peer is None:
        return None
    ratio = ours["rows_per_second"] / peer["rows_per_second"]
    return f"{ours['rows_per_second']:,.0f} ({ours['batch']}) / {peer['rows_per_second']:,.0f} ({peer['batch']}) = {ratio:.1f}", ratio >= 5


def _beams(run: list[Row], prefix: bool, wanted: float) -> tuple[str, bool] | None:
    ours = _best(run, "users_per_second", part="beams", side="ours", constrained=True)
    peer = _best(run, "users_per_second", part="beams", side="peer", constrained=prefix)
    if ours is None or peer is None:
        return None
    ratio = ours["users_per_second"] / peer["users_per_second"]
    told = f"{ours['users_per_second']:,.0f} ({ours['batch']}) / {peer['users_per_second']:,.0f} ({peer['batch']}) = {ratio:,.1f} users/s"
    return told, ratio >= wanted


def _evaluation(run: list[Row]) -> tuple[str, bool] | None:
    ours = _best(run, "users_per_second", part="beams", side="ours", constrained=True)
    return None if ours is None else (f"{ours['users']:,} users in {ours['seconds']:.2f} s (batch {ours['batch']})", ours["seconds"] < 1)


def _floor(run: list[Row], made: Row) -> float | None:
    """Seconds that the device needs at least: for the products in fp32, or for reading the vectors and writing the table."""
    limits = _cell(run, part="device")
    return None if limits is None else max(made["tflop"] / limits["fp32_tflops"], made["gigabytes"] / limits["gigabytes_per_second"])


def _id_table(run: list[Row]) -> tuple[str, bool] | None:
    made = _cell(run, part="table", items=10**6)
    floor = _floor(run, made) if made else None
    if made is None or floor is None:
        return None
    told = f"{made['seconds']:.3f} s, {made['seconds'] / floor:.1f} times the bound of {floor:.3f} s; hashing the ids, once for a catalogue: "
    return f"{told}{made['order_seconds']:.1f} s", made["seconds"] < 1 and made["seconds"] <= 3 * floor


def _quality() -> dict[tuple[str, str], list[Row]]:
    """Beauty's runs of generative models by (label, variant)."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows("quality", "data", "label", "variant", "seed"):
        if row["data"] == "beauty" and not row["variant"].startswith("sasrec"):
            found[row["label"], row["variant"]].append(row)
    return found


def _early_stop() -> tuple[str, bool] | None:
    runs = [row for each in _quality().values() for row in each if row["device"].startswith("NVIDIA")]
    ended = [row for row in runs if not row["alarm"] and row.get("at_once", 1) == 1]
    if not ended:
        return None
    slowest = max(ended, key=lambda row: row["seconds"])
    fastest = min(row["seconds"] for row in ended)
    return f"{len(ended)} runs of {fastest:.0f} to {slowest['seconds']:.0f} s (longest: {slowest['epochs_run']} epochs)", slowest["seconds"] < 360


def _cpu() -> tuple[str, bool] | None:
    sides = {row["side"]: row for row in last_run("cpu_train") if row["threads"] == 2}
    if not {"joint", "peer"} <= sides.keys():
        return None
    joint, peer = (sides[name]["rows_per_second"] for name in ("joint", "peer"))
    ours, theirs = (sides[name]["processor_seconds_per_1000_rows"] for name in ("joint", "peer"))
    load = f"load of the machine before: {sides['peer']['load_before']}"
    told = f"{joint:,.0f} / {peer:,.0f} = {joint / peer:.2f}; by processor time {theirs / ours:.2f} ({load})"
    return told, min(joint / peer, theirs / ours) >= 2


def _name(label: str, variant: str) -> str:
    return f"{variant}, {label}" if label else variant


def _best_quality() -> tuple[str, bool] | None:
    found = _quality()
    if not found:
        return None
    (label, variant), best = max(found.items(), key=lambda each: mean(row["ndcg@10"] for row in each[1]))
    recall, ndcg = (mean(row[name] for row in best) for name in ("recall@10", "ndcg@10"))
    return f"{recall:.4f} / {ndcg:.4f} ({_name(label, variant)}; {len(best)} seed{'s' * (len(best) > 1)})", recall > 0.0825 and ndcg > 0.0457


def _gain() -> tuple[str, bool] | None:
    """N@10 of a decay minus frozen, in the setting and for the decay where that is largest beside the seeds' spread; both with several seeds."""
    compared = []
    for (label, variant), joint in (found := _quality()).items():
        frozen = found.get((label, "frozen"), [])
        if variant in ("frozen", "detached", "none") or min(len(joint), len(frozen)) < 2:
            continue
        ours, theirs = ([row["ndcg@10"] for row in side] for side in (joint, frozen))
        gain, spread = mean(ours) - mean(theirs), max(stdev(ours), stdev(theirs))
        compared.append((gain - spread, f"{_name(label, variant)}: {mean(ours):.4f} - {mean(theirs):.4f} = {gain:+.4f}, spread {spread:.4f}"))
    if not compared:
        return None
    best, told = max(compared)
    return f"{told} (the largest of {len(compared)} comparisons)" if len(compared) > 1 else told, best > 0


def fast() -> str:
    """Everything that the newest run measured."""
    run = last_run("fast")
    if not run:
        return ""
    parts = [_training(run), _search(run)]
    return "\n".join(part for part in parts if part)


def _training(run: list[Row]) -> str:
    """One line a batch: rows/s of all sides."""
    cells = [row for row in run if row["part"] == "train"]
    body = []
    for batch in sorted({row["batch"] for row in cells if row["side"] == JOINT} - {1024}):
        rates = {side: found["rows_per_second"] for side in SIDES if (found := _cell(cells, side=side, batch=batch))}
        peer = rates.get("peer")
        told = {side: f"{rate:,.0f}" + (f" ({rate / peer:.1f})" if peer and side != "peer" else "") for side, rate in rates.items()}
        joint = _cell(cells, side=JOINT, batch=batch)
        memory = joint.get("peak_memory_gib") if joint else None  # a processor has no such figure
        cost = [f"{joint['ms_per_step']:.2f}" if joint else "", "" if memory is None else f"{memory:.1f}"]
        body.append([batch, *(told.get(side, "") for side in SIDES), *cost])
    header = ["batch", *SIDES.values(), "joint, ms a step", "joint, peak GiB"]
    title = (
        f"## Speed on one GPU: training, Beauty, 6+6 layers, history {run[0]['history']}\n\nRows/s, median of the repetitions (times the peer).\n\n"
    )
    return title + table(header, body) + made_by(cells) if body else ""


def _search(run: list[Row]) -> str:
    """The best batch of each way to search, in one sentence; then soft histories and the kernels' ranks."""
    found = []
    for side, fused, constrained, name in WAYS:
        best = _best(run, "users_per_second", part="beams", side=side, constrained=constrained, **({"fused": fused} if side == "ours" else {}))
        if best is not None:
            found.append(f"{name} {best['users_per_second']:,.0f}")
    told = [f"Users/s of a search with 20 beams, each at its best batch: {'; '.join(found)}."] if found else []
    told += [line for line in (_inputs(), _ranked()) if line]
    return " ".join(told) + "\n" if told else ""


def _inputs() -> str:
    """What soft histories cost a captured step."""
    found = rows("input_steps", "variant", "batch", "item_tokens")
    each = [f"{row['soft_ms']:.2f} to {row['hard_ms']:.2f} ms ({TOKENS[row['item_tokens']]})" for row in found]
    return f"A captured joint step with soft histories to one with look-ups, on one {found[0]['device']}: {', '.join(each)}." if found else ""


def _ranked() -> str:
    """The three ways to rank with one model: their speed, and how many users' ranks agree."""
    found = rows("input_ranks", "history_input", "item_tokens")
    if not found:
        return ""
    speed = [f"{min(row[f'{way}, users/s'] for row in found):,.0f} to {max(row[f'{way}, users/s'] for row in found):,.0f}" for way in RANKED]
    agree = [min(row[f"fused bf16 = {way}"] for row in found) for way in RANKED[1:]]
    return (
        f"Evaluation, gate and recommendations rank in the model's precision: over the kernels in bf16 {speed[0]} users/s, the module in bf16 "
        f"{speed[1]}, in fp32 {speed[2]} ({len(found)} kinds of input). The kernels' ranks are the module's for at least {agree[0]:.2%} of the users "
        f"in bf16, {agree[1]:.2%} against fp32."
    )


def scale() -> str:
    """Cost against items, history, batch and beams: the picture of the newest run."""
    run = last_run("scale")
    if not run:
        return ""
    items = [row for row in run if row["axis"] == "items"]
    few, many = ((row["items"], row["ms_per_step"]) for row in (items[0], items[-1]))
    told = f"A joint step takes {few[1]:.2f} ms with {few[0]:,} items and {many[1]:.2f} ms with {many[0]:,}.\n\n"
    return told + f"![Cost against items, history, batch and beams](results/{PLOT})\n"


def plot() -> None:
    """Draws the picture of the newest run of `scale`."""
    if run := last_run("scale"):
        _plot(run)


def _plot(run: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(8, 5.5))
    for panel, axis in zip(panels.flat, ("items", "history", "batch", "beams"), strict=True):
        found = [row for row in run if row["axis"] == axis]
        name, label = ("users_per_second", "users/s") if axis == "beams" else ("ms_per_step", "ms a joint step")
        values = [row["value"] for row in found]
        panel.plot(values, [row[name] for row in found], "o-", color="#1f5fa8")
        panel.set(xlabel=axis, ylabel=label, ylim=(0, 1.15 * max(row[name] for row in found)))
        if axis in ("items", "batch"):
            panel.set_xscale("log", base=10 if axis == "items" else 2)
            panel.set_xticks(values, [f"{value:,}" for value in values])
            panel.minorticks_off()
        memory = panel.twinx()
        memory.plot(values, [row["peak_memory_gib"] or 0 for row in found], "s--", color="#b05a1a")
        memory.set_ylabel("peak GiB", color="#b05a1a")
        memory.set_ylim(0, 1.15 * max(row["peak_memory_gib"] or 1 for row in found))
    figure.tight_layout()
    figure.savefig(tables.FOLDER / "results" / PLOT, dpi=90)
    pyplot.close(figure)
