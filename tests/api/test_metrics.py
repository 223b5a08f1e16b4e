"""The application of the metrics port."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from lexora.adapters.prometheus import CONTENT_TYPE, PrometheusMetrics
from lexora.api.http import send_json
from lexora.api.metrics import MetricsEndpoint, create_ops_app
from lexora.core.errors import Forbidden
from tests.support.served import served


class Health:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(scope, send, 503, {"status": "unhealthy"})


async def nobody(scope: Scope) -> None:
    raise Forbidden("Not you.")


def test_what_watches_the_gateway_finds_metrics_and_health_there_and_nothing_else() -> None:
    metrics = PrometheusMetrics("1.2.3", 1_795_260_267.5)
    with served(create_ops_app(MetricsEndpoint(metrics.text, CONTENT_TYPE), Health())) as url:
        found = httpx2.get(f"{url}/metrics")
        assert (found.status_code, found.headers["content-type"]) == (200, CONTENT_TYPE)
        names = {family.name for family in text_string_to_metric_families(found.text)}
        assert {"lexora_build_info", "lexora_requests", "lexora_ttft_seconds"} <= names
        assert httpx2.get(f"{url}/health").status_code == 503
        for path, status, code in (("/v1/models", 404, "not_found"), ("/", 404, "not_found")):
            response = httpx2.get(url + path)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert httpx2.post(f"{url}/metrics").json()["error"]["code"] == "method_not_allowed"


def test_whoever_may_not_see_them_does_not() -> None:
    endpoint = MetricsEndpoint(PrometheusMetrics("1", 0).text, CONTENT_TYPE, nobody)
    with served(create_ops_app(endpoint, Health())) as url:
        assert httpx2.get(f"{url}/metrics").status_code == 403
