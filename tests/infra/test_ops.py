import json
from typing import Any

import pytest

from infra.gateway import NAMESPACE, SERVICE
from lexora.adapters import emf
from tests.infra.synthesis import Environment, text


def metric(alarm: dict[str, Any]) -> dict[str, Any]:
    """What an alarm looks at; a metric with a label stands in a list."""
    if "Metrics" not in alarm:
        return alarm
    (only,) = alarm["Metrics"]
    return {**only["MetricStat"], **only["MetricStat"]["Metric"]}


@pytest.mark.parametrize(
    ("name", "metric_name", "threshold", "seconds", "periods"),
    [
        ("ChatServerErrors", "5xx", 5, 300, 1),
        ("StreamServerErrors", "5XXError", 5, 300, 1),
        ("ChatThrottles", "Throttles", 1, 300, 1),
        ("StreamThrottles", "Throttles", 1, 300, 1),
        ("SlowAnswers", "Ttft", 20_000, 300, 3),
        ("UpstreamFailed", "UpstreamFailed", 5, 300, 2),
        ("ModelMapRefused", "ModelMapRefused", 1, 300, 1),
        ("DailySpend", "CostUsd", 10, 86_400, 1),
    ],
)
def test_alarms(dev: Environment, name: str, metric_name: str, threshold: float, seconds: int, periods: int) -> None:
    alarm = dev.one("Ops", "CloudWatch::Alarm", f"Alarms{name}")
    looked_at = metric(alarm)
    assert (looked_at["MetricName"], looked_at["Period"]) == (metric_name, seconds)
    assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (threshold, periods)
    assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert alarm["TreatMissingData"] == "notBreaching"
    for told in ("AlarmActions", "OKActions"):
        (topic,) = alarm[told]
        assert topic["Ref"] in dev.resources("Ops", "SNS::Topic")


@pytest.mark.parametrize("door", ["Chat", "Stream"])
def test_each_door_has_its_own_alarms(dev: Environment, door: str) -> None:
    for name, dimension in (("ServerErrors", "Api"), ("Throttles", "FunctionName")):
        alarm = dev.one("Ops", "CloudWatch::Alarm", f"Alarms{door}{name}")
        values = [it["Value"] for it in metric(alarm)["Dimensions"] if it["Name"].startswith(dimension)]
        assert all(door in text(value) or text(value) == "lexora-dev-stream" for value in values)
        assert values


def test_the_slowest_hundredth_counts(dev: Environment) -> None:
    assert dev.one("Ops", "CloudWatch::Alarm", "AlarmsSlowAnswers")["ExtendedStatistic"] == "p99"


def test_our_own_metrics_are_those_that_the_functions_write(dev: Environment) -> None:
    assert (NAMESPACE, SERVICE) == (emf.NAMESPACE, emf.SERVICE)
    for name in ("SlowAnswers", "UpstreamFailed", "ModelMapRefused", "DailySpend"):
        alarm = dev.one("Ops", "CloudWatch::Alarm", f"Alarms{name}")
        dimensions = {it["Name"]: it["Value"] for it in alarm["Dimensions"]}
        assert alarm["Namespace"] == "Lexora"
        assert dimensions == {"service": "lexora", "environment": "dev"}


def test_who_is_told(dev: Environment, prod: Environment) -> None:
    assert not dev.resources("Ops", "SNS::Subscription")
    subscription = prod.one("Ops", "SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.org")


def test_who_may_tell(dev: Environment) -> None:
    statements = dev.one("Ops", "SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    assert {"Deny"} == {it["Effect"] for it in statements if it["Principal"] == "*"}
    (tellers,) = (it for it in statements if it["Effect"] == "Allow")
    assert set(tellers["Principal"]["Service"]) == {"cloudwatch.amazonaws.com", "budgets.amazonaws.com"}
    assert tellers["Action"] == "sns:Publish"
    assert tellers["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_the_budget_counts_this_environment(prod: Environment) -> None:
    made = prod.one("Ops", "Budgets::Budget")
    budget = made["Budget"]
    assert (budget["BudgetType"], budget["TimeUnit"]) == ("COST", "MONTHLY")
    assert budget["BudgetLimit"] == {"Amount": 50, "Unit": "USD"}
    assert budget["CostFilters"] == {"TagKeyValue": ["user:lexora:environment$prod"]}
    told = made["NotificationsWithSubscribers"]
    assert [(it["Notification"]["NotificationType"], it["Notification"]["Threshold"]) for it in told] == [
        ("ACTUAL", 80),
        ("FORECASTED", 100),
    ]
    assert all(it["Subscribers"][0]["SubscriptionType"] == "SNS" for it in told)


def test_the_dashboard(dev: Environment) -> None:
    made = dev.one("Ops", "CloudWatch::Dashboard")
    assert made["DashboardName"] == "lexora-dev"
    body = json.loads(text(made["DashboardBody"]))
    shown = json.dumps(body)
    for name in ("Requests", "Errors", "TokensIn", "TokensOut", "CostUsd", "Ttft", "Duration", "UpstreamFailed"):
        assert name in shown
    requests = next(it["properties"] for it in body["widgets"] if it["properties"].get("title") == "Requests")
    assert {"chat 4xx", "stream 4xx"} <= {line[-1].get("label") for line in requests["metrics"]}
    for name in ("Requests", "CostUsd"):
        by_request = "{Lexora,service,environment,model,provider,origin,outcome}"
        assert f"""SEARCH('{by_request} MetricName=\\"{name}\\" environment=\\"dev\\"'""" in shown
