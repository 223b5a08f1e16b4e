"""What is kept of each deployment while the gateway runs."""

from lexora.core.circuit import CircuitRules
from lexora.core.lanes import Lanes
from lexora.core.model_map import Deployment, parse_model_map
from lexora.core.queue import QueueRules
from lexora.providers.table import PROVIDERS


def deployment(provider: str = "vllm", **more: object) -> Deployment:
    data = {"models": {"m": {"deployments": [{"provider": provider, "model": "m", **more}]}}}
    return parse_model_map(data, PROVIDERS).models["m"].deployments[0]


def lanes(queue: QueueRules | None = None) -> Lanes:
    return Lanes(queue or QueueRules(), CircuitRules(), lambda: 0.0)


def test_only_the_users_own_deployments_have_a_queue() -> None:
    known = lanes()
    own = known.of(deployment(concurrency=3))
    assert own.queue is not None
    assert own.queue.concurrency == 3
    assert known.of(deployment("openai")).queue is None
    assert Lanes(None, CircuitRules(), lambda: 0.0).of(deployment()).queue is None


def test_a_reload_keeps_the_lane_of_a_deployment_that_is_the_same() -> None:
    known = lanes()
    before, after = deployment(concurrency=1), deployment(concurrency=2)
    lane = known.of(before)
    assert known.of(before) is lane
    assert known.of(after) is lane
    assert lane.queue is not None
    assert lane.queue.concurrency == 2
    assert known.of(deployment(base_url="http://other:1/v1")) is not lane
    assert len(list(known)) == 2


def test_new_rules_hold_for_old_lanes() -> None:
    known = lanes()
    lane = known.of(deployment())
    known.change(QueueRules(max_size=7), CircuitRules(failures=1))
    assert lane.queue is not None
    assert (lane.queue.rules.max_size, lane.circuit.rules.failures) == (7, 1)


def test_lanes_of_deployments_that_are_gone_are_forgotten_unless_somebody_is_on_them() -> None:
    known = lanes()
    gone, busy = deployment(), deployment(model="busy")
    known.of(gone)
    queue = known.of(busy).queue
    assert queue is not None
    place = queue.try_enter()
    assert place is not None
    known.keep(iter(()))
    assert [lane.deployment for lane in known] == [busy]
    place.release()
    known.keep(iter(()))
    assert not list(known)


def test_made_up_models_do_not_fill_the_memory() -> None:
    known = lanes()
    for number in range(2500):
        known.of(deployment("openai", model=f"gpt-{number}"))
    assert len(list(known)) <= 1000
