"""The operations stack: whom to tell, alarms, dashboard, budget. Taking it away changes no answer."""

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.alarms import Alarms
from infra.api import ApiStack
from infra.dashboard import add_dashboard
from infra.settings import Settings

# Who publishes to the topic.
_TELLERS = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com")


class OpsStack(cdk.Stack):
    def __init__(self, scope: Construct, id_: str, settings: Settings, api: ApiStack) -> None:
        super().__init__(scope, id_, description=f"Lexora {settings.environment}: alarms, dashboard, budget")
        topic = sns.Topic(self, "Alerts", display_name=settings.name, enforce_ssl=True)
        for teller in _TELLERS:
            topic.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(teller)],
                    actions=["sns:Publish"],
                    resources=[topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )
        if settings.alarm_email:
            topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
        alarms = Alarms(self, "Alarms", settings, api, topic)
        add_dashboard(self, settings, api, alarms)
        if settings.monthly_budget_usd:
            _add_budget(self, settings, topic)
        cdk.CfnOutput(self, "AlertTopicArn", value=topic.topic_arn)


def _add_budget(stack: cdk.Stack, settings: Settings, topic: sns.Topic) -> None:
    """What AWS itself bills this environment a month, told by its tag; providers are paid elsewhere."""
    budget = budgets.CfnBudget
    budgets.CfnBudget(
        stack,
        "Budget",
        budget=budget.BudgetDataProperty(
            budget_name=settings.name,
            budget_type="COST",
            time_unit="MONTHLY",
            budget_limit=budget.SpendProperty(amount=settings.monthly_budget_usd, unit="USD"),
            cost_filters={"TagKeyValue": [f"user:lexora:environment${settings.environment}"]},
        ),
        notifications_with_subscribers=[
            budget.NotificationWithSubscribersProperty(
                notification=budget.NotificationProperty(
                    notification_type=kind,
                    comparison_operator="GREATER_THAN",
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                ),
                subscribers=[budget.SubscriberProperty(subscription_type="SNS", address=topic.topic_arn)],
            )
            for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
        ],
    )
