"""`diger serve` under load: requests/s, latencies and CPU time of the champion's lists, beside other ways to rank in the same service.

    python -m benchmarks.serve --store store [--clients 1 8 64] [--seconds 10]

The store has a champion (`diger demo` makes one). Each side is a service of its own process on two cores. Clients are closed loops on loopback, each
with one connection and random users, and share those cores. Sides beside the champion, with the same service and batching:

    generate    a Hugging Face T5 with the champion's layers and widths, random weights and the champion's IDs: `generate` with as many beams and the
                prefix function, so that every beam is a real item, as a plain service has it. It reads all tokens of an item. No counts are mixed in
    item_item   no model: the counted baseline of the champion's bundle

Appends one JSON line for each side and number of clients to <out>/serve.jsonl. `timeout_seconds` is a minute, so that no side is spared its queue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import record
from benchmarks.cpu import RESULTS

SIDES = ("champion", "generate", "item_item")
CORES = 2


def service(store: str, side: str) -> None:
    """Serves on a free port, which it prints, until it is ended."""
    from diger_core.store.artefacts import Store
    from orchestration.cli.serve import following
    from orchestration.params.load import load_params
    from orchestration.serving.http.server import serve

    params = load_params(None, ())
    follower = following(Store(store), params, None)
    if side != "champion":
        follower.look()
        assert follower.live is not None
        (by_counts if side == "item_item" else by_generate)(follower.live)
    serve(follower, replace(params.serve, poll_seconds=3600.0, timeout_seconds=60.0), "127.0.0.1", 0, (), lambda url: print(url, flush=True))


def by_counts(live: Any) -> None:
    """The live champion's lists become those of its exact item_item baseline: no beams, raw transitions alone."""
    ranker = live.ranker
    fitted = ranker.bundle.fitted
    ranker.bundle.__dict__["fitted"] = replace(fitted, lists=fitted.baselines["item_item"])

    def no_beams(histories: Any, rows_T: Any, wide: int, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(rows_T), wide), -1, dtype=np.int32), np.full((len(rows_T), wide), -np.inf, dtype=np.float32)

    ranker._beams = no_beams


def by_generate(live: Any) -> None:
    """The live champion's lists become what `generate` of a T5 of its size finds: the beams alone, best first."""
    from benchmarks.gpu import peer
    from diger_core.evaluation.recipes import Recipe
    from orchestration.serving.ranker import projected

    ranker, model = live.ranker, live.ranker.model
    table, net = model.table, model.recommender
    token_NQ = peer.tokens(table.codes_NM, table.suffix_N, net.codes)
    vocabulary = peer.SHIFT + net.levels * net.codes + net.suffixes
    generated = peer.Generated(net.config, token_NQ, vocabulary, live.config.beams, live.config.k, bf16=False)
    ranker.bundle.__dict__["fitted"] = replace(ranker.bundle.fitted, lists=Recipe({"generative": 1.0}))

    def beams(histories: Any, rows_T: Any, wide: int, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        items_TW, scores_TW = np.full((len(rows_T), wide), -1, dtype=np.int32), np.full((len(rows_T), wide), -np.inf, dtype=np.float32)
        own, before_E1 = projected(histories, ranker.own_N, len(ranker.listed_C))
        end_T = before_E1[histories.offsets_U1[rows_T + 1]]
        can_T = end_T > own.offsets_U1[rows_T]
        if can_T.any():
            items_tk, scores_TW[can_T, : live.config.k] = generated(own, own.offsets_U1[rows_T[can_T]], end_T[can_T])
            items_TW[can_T, : live.config.k] = np.where(items_tk >= 0, ranker.listed_C[items_tk], -1)
        return items_TW, scores_TW

    ranker._beams = beams


async def client(port: int, users: list[Any], until: float, taken: list[float]) -> int:
    """Asks one list after the other; returns how many answers were not 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    refused = 0
    while time.perf_counter() < until:
        body = json.dumps({"user": random.choice(users)}).encode()
        head = f"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        taken.append(time.perf_counter() - started)
        refused += b" 200 " not in answer.partition(b"\r\n")[0]
    writer.close()
    return refused


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: what a request costs, however busy the machine is."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def loaded(port: int, users: list[Any], clients: int, seconds: float, pid: int) -> dict[str, Any]:
    """One load, after a second of warm-up; `pid`: the service."""
    for length, warm in ((1.0, True), (seconds, False)):
        taken: list[float] = []
        begun, spent = time.perf_counter(), cpu_seconds(pid)
        refused = sum(await asyncio.gather(*(client(port, users, begun + length, taken) for _ in range(clients))))
        if not warm:
            rate = len(taken) / (time.perf_counter() - begun)
            p50, p99 = np.percentile(taken, (50, 99)) * 1000
            cpu = 1000 * (cpu_seconds(pid) - spent) / len(taken)
    figures = {"requests_per_second": rate, "p50_ms": p50, "p99_ms": p99, "cpu_ms": cpu}
    return {"clients": clients, **{name: round(value, 2) for name, value in figures.items()}, "refused": refused}


def known_users(store: str) -> tuple[list[Any], int]:
    """(user ids of the champion's data, items of its catalogue)."""
    from diger_core.store.artefacts import Store
    from orchestration.champion.log import current
    from orchestration.serving.online.live import Sources

    opened = Store(store)
    entry = current(opened)
    assert entry is not None, f"{store}: no champion: run diger demo first"
    sequences = opened.artefact("sequences", Sources.own(opened, entry.bundle).sequences)
    return sequences.table("users.parquet")["user_id"].to_pylist(), sequences.table("items.parquet").num_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="store")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        service(given.store, given.serve)
        return
    users, items = known_users(given.store)
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    for side in SIDES:
        command = [sys.executable, "-m", "benchmarks.serve", "--store", given.store, "--serve", side]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            assert child.stdout is not None
            port = int(child.stdout.readline().rsplit(":", 1)[1])
            try:
                for clients in given.clients:
                    load = os.getloadavg()[0]
                    found = asyncio.run(loaded(port, users, clients, given.seconds, child.pid))
                    record("serve", {"side": side, **found, "items": items, "users": len(users), "load_before": round(load, 1)}, given.out)
            finally:
                child.terminate()


if __name__ == "__main__":
    main()
