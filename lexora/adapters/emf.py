"""Metrics of requests, as log lines that CloudWatch turns into metrics (Embedded Metric Format)."""

from urllib.parse import quote

import msgspec
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from lexora.core.record import Record

NAMESPACE = "Lexora"
SERVICE = "lexora"


class EmfMetrics:
    """A sink for the ledger: a line of metrics a request, for the whole environment and by what answered how.

    CloudWatch charges for each combination of dimensions, so there is none that a client could make up.
    """

    def __init__(self, environment: str) -> None:
        self._environment = environment

    def write(self, records: list[Record]) -> None:
        for record in records:
            self._write(record)

    def close(self) -> None:
        pass

    def count(self, name: str) -> None:
        """Counts one of `name` for the environment."""
        metrics = self._metrics()
        metrics.add_metric(name, "Count", 1)
        metrics.flush_metrics()

    def _metrics(self) -> AmazonCloudWatchEMFProvider:
        metrics = AmazonCloudWatchEMFProvider(namespace=NAMESPACE, service=SERVICE)
        metrics.add_dimension("service", SERVICE)
        metrics.add_dimension("environment", self._environment)
        return metrics

    def _write(self, record: Record) -> None:
        metrics = self._metrics()
        metrics.add_dimensions(
            service=SERVICE,
            environment=self._environment,
            model=_model(record),
            provider=record.provider or "none",
            origin=record.origin or "none",
            outcome=record.outcome,
        )
        metrics.add_metric("Requests", "Count", 1)
        metrics.add_metric("Errors", "Count", int(record.outcome == "failed"))
        metrics.add_metric("UpstreamFailed", "Count", _failed_attempts(record))
        metrics.add_metric("TokensIn", "Count", record.tokens_in)
        metrics.add_metric("TokensOut", "Count", record.tokens_out)
        metrics.add_metric("CostUsd", "None", record.cost_usd or 0.0)
        if record.saved_usd:  # CloudWatch charges for each metric that there is
            metrics.add_metric("SavedUsd", "None", record.saved_usd)
        metrics.add_metric("Duration", "Milliseconds", record.duration_ms)
        if record.ttft_ms is not None:
            metrics.add_metric("Ttft", "Milliseconds", record.ttft_ms)
        metrics.flush_metrics()


def _failed_attempts(record: Record) -> int:
    """How often an upstream failed, also where a fallback then answered. A client's mistake is no failure of it."""
    failed = len(msgspec.json.decode(record.failed_attempts)) if record.failed_attempts else 0
    # The last attempt of a failed request is among them only if another was to follow.
    return failed + (record.outcome == "failed" and record.status >= 500 and record.attempts > failed)


def _model(record: Record) -> str:
    """The name of a model of the map, in ASCII as CloudWatch wants it; a prepared answer is given to any name."""
    return quote(record.model, safe="/: ") if record.provider and record.model else "none"
