"""Stage `evaluation`: full ranking of the test events by both models and the baselines, item-level (docs/method.md, sections 6 and 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diger_core.errors import DigerError
from orchestration.verdict.leave_one_out import FILE as LEAVE_ONE_OUT
from orchestration.verdict.leave_one_out import leave_one_out

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.config import EvaluationConfig
    from diger_core.data.sequences import Sequences
    from diger_core.data.splits import Split
    from diger_core.evaluation.counts import Counts
    from diger_core.evaluation.metrics import Metrics, Period
    from diger_core.evaluation.ranking import EvaluationResult
    from diger_core.evaluation.recipes import Beams, Recipe
    from diger_core.ids.id_table import IdTable
    from diger_core.progress import Progress
    from diger_core.store.artefact import Artefact
    from orchestration.engine.stage_run import StageRun

SAMPLE = 50  # users whose recommendations are kept: drawn by a fixed seed, as the gate draws its own (gate/ranked.py: the first of them are these)
SAMPLED = ("lists", "joint_model", "frozen_model")
HISTORY = 50  # of their events that are kept with them
BLOCK = 1 << 19  # users ranked at once: their lists by some ten models take 0.4 GB


def evaluation(run: StageRun) -> None:
    """metrics.json, per_user.parquet (a rank for each user and model) and recommendations.parquet (a fixed sample of users).

    Users are ranked in blocks, of which the ranks alone are kept. Beside a temporal split also leave_one_out.json: counting alone, by the published
    protocol.
    """
    from diger_core.data.sequences import Sequences
    from diger_core.data.splits import targets
    from diger_core.evaluation import ranking as core

    config = run.params.evaluation
    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    if not len(targets(seq, "test")[0]):
        raise DigerError("evaluation: no user has the 3 events that a test target needs: give a snapshot with longer histories")
    results, sample, period = _ranked(run, seq)
    metrics = core.evaluation(results, seq, config)
    if period is not None:
        metrics["period"] = period
    run.out.json("metrics.json", metrics)
    published = None if seq.boundaries is None else leave_one_out(run, seq)
    if published is not None:
        run.out.json(LEAVE_ONE_OUT, published)
    run.out.json("summary.json", _summary(metrics))
    run.out.table("per_user.parquet", _per_user(results), sort_by=("user_index",))
    run.out.table("recommendations.parquet", _recommendations(sample, seq), sort_by=("user_index",))
    run.facts(**_facts(metrics))


def _ranked(run: StageRun, seq: Sequences) -> tuple[dict[str, EvaluationResult], dict[str, EvaluationResult], Period | None]:
    """Every model's ranks of all test users, without their lists; the sampled users', with their lists; every event of the test period."""
    from diger_core.data.splits import targets, up_to_test
    from diger_core.evaluation.period import WholePeriod
    from diger_core.evaluation.ranking import baseline_results, joined

    frozen, config, users = run.inputs.get("frozen_model"), run.params.evaluation, len(targets(seq, "test")[0])
    controlled = frozen is not None and "model.safetensors" in frozen.names
    if not controlled:
        run.progress.message("evaluation: no frozen_model, so nothing can be said about what joint training gains (frozen_model.enabled)")
    counted, simple = _recipes(run, seq), baseline_results(up_to_test(seq), "test", config)
    period = None if seq.boundaries is None else WholePeriod(seq, config)
    sampled = np.sort(np.random.Generator(np.random.Philox(key=0)).permutation(users)[:SAMPLE])
    blocks: list[dict[str, EvaluationResult]] = []
    samples: list[dict[str, EvaluationResult]] = []
    for start in range(0, users, BLOCK):
        rows = slice(start, min(start + BLOCK, users))
        beams = beams_of(run, "joint_model", seq, "test", rows)
        control = beams_of(run, "frozen_model", seq, "test", rows) if controlled else None
        found = _block(seq, rows, config, counted, beams, control) | {name: result.at(rows) for name, result in simple.items()}
        if period is not None:
            period.add(found)
        own = sampled[(sampled >= rows.start) & (sampled < rows.stop)] - rows.start
        samples.append({name: result.at(own) for name, result in found.items()})
        blocks.append({name: result.without_lists() for name, result in found.items()})
    return joined(blocks), joined(samples), None if period is None else period.document()


def beams_of(run: StageRun, model: str, seq: Sequences, split: Split, rows: slice = slice(None)) -> Beams:
    """(items, log-probabilities) [T, beams] of a model for the rows of the split, read with the model's own ID table."""
    artefact = run.inputs[model]
    holder, file = (run.inputs["semantic_ids"], "semantic_ids.parquet") if model == "joint_model" else (artefact, "id_table.parquet")
    return model_beams(artefact, holder, file, run.inputs["sequences"], seq, split, run.params.evaluation, run.progress, rows)


def model_beams(
    artefact: Artefact,
    holder: Artefact,
    file: str,
    sequences: Artefact,
    seq: Sequences,
    split: Split,
    config: EvaluationConfig,
    progress: Progress,
    rows: slice = slice(None),
) -> Beams:
    """As `beams_of`, of any model's artefact; its ID table is `file` of `holder`."""
    import torch

    from diger_core.data.splits import targets
    from diger_core.evaluation.ranking import recommended
    from orchestration.champion.model_artefact import load_model

    table = checked_table(holder, file, artefact, sequences.table("items.parquet")["item_id"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_model(artefact)
    recommender = loaded.recommender.to(device)
    users_T, end_T, _ = targets(seq, split)
    return recommended(
        recommender, table.codes_NM, table.suffix_N, seq, users_T[rows], end_T[rows], config.beams, beams=config.beams,
        constrained=config.constrained, remove_seen=config.remove_seen, batch_size=config.batch_size, device=device, progress=progress,
        what=f"ranking ({split})", precision=loaded.precision, tokens_NTd=loaded.history_tokens(),
    )  # fmt: skip


def _recipes(run: StageRun, seq: Sequences) -> dict[str, tuple[Recipe, Counts]]:
    """The released lists and the counting baselines, all counted up to the test, as they would be on the day that they serve; beside them
    the lists and the best baseline counted in training events alone."""
    from diger_core.evaluation.recipes import Fitted
    from orchestration.champion.bundle import FUSION
    from orchestration.features.neighbours import counts_to_the_test, read_counts

    fitted = Fitted.from_document(run.inputs["fusion"].json(FUSION))
    rows = {"lists": (fitted.lists, counts_to_the_test(run.inputs["neighbours"], seq))}
    rows |= {name: (recipe, rows["lists"][1]) for name, recipe in fitted.baselines.items() if name != "most_popular"}
    earlier = read_counts(run.inputs["neighbours"], seq)
    return rows | {"lists_earlier": (fitted.lists, earlier), "baseline_earlier": (fitted.baselines[fitted.best], earlier)}


def _block(
    seq: Sequences, rows: slice, config: EvaluationConfig, counted: dict[str, tuple[Recipe, Counts]], beams: Beams, control: Beams | None
) -> dict[str, EvaluationResult]:
    """Of some of the test users: the released lists, the models alone, what is counted, and the lists with the frozen control for the joint model."""
    from diger_core.data.splits import targets
    from diger_core.evaluation.metrics import ranks
    from diger_core.evaluation.ranking import EvaluationResult, cut_off
    from diger_core.evaluation.recipes import ranked

    users_T, end_T, target_T = targets(seq, "test")
    users_T, end_T, target_T, k = users_T[rows], end_T[rows], target_T[rows], cut_off(config)

    def listed(recipe: Recipe, counts: Counts, read: Beams) -> EvaluationResult:
        items_Tk, _ = ranked(recipe, counts, seq, users_T, end_T, k, read, remove_seen=config.remove_seen)
        return EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk)

    def alone(read: Beams) -> EvaluationResult:
        items_Tk = read[0][:, :k]
        wrong = int(((items_Tk == -1) & np.isfinite(read[1][:, :k])).sum())
        return EvaluationResult(users_T, target_T, ranks(items_Tk, target_T), items_Tk, wrong / max(1, items_Tk.size))

    found = {"lists": listed(*counted["lists"], beams), "joint_model": alone(beams)}
    if control is not None:
        found["frozen_model"] = alone(control)
    found |= {name: listed(*each, beams) for name, each in counted.items() if name != "lists"}
    return found if control is None else {**found, "lists_frozen": listed(*counted["lists"], control)}


def checked_table(holder: Artefact, file: str, model: Artefact, item_ids: pa.ChunkedArray) -> IdTable:
    """The ID table in the order of `item_ids`. DigerError unless it covers them and has the assignment hash in the model file's header."""
    import torch

    from diger_core.ids.id_table import IdTable, assignment_hash, from_arrow
    from diger_core.item_ids import require_all
    from orchestration.champion.model_artefact import ASSIGNMENT

    stored = holder.table(file)
    ids, table = from_arrow(stored)
    wanted, found = model.tensors_metadata("model.safetensors").get(ASSIGNMENT), assignment_hash(ids, table)
    if wanted != found:
        raise DigerError(
            f"{holder.stage}/{file}: its assignment {found[:12]} is not the one that {model.stage} was trained to ({str(wanted)[:12]}): "
            f"a model only reads its own IDs; run {holder.stage} again from this {model.stage}"
        )
    name, remedy = f"{holder.stage}/{file}", "run the stages again"
    row_N = torch.from_numpy(require_all(item_ids, ids, what="the catalogue", table=name, remedy=remedy))
    if len(ids) != len(item_ids):
        raise DigerError(f"{name}: {len(ids)} items, the catalogue has {len(item_ids)}: {remedy}")
    return IdTable(table.codes_NM[row_N], table.suffix_N[row_N])


def _per_user(results: dict[str, EvaluationResult]) -> pa.Table:
    import pyarrow as pa

    users_T = next(iter(results.values())).users_T
    return pa.table({"user_index": users_T.astype(np.int32), **{name: result.rank_T.astype(np.int32) for name, result in results.items()}})


def _recommendations(sample: dict[str, EvaluationResult], seq: Sequences) -> pa.Table:
    """history, target and each model's list, as item indices, of users drawn before their results are known."""
    import pyarrow as pa

    from diger_core.data.splits import targets

    first = next(iter(sample.values()))
    users_T, end_T, _ = targets(seq, "test")
    ends = end_T[np.searchsorted(users_T, first.users_T)]
    starts = np.maximum(seq.offsets_U1[first.users_T], ends - HISTORY)
    lists = pa.list_(pa.int32())
    columns = {
        "user_index": pa.array(first.users_T.astype(np.int32)),
        "history": pa.array([seq.events_E[a:b] for a, b in zip(starts, ends, strict=True)], lists),
        "earlier": pa.array((starts - seq.offsets_U1[first.users_T]).astype(np.int32)),
        "target": pa.array(first.target_T.astype(np.int32)),
    }
    for name in SAMPLED:
        if name in sample:
            columns[name] = pa.array([items[items >= 0] for items in sample[name].items_Tk], lists)
    return pa.table(columns)


def _summary(metrics: Metrics) -> dict[str, dict[str, float]]:
    """What `dvc metrics show` lays out in one line: each model's Recall@10 and NDCG@10, or all of its metrics where neither is computed."""
    wanted = ("recall@10", "ndcg@10")
    return {
        name: {metric: values[metric] for metric in wanted if metric in values} or {m: v for m, v in values.items() if isinstance(v, float)}
        for name, values in metrics["models"].items()
    }


def _facts(metrics: Metrics) -> dict[str, float | int]:
    """Flat numbers: joint_model_recall_10, …, and the paired difference from the control with its interval."""
    facts: dict[str, float | int] = {"users": metrics["users"]}
    for name, values in metrics["models"].items():
        facts |= {f"{name}_{metric.replace('@', '_')}": value for metric, value in values.items() if isinstance(value, float)}
    for metric, found in metrics["differences"].get("joint_model - frozen_model", {}).items():
        gain = f"gain_{metric.replace('@', '_')}"
        facts |= {f"{gain}_mean": found["mean"], f"{gain}_low": found["low"], f"{gain}_high": found["high"]}
    return facts
