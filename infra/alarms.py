"""What somebody is told about."""

from typing import NamedTuple

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.api import ApiStack
from infra.metrics import ours, server_errors, throttles
from infra.settings import Settings


class _Rule(NamedTuple):
    """Alarm when `metric` has been at or above `threshold` for `periods` periods in a row."""

    metric: cloudwatch.IMetric
    threshold: float
    periods: int
    says: str


class Alarms(Construct):
    """Each tells `topic` when it begins and when it is over. Silence is no alarm: nobody may have asked."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, api: ApiStack, topic: sns.ITopic) -> None:
        super().__init__(scope, id_)
        self.all = [self._add(name, settings, rule, topic) for name, rule in _rules(settings, api).items()]

    def _add(self, name: str, settings: Settings, rule: _Rule, topic: sns.ITopic) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=f"{settings.name}-{name}",
            alarm_description=rule.says,
            metric=rule.metric,
            threshold=rule.threshold,
            evaluation_periods=rule.periods,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))
        return alarm


def _rules(settings: Settings, api: ApiStack) -> dict[str, _Rule]:
    failing = "This door has answered 5xx five times within 5 minutes."
    full = "Lambda had no room for a call: look at the account's concurrency."
    rules = {
        **{f"{door}ServerErrors": _Rule(metric, 5, 1, failing) for door, metric in server_errors(api).items()},
        **{f"{door}Throttles": _Rule(metric, 1, 1, full) for door, metric in throttles(api).items()},
        "SlowAnswers": _Rule(
            ours(settings, "Ttft", "p99"), 20_000, 3, "For 15 minutes, 1 in 100 waited 20 s for a first token."
        ),
        "UpstreamFailed": _Rule(
            ours(settings, "UpstreamFailed", "Sum"), 5, 2, "A model server or provider has kept failing for 10 minutes."
        ),
        "ModelMapRefused": _Rule(
            ours(settings, "ModelMapRefused", "Sum"),
            1,
            1,
            "The model map in the config bucket is broken; the last good one serves. `make config-push` a valid one.",
        ),
    }
    if settings.daily_spend_alarm_usd:
        spend = ours(settings, "CostUsd", "Sum", cdk.Duration.days(1))
        says = f"Providers were paid {settings.daily_spend_alarm_usd:g} US dollars within a day."
        rules["DailySpend"] = _Rule(spend, settings.daily_spend_alarm_usd, 1, says)
    return rules
