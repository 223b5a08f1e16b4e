"""The dashboard of an environment: what comes in, how it goes, what it costs."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.alarms import Alarms
from infra.api import ApiStack
from infra.metrics import client_errors, each, ours, server_errors, throttles
from infra.settings import Settings


def add_dashboard(scope: Construct, settings: Settings, api: ApiStack, alarms: Alarms) -> None:
    functions = {"chat": api.chat.gateway.function, "stream": api.stream.gateway.function}
    dashboard = cloudwatch.Dashboard(
        scope, "Dashboard", dashboard_name=settings.name, default_interval=cdk.Duration.hours(12)
    )
    dashboard.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms.all, width=24, height=2))
    dashboard.add_widgets(
        _graph(
            "Requests",
            # What a stage throttles comes to no function: it is seen among the doors' 4xx alone.
            [ours(settings, "Requests", "Sum"), ours(settings, "Errors", "Sum"), *client_errors(api).values()],
        ),
        _graph("Requests by model, provider, origin, outcome", [each(settings, "Requests", "Sum")]),
        _graph(
            "Failures",
            [
                *server_errors(api).values(),
                *throttles(api).values(),
                ours(settings, "UpstreamFailed", "Sum"),
            ],
        ),
    )
    dashboard.add_widgets(
        _graph("First token, ms", [ours(settings, "Ttft", p, label=p) for p in ("p50", "p90", "p99")]),
        _graph("Whole answer, ms", [ours(settings, "Duration", p, label=p) for p in ("p50", "p90", "p99")]),
        _graph(
            "At once", [f.metric("ConcurrentExecutions", statistic="Maximum", label=n) for n, f in functions.items()]
        ),
    )
    dashboard.add_widgets(
        _graph("Cost by model, provider, origin, outcome, US dollars", [each(settings, "CostUsd", "Sum")]),
        _graph("Cost a day, US dollars", [ours(settings, "CostUsd", "Sum", cdk.Duration.days(1))]),
        _graph("Tokens", [ours(settings, "TokensIn", "Sum"), ours(settings, "TokensOut", "Sum")]),
    )


def _graph(title: str, metrics: Sequence[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(metrics), width=8, height=6)
