"""What is cut off at the end still has its record."""

import signal
import time
from pathlib import Path

from tests.support.client import RawChat
from tests.support.gateway import models_config, running_gateway
from tests.support.recorded import STREAM_HEAD, Sleep, piece, recorded_upstream, token


def test_a_stream_that_is_cut_off_at_the_end_has_its_record(folder: Path) -> None:
    with recorded_upstream([STREAM_HEAD, piece(token("a")), Sleep(float("inf"))]) as upstream:
        config = models_config(m={"provider": "vllm", "base_url": upstream.base_url, "model": "m"})
        with running_gateway(folder, config) as gateway, RawChat(gateway, {"stream": True}) as chat:
            chat.read_until(b'"a"')
            gateway.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            gateway.process.send_signal(signal.SIGINT)  # the impatient do not wait for the grace period's end
            assert gateway.process.wait(20) == 0
            (record,) = gateway.records()
    assert record["outcome"] == "failed"
    assert record["error_code"] == "shutdown"
    assert record["tokens_out"] == 1
