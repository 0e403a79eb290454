"""Lists, models and baselines on one data set: what each piece adds, over seeds, by the project's own evaluation protocol.

    python -m benchmarks.prepare_lists ../shared/data/amazon_beauty .device-inputs/beauty-temporal
    python -m benchmarks.lists --data .device-inputs/beauty-temporal --runs "frozen" "joint: teacher.share=0.5" --seeds 0 1 2

A run is "NAME: SECTION.KEY=value ..." with the sections recommender, training, teacher, joint, schedule, tokenizer; a name that begins with joint
trains the tokenizer, too; "counts" trains nothing and mixes what is counted alone. One line a run and seed goes to <out>/lists.jsonl: test figures
of the released lists, of the model alone and of every baseline, their paired differences with intervals, and the slices; "period": the same lists
against every event of the test period, of which there are more; "to_the_test": counted up to the test period. The ranks of the targets go to
<out>/ranks (benchmarks.list_pairs compares runs by them). A run and seed that is there already is left out, so that an interrupted table continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file
from safetensors.torch import load_file

from benchmarks.common import Data, device, load, record
from benchmarks.list_settings import Settings
from diger_core.config import (
    ModelConfig,
    NeighboursConfig,
    TableConfig,
    TokenizerConfig,
)
from diger_core.data import splits
from diger_core.data.item_factors import item_factors
from diger_core.data.neighbours import ItemTable, transitions
from diger_core.data.splits import Split
from diger_core.data.teacher import SyntheticHistories, TeacherTables, synthetic_rows, taught
from diger_core.evaluation.counts import Counts
from diger_core.evaluation.fusion import candidates
from diger_core.evaluation.metrics import ndcg, paired_bootstrap, ranks, recall
from diger_core.evaluation.period import clustered
from diger_core.evaluation.ranking import recommended
from diger_core.evaluation.recipes import Beams, Recipe, fit, place_new_items, ranked
from diger_core.recommender.history_input import table_tokens
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.tokenizer.warm_up import tokenizer
from diger_core.training.inputs import TrainingInputs
from diger_core.training.loop import Trained, train

BEAMS = 50
RANKS = "ranks"  # folder of the targets' ranks, from which benchmarks.list_pairs compares models over seeds
PERIOD = ", all events"  # ends the name of a model's ranks of every event of the test period
ROWS = "rows" + PERIOD  # and of the test user, by place, whose event each is
COUNTS = "counts"  # the run without a model
TOLD = "trained"  # how, in the metadata of kept beams
PLACED = "model, new items placed"  # the model alone, its new items times the factor that validation chooses, by the lists' own rule
EVE = ", to the test"  # ends all that was counted up to the test period


@dataclass(frozen=True)
class Shop:
    """The data set, its tables, and what is counted up to each moment."""

    data: Data
    transitions: ItemTable
    text: ItemTable
    remove_seen: bool = False

    @classmethod
    def of(cls, folder: Path, remove_seen: bool = False) -> Shop:
        data, text = load(folder), ItemTable.from_tensors(load_file(folder / "text.safetensors"), "text")
        return cls(data, transitions(data.sequences, NeighboursConfig()), text, remove_seen)

    @property
    def counts(self) -> Counts:
        return Counts.of(self.data.sequences, self.transitions, self.text)

    def eve(self) -> Counts:
        seq = splits.up_to_test(self.data.sequences)
        return Counts.of(seq, transitions(seq, NeighboursConfig()), self.text)


def _warmed(shop: Shop, config: TokenizerConfig) -> tuple[Tokenizer, torch.Tensor]:
    """The tokenizer after its warm-up and its inputs [N, D]: text vectors, then factors, each of length 1."""
    text_ND = torch.nn.functional.normalize(shop.data.vectors_ND, dim=1)
    factors_NF = torch.from_numpy(item_factors(shop.data.sequences, config.item_factors, config.seed))
    weight_D = torch.cat([torch.ones(text_ND.shape[1]), torch.full((config.item_factors,), config.item_factors_weight)])
    vectors_ND = torch.cat([text_ND, factors_NF], 1)
    return tokenizer(vectors_ND.to(device()), config, device=device(), weight_D=weight_D)[0], vectors_ND


def trained(shop: Shop, settings: Settings, start: Tokenizer, vectors_ND: torch.Tensor) -> Trained:
    seq, teacher = shop.data.sequences, settings.training.teacher
    tables = TeacherTables(shop.transitions, shop.text, NeighboursConfig())
    rows = synthetic_rows(len(splits.training_rows(seq)[0]), teacher)
    inputs = TrainingInputs(
        vectors_ND,
        seq,
        shop.data.item_ids,
        start,
        distillation=taught(seq, tables, teacher) if teacher.share else None,
        synthetic=SyntheticHistories(tables, teacher, rows) if rows else None,
    )
    return train(inputs, ModelConfig(settings.recommender, settings.training, settings.joint, TableConfig()))


def refitted(shop: Shop, settings: Settings, model: Trained, vectors_ND: torch.Tensor, epochs: int, share: float) -> Trained:
    """The model trained on over all events before the test period, on its own table, at `share` of the learning rate."""
    training = replace(settings.training, epochs=epochs, learning_rate=settings.training.learning_rate * share, last_stage_epochs=0)
    inputs = TrainingInputs(
        vectors_ND,
        splits.up_to_test(shop.data.sequences),
        shop.data.item_ids,
        model.tokenizer,
        table=model.table,
        start=model.recommender.state_dict(),
    )
    return train(inputs, ModelConfig(settings.recommender, training, replace(settings.joint, tokenizer="frozen"), TableConfig()))


def beams(shop: Shop, model: Trained, split: Split) -> Beams:
    users_T, end_T, _ = splits.targets(shop.data.sequences, split)
    tokens = table_tokens(model.recommender, model.table, model.tokenizer, model.z_Ne)
    return recommended(
        model.recommender, model.table.codes_NM, model.table.suffix_N, shop.data.sequences, users_T, end_T, BEAMS, beams=BEAMS, device=device(),
        precision="bf16", tokens_NTd=tokens,
    )  # fmt: skip


Ranks = dict[str, np.ndarray]


def alone(shop: Shop, found: Beams | None) -> dict[str, Recipe]:
    """The model alone, and with its new items placed. found: beams of the validation targets."""
    if found is None:
        return {}
    model = Recipe({"generative": 1.0}, raw=True)
    users_T, end_T, target_T = splits.targets(shop.data.sequences, "validation")
    named = candidates(shop.counts, shop.data.sequences, users_T, end_T, found, remove_seen=shop.remove_seen, raw=True, parts=("generative",))
    return {"model": model, PLACED: place_new_items(model, named, shop.counts.new_N, target_T)[0]}


def figures(
    shop: Shop, recipes: dict[str, Recipe], baselines: Collection[str], found: Beams | None, refit: Beams | None
) -> tuple[dict[str, Any], Ranks]:
    """Test figures by model, differences of the lists and of the model from the baselines, and new items; and the ranks of the targets.

    "test": lists and baselines counted in training events alone, as the model is trained; "to_the_test": counted up to the test period, as they would
    serve. refit: beams of the refitted model, which then make the latter lists.
    """
    told, rank = _judged(shop, recipes, baselines, shop.counts, found)
    told["to_the_test"], eve_rank = _judged(shop, recipes, baselines, shop.eve(), found if refit is None else refit)
    return told, rank | {name + EVE: ranks_T for name, ranks_T in eve_rank.items()}


def _judged(shop: Shop, recipes: dict[str, Recipe], baselines: Collection[str], counts: Counts, found: Beams | None) -> tuple[dict[str, Any], Ranks]:
    seq = shop.data.sequences
    users_T, end_T, target_T = splits.targets(seq, "test")
    items = {name: ranked(recipe, counts, seq, users_T, end_T, 20, found, remove_seen=shop.remove_seen)[0] for name, recipe in recipes.items()}
    rank = {name: ranks(items_Tk, target_T) for name, items_Tk in items.items()}
    best = max(baselines, key=lambda name: ndcg(rank[name], 10).mean())
    rows = {name: [round(float(recall(r, 10).mean()), 5), round(float(ndcg(r, 10).mean()), 5)] for name, r in rank.items()}
    told: dict[str, Any] = {"test_users": len(users_T), "test": rows, "best_baseline": best}
    told["lists - best"] = _difference(rank["lists"], rank[best])
    told |= {f"{name} - item_item_text": _difference(rank[name], rank["item_item_text"]) for name in ("model", PLACED) if name in rank}
    new_T = counts.new_N[target_T]
    told["new_items"] = {"users": int(new_T.sum()), **{name: round(float(ndcg(r, 10)[new_T].mean()), 5) for name, r in rank.items()}}
    for name in ("lists", PLACED) if new_T.any() else ():
        if name in rank:
            told["new_items"][f"{name} - text"] = _difference(rank[name][new_T], rank["text"][new_T])
    if seq.boundaries is not None:
        period = _period(shop, items, users_T)
        gain = {name: ndcg(period[name + PERIOD], 10) for name in items}
        told["period"] = {name: round(float(values.mean()), 5) for name, values in gain.items()} | {"events": len(period[ROWS])}
        told["period"]["lists - best"] = _clustered(gain["lists"] - gain[best], period[ROWS])
        rank |= period
    return told, rank


def _period(shop: Shop, items: Ranks, users_T: np.ndarray) -> Ranks:
    """Ranks [E] of every event of the test period in the lists that were made on the eve of it, by model; and the row of each event's user."""
    users_E, _, target_E = splits.targets(shop.data.sequences, "test_all")
    row_E = np.searchsorted(users_T, users_E)
    return {name + PERIOD: ranks(items_Tk[row_E], target_E) for name, items_Tk in items.items()} | {ROWS: row_E}


def _clustered(gain_E: np.ndarray, row_E: np.ndarray) -> list[float]:
    found = clustered(gain_E, row_E)
    return [round(found[end], 5) for end in ("mean", "low", "high")]  # type: ignore[literal-required]


def _difference(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [round(value, 5) for value in paired_bootstrap(ndcg(a, 10), ndcg(b, 10), 1000, 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=["frozen", "joint"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], help="changes of every run")
    parser.add_argument("--refit", type=float, nargs=2, default=(0, 0.1), help="epochs of a refit up to the test period, and its share of the rate")
    parser.add_argument("--keep", action="store_true", help="keep the beams of validation, test and refit in <out>")
    parser.add_argument("--train-only", action="store_true", help="keep the beams, judge nothing: --kept does it where time costs less")
    parser.add_argument("--remove-seen", action="store_true", help="judge lists without what a user had before")
    parser.add_argument("--kept", type=Path, help="judge the beams that --keep wrote into this folder; nothing is trained")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seconds", type=float, default=540.0, help="no run begins after so long")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shop, begun = Shop.of(given.data, given.remove_seen), time.perf_counter()
    if given.kept is not None:
        for path in sorted(given.kept.glob(f"{shop.data.name}-*.safetensors")):
            run, _, seed = path.stem.removeprefix(f"{shop.data.name}-").rpartition("-")
            judge(shop, run, int(seed), {"changes": given.set, **_told(path)}, _kept(path), given.out)
        return
    there = {(row["data"], row["run"], row["seed"]) for row in _rows(given.out / "lists.jsonl")}
    warmed: dict[Any, tuple[Tokenizer, torch.Tensor]] = {}
    for seed in given.seeds:
        for run in given.runs:
            name, _, changes = run.partition(":")
            if (shop.data.name, run, seed) in there or time.perf_counter() - begun > given.seconds:
                continue
            if name == COUNTS:
                judge(shop, run, seed, {"changes": given.set}, {}, given.out)
                continue
            kept_in = given.out / f"{shop.data.name}-{name}-{seed}.safetensors"
            if given.train_only and kept_in.exists():
                continue
            settings = Settings.of(name.startswith("joint"), seed, [*given.set, *changes.split()])
            if settings.tokenizer not in warmed:
                warmed[settings.tokenizer] = _warmed(shop, settings.tokenizer)
            started = time.perf_counter()
            model = trained(shop, settings, *warmed[settings.tokenizer])
            seconds = time.perf_counter() - started
            kept = {split: beams(shop, model, split) for split in ("validation", "test")}
            if given.refit[0]:
                kept["refit"] = beams(
                    shop, refitted(shop, settings, model, warmed[settings.tokenizer][1], int(given.refit[0]), given.refit[1]), "test"
                )
            told = {"alarm": model.alarm, "best_epoch": model.best_epoch, "validation_model": round(model.best_ndcg, 5), "seconds": round(seconds, 1)}
            if given.keep or given.train_only:
                kept_as = {f"{split}.{part}": each[at] for split, each in kept.items() for at, part in enumerate(("items", "scores"))}
                trained_as = {"changes": [*given.set, *changes.split()], **told}
                save_file(kept_as, kept_in, {TOLD: json.dumps(trained_as)})
            if not given.train_only:
                judge(shop, run, seed, {"changes": given.set, **told}, kept, given.out)


def judge(shop: Shop, run: str, seed: int, told: dict[str, Any], kept: dict[str, Beams], out: Path) -> None:
    """Chooses the recipes on validation, and records what they give on the test."""
    fitted = fit(shop.counts, shop.data.sequences, kept.get("validation"), remove_seen=shop.remove_seen)
    models = alone(shop, kept.get("validation"))
    recipes = {**models, "lists": fitted.lists, **fitted.baselines}
    found, rank = figures(shop, recipes, fitted.baselines, kept.get("test"), kept.get("refit"))
    (out / RANKS).mkdir(parents=True, exist_ok=True)
    name = run.partition(":")[0]
    save_file({key: ranks_T.astype(np.int32) for key, ranks_T in rank.items()}, out / RANKS / f"{shop.data.name}--{name}--{seed}.safetensors")
    lists = fitted.lists
    found["remove_seen"] = shop.remove_seen
    weights = {part: round(weight, 3) for part, weight in lists.weights.items()}
    found |= {"weights": weights, "raw": lists.raw, "trend": [lists.trend.share, lists.trend.power], "fallback": fitted.fallback}
    found |= {"new_items_factor": lists.new_items, "new_items_validation": asdict(fitted.new_items)}
    found |= {f"{PLACED}, factor": models[PLACED].new_items} if models else {}
    record("lists", {"data": shop.data.name, "run": run, "seed": seed, **told, **found, "validation": round(lists.ndcg, 5)}, out)


def _kept(path: Path) -> dict[str, Beams]:
    tensors = load_numpy(path)
    return {
        split: (tensors[f"{split}.items"], tensors[f"{split}.scores"]) for split in ("validation", "test", "refit") if f"{split}.items" in tensors
    }


def _told(path: Path) -> dict[str, Any]:
    """How the kept model was trained, where its file says so."""
    with safe_open(path, "numpy") as file:
        told: dict[str, Any] = json.loads((file.metadata() or {}).get(TOLD, "{}"))
    return told


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
