"""`python -m benchmarks.gpu <command>`: see --help. Every figure is one line in <out>/<kind>.jsonl."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import Data, device, load, record
from benchmarks.gpu import catalogue, fast, inputs, ranks, scale, service, speed
from diger_core.ids.id_table import IdTable, item_hash_order, refresh
from diger_core.presets import preset
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.table_refresh import suffix_values


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "command", choices=["fast", "scale", "train", "inputs", "ranks", "quality", "sasrec", "ensemble", "retraining", "service", "catalogue"]
    )
    parser.add_argument("--data", type=Path, default=Path(".device-inputs/beauty"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--preset", default="beauty")
    parser.add_argument("--history", type=int, default=20, help="items; the presets' own number is 50")
    parser.add_argument("--batches", type=int, nargs="+", default=[256])
    parser.add_argument("--variants", nargs="+", default=["frozen", "frqud"])
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=540.0, help="quality: the whole command's time")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        help="SECTION.KEY=value; training, recommender, joint, schedule, tokenizer, teacher, sasrec",
    )
    parser.add_argument("--label", default="", help="quality: names a changed setting")
    parser.add_argument("--cuts", type=int, nargs="+", default=[0, 1, 2, 3], help="retraining: of 0 (70%% of the events by date) to 3 (all)")
    parser.add_argument("--methods", nargs="+", default=["scratch", "cold", "anchored", "pinned", "free"], help="retraining; or anchored:COST")
    parser.add_argument("--joint", default="frqud", help="retraining: the variant that is trained")
    parser.add_argument("--anchor", type=float, default=1.0, help="retraining: what a move must gain")
    parser.add_argument("--warm-epochs", type=int, default=30)
    parser.add_argument("--warm-rate", type=float, default=None, help="retraining: the learning rate of warm runs [the preset's]")
    parser.add_argument("--state", type=Path, default=Path(".device-inputs/retraining"), help="retraining: where its runs are kept between commands")
    parser.add_argument("--eager", action="store_true", help="train: the reference step")
    parser.add_argument("--parts", nargs="+", choices=fast.PARTS, default=list(fast.PARTS), help="fast: a table is of one run with all of them")
    parser.add_argument("--quick", action="store_true", help="fast, scale, service: toy sizes, to try the code out; the figures mean nothing")
    return parser.parse_args()


def _quick(data: Data, config: object) -> tuple[Tokenizer, IdTable]:
    tok = speed.quick_tokenizer(data.name, speed.Holder(data), config)  # type: ignore[arg-type]
    with torch.no_grad():
        table, _ = refresh(tok, data.vectors_ND.to(device()), item_hash_order(data.item_ids), suffixes=suffix_values(tok))
    return tok, table


def main() -> None:
    given = _arguments()
    if given.command == "ranks":
        if ranks.RANK not in os.environ:
            sys.exit(ranks.launch())
        ranks.joined()
    data, chosen = load(given.data), preset(given.preset)
    if given.command == "quality":
        from benchmarks.gpu import quality

        quality.run(data, given)
        return
    if given.command in ("sasrec", "ensemble"):
        from benchmarks.gpu import quality, teacher

        (teacher.run if given.command == "sasrec" else teacher.ensemble)(data, given, quality.changed)
        return
    if given.command == "retraining":
        from benchmarks.gpu import retraining

        retraining.run(data, given)
        return
    # the paper's way to read histories, also under the small preset: what the other side of each table does
    recommender = replace(chosen.recommender, history=given.history, history_input="hard", item_tokens="all")
    tok, table = _quick(data, chosen.tokenizer)
    if given.command == "ranks":
        ranks.run(data, tok, chosen, recommender, given)
    if given.command == "inputs":
        inputs.run(data, tok, chosen, recommender, given)
    if given.command == "train":
        common = {"data": data.name, "real_vectors": data.real_vectors}
        for variant in given.variants:
            for batch in given.batches:
                record("train", {**common, **speed.train(data, tok, chosen, variant, recommender, batch, not given.eager, given.steps)}, given.out)
    if given.command == "fast":
        timed = fast.Fast(data, tok, table, chosen, recommender, fast.QUICK if given.quick else fast.FULL, given.out)
        timed(given.parts)
        timed.close()
    if given.command == "catalogue":
        catalogue.run(data, given.data, tok, table, recommender, catalogue.QUICK if given.quick else catalogue.FULL, given.out)
    if given.command == "service":
        service.run(data, tok, table, recommender, service.QUICK if given.quick else service.FULL, given.out)
    if given.command == "scale":
        scaled = scale.Scale(data, tok, chosen, recommender, scale.QUICK if given.quick else scale.FULL, given.out)
        scaled()
        scaled.close()


if __name__ == "__main__":
    main()
