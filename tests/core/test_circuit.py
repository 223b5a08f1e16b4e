"""The circuit of a deployment, on a clock that the test moves."""

import pytest

from lexora.core.circuit import Circuit, CircuitRules
from lexora.core.errors import Busy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(CircuitRules(failures=3, cooldown_seconds=10), clock)


def fail(circuit: Circuit, times: int = 1) -> None:
    for _ in range(times):
        circuit.failed(circuit.enter())


def test_it_opens_after_failures_in_a_row(circuit: Circuit) -> None:
    fail(circuit, 2)
    circuit.enter()
    circuit.succeeded()
    fail(circuit, 2)
    assert circuit.state == "closed"
    fail(circuit)
    assert circuit.state == "open"
    with pytest.raises(Busy) as refused:
        circuit.enter()
    assert (refused.value.status, refused.value.code) == (503, "circuit_open")
    assert refused.value.headers == ((b"retry-after", b"10"),)


def test_one_request_probes_and_its_success_closes(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.now += 10
    assert circuit.state == "half_open"
    circuit.enter()
    with pytest.raises(Busy):
        circuit.enter()
    circuit.succeeded()
    assert circuit.state == "closed"
    fail(circuit, 2)
    assert circuit.state == "closed"


def test_a_probe_that_fails_opens_it_again(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.now += 10
    fail(circuit)
    assert circuit.state == "open"
    clock.now += 10
    circuit.enter()


def test_a_probe_that_tells_nothing_makes_way_for_the_next(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.now += 10
    circuit.left(circuit.enter())
    circuit.enter()


def test_late_failures_of_earlier_requests_do_not_take_the_probe_away(circuit: Circuit, clock: Clock) -> None:
    numbers = [circuit.enter() for _ in range(6)]
    for number in numbers[:3]:
        circuit.failed(number)
    clock.now += 10
    probe = circuit.enter()
    circuit.left(numbers[3])
    with pytest.raises(Busy):
        circuit.enter()
    circuit.failed(numbers[4])
    assert circuit.state == "open"
    clock.now += 10
    with pytest.raises(Busy):  # it has not come back yet
        circuit.enter()
    circuit.left(probe)
    assert circuit.enter()


def test_a_probe_whose_time_is_over_counts_as_any_other(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.now += 10
    late = circuit.enter()
    circuit.succeeded()  # a request from before
    circuit.failed(late)
    assert circuit.state == "closed"
    fail(circuit, 2)
    clock.now += 10
    circuit.enter()
    circuit.left(late)
    with pytest.raises(Busy):
        circuit.enter()


def test_it_rests_for_as_long_as_it_is_asked_to(circuit: Circuit, clock: Clock) -> None:
    circuit.rest(30)
    clock.now += 29
    with pytest.raises(Busy):
        circuit.enter()
    circuit.rest(0.5)  # never shorter than it was asked before
    with pytest.raises(Busy):
        circuit.enter()
    clock.now += 1
    circuit.enter()


def test_a_server_that_is_seen_to_be_well_is_tried_at_once(circuit: Circuit) -> None:
    circuit.probe_now()
    assert circuit.state == "closed"
    fail(circuit, 3)
    circuit.probe_now()
    assert circuit.state == "half_open"
    circuit.enter()
    circuit.succeeded()
    assert circuit.state == "closed"
