"""What is known of each deployment while the gateway runs: its queue, its circuit, whether its server answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lexora.core.circuit import Circuit, CircuitRules
from lexora.core.queue import Queue, QueueRules
from lexora.core.record import Origin

if TYPE_CHECKING:
    from lexora.core.model_map import Deployment

# Wildcard routes make a deployment for each model name that clients think of.
_MOST = 1_000

_Place = tuple[object, ...]  # whatever makes a deployment another one


class Lane:
    """One deployment at run time. `queue` is None where requests do not wait; `up` is None while nobody has looked.

    `asleep`: its server must be woken before it can answer. What every request needs of the deployment is here as well,
    as attributes of pydantic's models are slow; `seconds` is its total timeout, `orders` its `priority_scheduling`.
    """

    __slots__ = (
        "asleep", "circuit", "deployment", "is_free", "label", "model", "orders", "origin", "provider", "queue",
        "seconds", "up",
    )  # fmt: skip

    deployment: Deployment
    label: str
    provider: str
    origin: Origin
    model: str
    is_free: bool
    seconds: float
    orders: bool

    def __init__(self, deployment: Deployment, queue: Queue | None, circuit: Circuit) -> None:
        self.serve(deployment)
        self.queue = queue
        self.circuit = circuit
        self.up: bool | None = None
        self.asleep = False

    def serve(self, deployment: Deployment) -> None:
        """This deployment from now on."""
        self.deployment = deployment
        self.label = deployment.label
        self.provider = deployment.provider
        self.origin = deployment.origin
        self.model = deployment.model
        self.is_free = deployment.is_free
        self.seconds = deployment.timeouts.total
        self.orders = deployment.priority_scheduling


class Lanes:
    """The lanes of all deployments; a reload that does not change where a deployment is keeps its lane.

    Deployments on the same server share one queue, but those with a `concurrency` of their own. Without `queue_rules`,
    nothing waits. `now` gives seconds that never go back.
    """

    def __init__(self, queue_rules: QueueRules | None, circuit_rules: CircuitRules, now: Callable[[], float]) -> None:
        self._queue_rules = queue_rules
        self._circuit_rules = circuit_rules
        self._now = now
        self._by_identity: dict[int, Lane] = {}
        self._by_place: dict[_Place, Lane] = {}
        self._queues: dict[_Place | str, Queue] = {}  # by place, or by the server's base URL

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._by_place.values()))

    def of(self, deployment: Deployment) -> Lane:
        lane = self._by_identity.get(id(deployment))
        if lane is not None and lane.deployment is deployment:
            return lane
        place = _place(deployment)
        lane = self._by_place.get(place)
        if lane is None:
            if len(self._by_place) >= _MOST:
                self._forget_idle()
            lane = self._by_place[place] = Lane(deployment, None, Circuit(self._circuit_rules, self._now))
        lane.serve(deployment)
        lane.queue = self._queue(deployment, place)
        if len(self._by_identity) >= _MOST:
            self._by_identity.clear()
        self._by_identity[id(deployment)] = lane
        return lane

    def _queue(self, deployment: Deployment, place: _Place) -> Queue | None:
        if self._queue_rules is None or deployment.origin != "own":
            return None
        key = deployment.base_url if deployment.concurrency is None else place
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(self._queue_rules, self._now, deployment.concurrency)
        elif deployment.concurrency is not None:
            queue.concurrency = deployment.concurrency
        return queue

    def change(self, queue_rules: QueueRules | None, circuit_rules: CircuitRules) -> None:
        """New rules, for the lanes that there are as well."""
        self._queue_rules, self._circuit_rules = queue_rules, circuit_rules
        for lane in self._by_place.values():
            lane.circuit.rules = circuit_rules
        for queue in self._queues.values():
            if queue_rules is not None:
                queue.rules = queue_rules

    def keep(self, deployments: Iterator[Deployment]) -> None:
        """Forgets the lanes of deployments that are no more; where somebody is in a queue, one lane stays with it."""
        places = set(map(_place, deployments))
        lanes = sorted(self._by_place.items(), key=lambda item: item[0] not in places)
        used: set[Queue | None] = set()
        for place, lane in lanes:
            queue = lane.queue
            if place in places or (queue not in used and queue is not None and (queue.running or queue.waiting)):
                used.add(queue)
            else:
                del self._by_place[place]
        self._queues = {key: queue for key, queue in self._queues.items() if queue in used}
        self._by_identity.clear()

    def _forget_idle(self) -> None:
        self.keep(iter(()))


def _place(deployment: Deployment) -> _Place:
    # Another account at the same address has limits and failures of its own.
    whose = (deployment.credential, *sorted(deployment.headers.items()))
    return deployment.label, deployment.base_url, deployment.model, *whose
