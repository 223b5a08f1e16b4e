"""What is so at the moment, for /stats, /metrics and /health."""

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from lexora.adapters.prometheus import Gauge
from lexora.api.health import HealthFacts
from lexora.core.lanes import Lanes
from lexora.core.model_map import Deployment
from lexora.entry.monitor import Monitor


class Live:
    """Reads the lanes and what the monitor has seen."""

    def __init__(self, lanes: Lanes, monitor: Monitor) -> None:
        self._lanes = lanes
        self._monitor = monitor

    def stats(self) -> dict[str, Any]:
        """Of each deployment: its queue, and whether its circuit is open; and which of them sleep."""
        queues = {
            lane.deployment.label: {
                "running": lane.queue.running,
                "waiting": lane.queue.waiting,
                "by_priority": lane.queue.waiting_by_priority(),
                "oldest_wait_ms": round(lane.queue.oldest_wait() * 1e3, 1),
                "concurrency": lane.queue.concurrency,
            }
            for lane in self._lanes
            if lane.queue is not None
        }
        return {
            "queues": queues,
            "circuits": {lane.deployment.label: lane.circuit.state for lane in self._lanes},
            "asleep": [lane.deployment.label for lane in self._lanes if lane.asleep],
        }

    def address_of(self, deployment: str) -> str | None:
        """The host name of the server of a deployment, by the deployment's label."""
        for lane in self._lanes:
            if lane.deployment.label == deployment:
                return urlsplit(lane.deployment.base_url).hostname
        return None

    def health(self, deployments: Iterable[Deployment]) -> HealthFacts:
        """Which deployments can answer: their server does, and their circuit is not open."""
        up: dict[str, bool | None] = {}
        asleep: set[str] = set()
        vllm: set[bool | None] = set()
        for deployment in deployments:
            lane = self._lanes.of(deployment)
            up[deployment.label] = False if lane.circuit.state == "open" else lane.up
            if lane.asleep:
                asleep.add(deployment.label)
            if deployment.provider == "vllm":
                vllm.add(lane.up)
        connected = True in vllm or (False if vllm == {False} else None)
        return HealthFacts(up, connected, self._monitor.gpu_memory, len(asleep))

    def gauges(self) -> Iterator[Gauge]:
        """The same for Prometheus, and the memory of the GPUs here."""
        for lane in self._lanes:
            of = {"deployment": lane.deployment.label}
            yield Gauge(
                "lexora_circuit_open", "Whether a deployment is left alone.", of, lane.circuit.state != "closed"
            )
            if lane.up is not None:
                yield Gauge("lexora_upstream_up", "Whether a deployment's server answers.", of, lane.up)
            yield Gauge("lexora_upstream_asleep", "Whether a deployment's server must be woken.", of, lane.asleep)
            queue = lane.queue
            if queue is None:
                continue
            yield Gauge("lexora_queue_running", "Requests that a deployment works on.", of, queue.running)
            for priority, waiting in queue.waiting_by_priority().items():
                labels = {**of, "priority": priority}
                yield Gauge("lexora_queue_waiting", "Requests that wait for a deployment.", labels, waiting)
            wait = queue.oldest_wait()
            yield Gauge("lexora_queue_oldest_wait_seconds", "The longest wait of those that wait.", of, wait)
            if queue.concurrency is not None:
                yield Gauge(
                    "lexora_queue_concurrency", "Requests that a deployment takes at a time.", of, queue.concurrency
                )
        if self._monitor.gpu_memory is not None:
            used, total = self._monitor.gpu_memory
            yield Gauge("lexora_gpu_memory_used_bytes", "Used memory of the GPUs here.", {}, used)
            yield Gauge("lexora_gpu_memory_total_bytes", "Memory of the GPUs here.", {}, total)
