"""Dynamic batching: requests gather while the model answers the batch before, and the next pass answers them together.

Nobody waits for a batch to fill: an idle server answers one request at once, a busy one answers up to `max_batch` in a pass. One champion, taken at
the beginning, answers a whole batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from diger_core.errors import DigerError
from orchestration.params.serve import ServeConfig
from orchestration.serving.online.live import LiveChampion
from orchestration.serving.online.query import Answer, Query

Answered: TypeAlias = tuple[LiveChampion, Answer]


class Busy(Exception):
    """As many requests wait as may wait."""


class NoChampion(Exception):
    """Nothing serves yet, or the server is being stopped."""


@dataclass(frozen=True)
class _Waiting:
    query: Query
    answered: asyncio.Future[Answered]


class Batches:
    """`observed`: told the size and the seconds of every pass."""

    def __init__(self, live: Callable[[], LiveChampion | None], config: ServeConfig, observed: Callable[[int, float], None]):
        self._live, self._config, self._observed = live, config, observed
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="diger-lists")
        self.waiting = 0

    async def ask(self, query: Query) -> Answered:
        """The answer, and the champion that gave it. Raises Busy, NoChampion, TimeoutError, and DigerError where the query itself is wrong."""
        if self._live() is None:
            raise NoChampion
        if self.waiting >= self._config.max_waiting:
            raise Busy
        waiting = _Waiting(query, asyncio.get_running_loop().create_future())
        self.waiting += 1
        try:
            self._queue.put_nowait(waiting)
            return await asyncio.wait_for(waiting.answered, self._config.timeout_seconds)
        finally:
            self.waiting -= 1

    async def run(self) -> None:
        """Answers until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._config.max_batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch = [waiting for waiting in batch if not waiting.answered.done()]  # those whose time is over are answered no more
            live = self._live()
            if not batch or live is None:
                continue
            started = time.perf_counter()
            try:
                answers = await loop.run_in_executor(self._thread, live.answers, [waiting.query for waiting in batch])
            except Exception as error:  # noqa: BLE001 - it ends this batch's requests with 500 and is logged there; the next batch is answered
                for waiting in batch:
                    _fail(waiting, error)
                continue
            self._observed(len(batch), time.perf_counter() - started)
            for waiting, answer in zip(batch, answers, strict=True):
                if isinstance(answer, DigerError):
                    _fail(waiting, answer)
                elif not waiting.answered.done():
                    waiting.answered.set_result((live, answer))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(error)
