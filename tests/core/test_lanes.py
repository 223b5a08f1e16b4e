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


def test_another_account_at_the_same_address_is_another_lane() -> None:
    known = lanes()
    theirs = [
        {},
        {"credential": "env:ONE"},
        {"credential": "env:TWO"},
        {"headers": {"openai-project": "one"}},
        {"headers": {"openai-project": "two"}},
    ]
    first = [known.of(deployment("openai", **more)) for more in theirs]
    assert len(set(map(id, first))) == len({id(lane.circuit) for lane in first}) == len(theirs)
    known.keep(deployment("openai", **more) for more in theirs)
    assert [known.of(deployment("openai", **more)) for more in theirs] == first


def test_deployments_on_one_server_share_its_queue_but_those_with_their_own_concurrency() -> None:
    known = lanes()
    here, there, other = (
        known.of(deployment(model=model, base_url=f"http://{host}:1/v1"))
        for model, host in (("a", "gpu"), ("b", "gpu"), ("c", "other"))
    )
    assert here.queue is there.queue is not other.queue
    assert here.circuit is not there.circuit
    alone, alone_too = (known.of(deployment(model=m, base_url="http://gpu:1/v1", concurrency=1)) for m in "de")
    assert len({alone.queue, alone_too.queue, here.queue}) == 3
    known.change(QueueRules(max_size=7), CircuitRules())
    assert {lane.queue.rules.max_size for lane in known if lane.queue} == {7}


def test_a_reload_may_give_a_deployment_a_queue_of_its_own_and_take_it_back() -> None:
    known = lanes()
    shared = known.of(deployment(model="a")).queue
    assert known.of(deployment(model="b")).queue is shared
    assert shared is not None
    place = shared.try_enter()
    lane = known.of(deployment(model="b", concurrency=1))
    assert (lane.queue is shared, shared.concurrency, shared.running) == (False, None, 1)
    assert known.of(deployment(model="b")).queue is shared
    assert place is not None
    place.release()
    assert shared.running == 0


def test_new_rules_hold_for_old_lanes() -> None:
    known = lanes()
    lane = known.of(deployment())
    known.change(QueueRules(max_size=7), CircuitRules(failures=1))
    assert lane.queue is not None
    assert (lane.queue.rules.max_size, lane.circuit.rules.failures) == (7, 1)


def test_lanes_of_deployments_that_are_gone_are_forgotten_unless_somebody_is_on_them() -> None:
    known = lanes()
    gone, busy = deployment(), deployment(model="busy", concurrency=1)
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


def test_of_lanes_with_a_busy_queue_in_common_one_stays() -> None:
    known = lanes()
    queue = known.of(deployment(model="a")).queue
    known.of(deployment(model="b"))
    assert queue is not None
    place = queue.try_enter()
    assert place is not None
    known.keep(iter([deployment(model="b")]))
    assert [lane.deployment.model for lane in known] == ["b"]
    known.keep(iter(()))
    assert [lane.queue for lane in known] == [queue]
    assert known.of(deployment(model="c")).queue is queue
    place.release()
    known.keep(iter(()))
    assert not list(known)
    assert known.of(deployment(model="c")).queue is not queue


def test_made_up_models_do_not_fill_the_memory_of_a_busy_server() -> None:
    known = lanes()
    queue = known.of(deployment()).queue
    assert queue is not None
    queue.try_enter()
    for number in range(2500):
        assert known.of(deployment(model=f"m-{number}")).queue is queue
    assert len(list(known)) <= 1000


def test_made_up_models_do_not_fill_the_memory() -> None:
    known = lanes()
    for number in range(2500):
        known.of(deployment("openai", model=f"gpt-{number}"))
    assert len(list(known)) <= 1000
