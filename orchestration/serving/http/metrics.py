"""Metrics for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestration.serving.online.follow import Follower
from orchestration.serving.online.query import Answer

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What the service counts. Labels are few and fixed: no ids."""

    def __init__(self, follower: Follower) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter("diger_requests", "Requests by path and status.", ["path", "status"], registry=own)
        self.seconds = Histogram("diger_request_seconds", "From a request's arrival to its answer.", ["path"], buckets=SECONDS, registry=own)
        self.batch = Histogram("diger_batch_requests", "Requests that one pass of the model answered.", buckets=SIZES, registry=own)
        self.pass_seconds = Histogram("diger_batch_seconds", "One pass of the model.", buckets=SECONDS, registry=own)
        self.waiting = Gauge("diger_waiting_requests", "Requests that wait or are being answered.", registry=own)
        self.listed = Counter(
            "diger_listed_items", "Places of lists: by the champion's mixture, or filled with popular items.", ["source"], registry=own
        )
        self._registry.register(_ChampionState(follower))

    def passed(self, size: int, seconds: float) -> None:
        self.batch.observe(size)
        self.pass_seconds.observe(seconds)

    def answered(self, answer: Answer) -> None:
        scored = sum(item["score"] is not None for item in answer.items)
        self.listed.labels("mixture").inc(scored)
        self.listed.labels("popular").inc(len(answer.items) - scored)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _ChampionState(Collector):
    """Which champion serves, read when somebody asks."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def collect(self) -> Iterator[Metric]:
        live = self._follower.live
        info = GaugeMetricFamily("diger_champion_info", "The champion that serves.", labels=["bundle", "assignment"])
        if live is not None:
            info.add_metric([live.bundle, live.assignment_hash], 1)
        yield info
        yield GaugeMetricFamily("diger_champion_entry", "Its entry of the champion log; 0: none.", value=live.entry.number if live else 0)
        yield GaugeMetricFamily("diger_champion_problem", "1 where /health tells a problem.", value=float(self._follower.problem is not None))
        yield CounterMetricFamily("diger_champion_changes", "Champions taken over since the start.", value=self._follower.changes)
        yield CounterMetricFamily("diger_champion_load_failures", "Attempts at bundles that did not load.", value=self._follower.failures)
