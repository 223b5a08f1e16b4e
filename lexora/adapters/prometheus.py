"""Metrics of requests for Prometheus, summed up since the process started."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from lexora.core.record import Record

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Seconds: from a prepared answer to the longest that a model may think.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_BUCKETS_MS = [round(bound * 1e3) for bound in BUCKETS]
_BOUNDS = [*map(str, map(float, BUCKETS)), "+Inf"]
_HISTOGRAMS = {
    "lexora_request_duration_seconds": "From a request's arrival to the end of its answer.",
    "lexora_ttft_seconds": "From a streamed request's arrival to the first token of its answer.",
    "lexora_queue_wait_seconds": "How long requests waited for a place at a deployment.",
    "lexora_upstream_seconds": "How long the calls of upstreams took.",
}
_MOST_CODES = 100
_MOST_CODE_CHARACTERS = 60
_DIRECTIONS = ("input", "output")


class Gauge(NamedTuple):
    """What is so at the moment. Gauges of one name have the same labels."""

    name: str
    help: str
    labels: Mapping[str, str]
    value: float


class _Attempt(msgspec.Struct):
    deployment: str = ""
    error: str | None = None


_attempts_of = msgspec.json.Decoder(list[_Attempt]).decode


class _Histogram:
    """How often a time fell between two bounds, and all times together, in milliseconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.total = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        so_far = 0
        return [(bound, so_far := so_far + count) for bound, count in zip(_BOUNDS, self.counts, strict=True)]


class _Answers:
    """What requests of one model and origin have used."""

    __slots__ = ("cost_usd", "histograms", "saved_usd", "tokens")

    def __init__(self) -> None:
        self.tokens = [0, 0]
        self.cost_usd = 0.0
        self.saved_usd = 0.0
        self.histograms = [_Histogram() for _ in _HISTOGRAMS]


class PrometheusMetrics(Collector):
    """A sink for the ledger, and what Prometheus reads of it. There is no label that a client could make up.

    `live` tells what is so at the moment; `started_at` is seconds since the epoch.
    """

    def __init__(self, version: str, started_at: float, live: Callable[[], Iterable[Gauge]] = tuple) -> None:
        self._live = live
        self._own = [
            Gauge("lexora_build_info", "The version that runs.", {"version": version}, 1),
            Gauge("lexora_start_time_seconds", "When it started, in seconds since the epoch.", {}, started_at),
        ]
        self._lock = threading.Lock()  # between the ledger's thread and whoever reads
        self._requests: dict[tuple[str, str, str, str, int], int] = {}
        self._answers: dict[tuple[str, str], _Answers] = {}
        self._errors: dict[str, int] = {}
        self._failed_attempts: dict[tuple[str, str], int] = {}
        self._codes: set[str] = set()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def write(self, records: list[Record]) -> None:
        with self._lock:
            for record in records:
                self._add(record)

    def close(self) -> None:
        pass

    def text(self) -> bytes:
        """All of it in the text format, whose content type is CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _add(self, record: Record) -> None:
        # A name that no route knows is the client's own, and a prepared answer is given to any name.
        model = record.model if record.provider else ""
        origin = record.origin or ""
        # Of a prepared answer it is the prompt and the variant.
        deployment = record.deployment if record.provider else ""
        request = (model, origin, deployment, record.outcome, record.status)
        self._requests[request] = self._requests.get(request, 0) + 1
        answers = self._answers.get((model, origin))
        if answers is None:
            answers = self._answers[model, origin] = _Answers()
        answers.tokens[0] += record.tokens_in
        answers.tokens[1] += record.tokens_out
        answers.cost_usd += record.cost_usd or 0.0
        answers.saved_usd += record.saved_usd or 0.0
        times = (record.duration_ms, record.ttft_ms, record.queue_ms, record.upstream_ms)
        for histogram, milliseconds in zip(answers.histograms, times):  # noqa: B905 - of one length; `strict` costs
            if milliseconds is not None:
                histogram.counts[bisect_left(_BUCKETS_MS, milliseconds)] += 1
                histogram.total += milliseconds
        if record.outcome == "failed":
            code = self._code(record.error_code)
            self._errors[code] = self._errors.get(code, 0) + 1
        if record.failed_attempts:
            for attempt in _attempts(record):
                failed = (attempt.deployment, self._code(attempt.error))
                self._failed_attempts[failed] = self._failed_attempts.get(failed, 0) + 1

    def _code(self, code: str | None) -> str:
        """An error's code. An upstream may make up any: beyond the first hundred they are "other"."""
        if not code or code in self._codes:
            return code or ""
        if len(code) > _MOST_CODE_CHARACTERS or len(self._codes) >= _MOST_CODES:
            return "other"
        self._codes.add(code)
        return code

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = [*self._counters(), *self._histograms()]
        yield from families
        yield from _gauges([*self._own, *self._live()])

    def _counters(self) -> list[Metric]:
        requests = CounterMetricFamily(
            "lexora_requests", "Requests.", labels=("model", "origin", "deployment", "outcome", "status")
        )
        for (*names, status), count in self._requests.items():
            requests.add_metric([*names, str(status)], count)
        tokens = CounterMetricFamily("lexora_tokens", "Tokens.", labels=("model", "origin", "direction"))
        cost = CounterMetricFamily("lexora_cost_usd", "US dollars, where known.", labels=("model", "origin"))
        saved = CounterMetricFamily(
            "lexora_saved_usd", "US dollars that models would have cost, where known.", labels=("model", "origin")
        )
        for key, answers in self._answers.items():
            cost.add_metric(key, answers.cost_usd)
            saved.add_metric(key, answers.saved_usd)
            for direction, count in zip(_DIRECTIONS, answers.tokens, strict=True):
                tokens.add_metric([*key, direction], count)
        errors = CounterMetricFamily("lexora_errors", "Failed requests by the error's code.", labels=("code",))
        for code, count in self._errors.items():
            errors.add_metric([code], count)
        attempts = CounterMetricFamily(
            "lexora_failed_attempts", "Attempts that another one followed.", labels=("deployment", "error")
        )
        for attempt, count in self._failed_attempts.items():
            attempts.add_metric(attempt, count)
        return [requests, tokens, cost, saved, errors, attempts]

    def _histograms(self) -> list[Metric]:
        families: list[Metric] = []
        for number, (name, help_) in enumerate(_HISTOGRAMS.items()):
            family = HistogramMetricFamily(name, help_, labels=("model", "origin"))
            for key, answers in self._answers.items():
                histogram = answers.histograms[number]
                if any(histogram.counts):
                    family.add_metric(key, histogram.buckets(), histogram.total / 1e3)
            families.append(family)
        return families


def _gauges(gauges: Iterable[Gauge]) -> list[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for gauge in gauges:
        family = families.get(gauge.name)
        if family is None:
            family = families[gauge.name] = GaugeMetricFamily(gauge.name, gauge.help, labels=tuple(gauge.labels))
        family.add_metric(list(gauge.labels.values()), gauge.value)
    return list(families.values())


def _attempts(record: Record) -> list[_Attempt]:
    try:
        return _attempts_of(record.failed_attempts)
    except msgspec.DecodeError:
        return []
