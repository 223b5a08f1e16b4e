"""The metrics that alarms and the dashboard look at."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from infra.api import ApiStack
from infra.gateway import NAMESPACE, SERVICE
from infra.settings import Settings

FIVE_MINUTES = cdk.Duration.minutes(5)
# The dimensions of the finer set of each metric that the functions write.
_BY_REQUEST = "service,environment,model,provider,origin,outcome"


def ours(
    settings: Settings, name: str, statistic: str, period: cdk.Duration = FIVE_MINUTES, label: str | None = None
) -> cloudwatch.Metric:
    """A metric that the functions write, over the whole environment."""
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=name,
        dimensions_map={"service": SERVICE, "environment": settings.environment},
        statistic=statistic,
        period=period,
        label=label,
    )


def each(settings: Settings, name: str, statistic: str) -> cloudwatch.MathExpression:
    """The same by model, provider, origin and outcome, whichever there are."""
    search = f'{{{NAMESPACE},{_BY_REQUEST}}} MetricName="{name}" environment="{settings.environment}"'
    return cloudwatch.MathExpression(
        expression=f"SEARCH('{search}', '{statistic}', 300)", using_metrics={}, label="", period=FIVE_MINUTES
    )


def server_errors(api: ApiStack) -> dict[str, cloudwatch.Metric]:
    """By door: what it answered with 5xx, crashes and time-outs of its function included."""
    return {
        "Chat": api.chat.stage.metric_server_error(period=FIVE_MINUTES, statistic="Sum", label="chat 5xx"),
        "Stream": api.stream.api.metric_server_error(period=FIVE_MINUTES, statistic="Sum", label="stream 5xx"),
    }


def client_errors(api: ApiStack) -> dict[str, cloudwatch.Metric]:
    """By door: what it answered with 4xx, what its stage throttled included."""
    return {
        "Chat": api.chat.stage.metric_client_error(period=FIVE_MINUTES, statistic="Sum", label="chat 4xx"),
        "Stream": api.stream.api.metric_client_error(period=FIVE_MINUTES, statistic="Sum", label="stream 4xx"),
    }


def throttles(api: ApiStack) -> dict[str, cloudwatch.Metric]:
    """By door: calls for which Lambda had no room."""
    return {
        "Chat": api.chat.gateway.function.metric_throttles(period=FIVE_MINUTES, label="chat throttled"),
        "Stream": api.stream.gateway.function.metric_throttles(period=FIVE_MINUTES, label="stream throttled"),
    }
