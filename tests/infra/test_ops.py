import json
from typing import Any

import pytest

from infra.gateway import NAMESPACE, SERVICE
from lexora.adapters import emf
from tests.infra.synthesis import Environment, text


def metric_names(alarm: dict[str, Any]) -> set[str]:
    metrics = alarm.get("Metrics") or [{"MetricStat": {"Metric": alarm}}]
    return {it["MetricStat"]["Metric"]["MetricName"] for it in metrics if "MetricStat" in it}


@pytest.mark.parametrize(
    ("name", "metrics", "threshold", "seconds", "periods"),
    [
        ("ServerErrors", {"5xx", "5XXError"}, 5, 300, 1),
        ("Throttles", {"Throttles"}, 1, 300, 1),
        ("SlowAnswers", {"Ttft"}, 20_000, 300, 3),
        ("UpstreamFailed", {"UpstreamFailed"}, 5, 300, 2),
        ("ModelMapRefused", {"ModelMapRefused"}, 1, 300, 1),
        ("DailySpend", {"CostUsd"}, 10, 86_400, 1),
    ],
)
def test_alarms(dev: Environment, name: str, metrics: set[str], threshold: float, seconds: int, periods: int) -> None:
    alarm = dev.one("Ops", "CloudWatch::Alarm", f"Alarms{name}")
    assert metric_names(alarm) == metrics
    assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (threshold, periods)
    assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert alarm["TreatMissingData"] == "notBreaching"
    periods_seconds = [it["MetricStat"]["Period"] for it in alarm.get("Metrics", []) if "MetricStat" in it]
    assert set(periods_seconds or [alarm["Period"]]) == {seconds}
    for told in ("AlarmActions", "OKActions"):
        (topic,) = alarm[told]
        assert topic["Ref"] in dev.resources("Ops", "SNS::Topic")


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
    assert "{Lexora,service,environment,model,provider,origin,outcome}" in shown
