"""`python -m benchmarks.gpu <command>`: see --help. Every figure is one line in <out>/<kind>.jsonl."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import Data, device, load, record
from benchmarks.gpu import peer, speed
from diger_core.id_table import IdTable, item_hash_order, refresh
from diger_core.presets import preset
from diger_core.tokenizer import Tokenizer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["peer", "train", "decode", "evaluate", "table", "scale", "quality", "sasrec", "retraining"])
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
        "--set", nargs="*", default=[], help="quality, sasrec: SECTION.KEY=value; training, recommender, joint, schedule, tokenizer, teacher, sasrec"
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
    return parser.parse_args()


def _quick(data: Data, config: object) -> tuple[Tokenizer, IdTable]:
    tok = speed.quick_tokenizer(data.name, speed.Holder(data), config)  # type: ignore[arg-type]
    with torch.no_grad():
        table, _ = refresh(tok, data.vectors_ND.to(device()), item_hash_order(data.item_ids), suffixes=256)
    return tok, table


def main() -> None:
    given = _arguments()
    data, chosen = load(given.data), preset(given.preset)
    if given.command == "quality":
        from benchmarks.gpu import quality

        quality.run(data, given)
        return
    if given.command == "sasrec":
        from benchmarks.gpu import quality, teacher

        teacher.run(data, given, quality.changed)
        return
    if given.command == "retraining":
        from benchmarks.gpu import retraining

        retraining.run(data, given)
        return
    recommender = replace(chosen.recommender, history=given.history)
    tok, table = _quick(data, chosen.tokenizer)
    common = {"data": data.name, "real_vectors": data.real_vectors}
    if given.command == "peer":
        token_NQ = peer.tokens(table.codes_NM, table.suffix_N, tok.codes)
        vocabulary = peer.SHIFT + tok.levels * tok.codes + 256
        for batch in given.batches:
            record(
                "peer_train",
                {**common, "history": given.history, **peer.train(data, recommender, token_NQ, vocabulary, batch, min(given.steps, 40))},
                given.out,
            )
    if given.command == "decode":
        token_NQ = peer.tokens(table.codes_NM, table.suffix_N, tok.codes)
        vocabulary = peer.SHIFT + tok.levels * tok.codes + 256
        for constrained, batch, batches in ((False, 512, 4), (False, 1024, 3), (True, 64, 2)):
            record("peer_decode", {**common, **peer.generate(data, recommender, token_NQ, vocabulary, batch, batches, 20, constrained)}, given.out)
    if given.command == "train":
        for variant in given.variants:
            for batch in given.batches:
                record("train", {**common, **speed.train(data, tok, chosen, variant, recommender, batch, not given.eager, given.steps)}, given.out)
    if given.command in ("decode", "evaluate"):
        for batch in given.batches:
            for constrained, fused in ((True, False), (False, False), (True, True)):
                figures = speed.evaluate(data, tok, table, recommender, 20, batch, constrained, fused)
                record("evaluate", {**common, "history": given.history, **figures}, given.out)
    if given.command == "scale":
        for items in (10**4, 10**5, 10**6):
            record("scale", {**common, **speed.scale(data, tok, chosen, recommender, items)}, given.out)
    if given.command == "table":
        for items in (10**4, 10**5, 10**6, 10**7):
            record("table", speed.table(items, tok), given.out)


if __name__ == "__main__":
    main()
