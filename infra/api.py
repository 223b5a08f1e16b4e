"""The API stack: the buffered door and the streaming door, one app behind both."""

import aws_cdk as cdk
from constructs import Construct

from infra.data import DataStack
from infra.http_door import HttpDoor
from infra.settings import Settings
from infra.stream_door import StreamDoor


class ApiStack(cdk.Stack):
    """Both doors. Clients find them by the outputs, or through the edge."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, data: DataStack) -> None:
        super().__init__(scope, id_, description=f"Lexora {settings.environment}: the API, buffered and streaming")
        self.chat = HttpDoor(self, "Chat", settings, data)
        self.stream = StreamDoor(self, "Stream", settings, data)
        cdk.CfnOutput(self, "ChatApiEndpoint", value=self.chat.url)
        cdk.CfnOutput(self, "ChatLambdaName", value=self.chat.gateway.function.function_name)
        cdk.CfnOutput(self, "ChatLogGroupName", value=self.chat.gateway.log_group.log_group_name)
        cdk.CfnOutput(self, "StreamApiEndpoint", value=self.stream.url)
        cdk.CfnOutput(self, "StreamLambdaName", value=self.stream.gateway.function.function_name)
        cdk.CfnOutput(self, "StreamLogGroupName", value=self.stream.gateway.log_group.log_group_name)
