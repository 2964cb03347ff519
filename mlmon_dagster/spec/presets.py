"""What serving systems say of themselves in Prometheus: queries, by preset.

Names of series change between releases, so each preset says which one it was written for. Numbers
are of counts and sums, never means of percentiles; a share of errors is 0 only where requests were
counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Preset:
    """Queries for one serving system.

    Attributes:
        written_for: The release whose names of series it uses.
        queries: Name -> unit and PromQL, with ``$match`` for the labels that select the model and
            ``$window`` for the length of the window.
    """

    written_for: str
    queries: dict[str, tuple[str, str]]


def _quantile(share: float, series: str, scale: str = "", labels: str = "") -> str:
    buckets = f"sum by (le) (increase({series}_bucket{{{labels}$match}}[$window]))"
    return f"{scale}histogram_quantile({share:g}, {buckets})"


def _sum(series: str, labels: str = "") -> str:
    return f"sum(increase({series}{{{labels}$match}}[$window]))"


def _share(some: str, whole: str) -> str:
    """No error was ever counted where its series is absent and that of requests is not."""
    return f"({some} or 0 * {whole}) / {whole}"


def _mean(total: str, count: str) -> str:
    return f"{_sum(total)} / {_sum(count)} / 1000"


def _most(series: str, labels: str = "") -> str:
    return f"max_over_time(sum({series}{{{labels}$match}})[$window:1m])"


_TRITON = _sum("nv_inference_request_success")
_TRITON_LOST = _sum("nv_inference_request_failure")
# Both count the probes of load balancers among the requests.
_ROUTED, _ASKED = 'route!~"/-/.*",', 'endpoint!~"/(livez|readyz|healthz|metrics)",'
_RAY = _sum("ray_serve_num_http_requests_total", _ROUTED)
_BENTO = _sum("bentoml_service_request_total", _ASKED)
_MS, _FAILED = "1000 * ", '=~"5..",'
PRESETS: Final = {
    "kserve": Preset("KServe 0.21, its own model servers", {
        "kserve_requests": ("requests", _sum("request_predict_seconds_count")),
        "kserve_p95_predict_ms": ("ms", _quantile(0.95, "request_predict_seconds", _MS)),
        "kserve_p95_preprocess_ms": ("ms", _quantile(0.95, "request_preprocess_seconds", _MS)),
    }),
    "triton": Preset("Triton 26.07", {
        "triton_requests": ("requests", _TRITON),
        "triton_mean_request_ms": (
            "ms", _mean("nv_inference_request_duration_us", "nv_inference_request_success")
        ),
        "triton_mean_queue_ms": (
            "ms", _mean("nv_inference_queue_duration_us", "nv_inference_request_success")
        ),
        "triton_failed_share": ("", f"{_TRITON_LOST} / ({_TRITON_LOST} + {_TRITON})"),
        "triton_most_pending": ("requests", _most("nv_inference_pending_request_count")),
    }),
    "vllm": Preset("vLLM 0.11", {
        "vllm_requests": ("requests", _sum("vllm:request_success_total")),
        "vllm_p95_first_token_ms": ("ms", _quantile(0.95, "vllm:time_to_first_token_seconds", _MS)),
        "vllm_p95_request_ms": ("ms", _quantile(0.95, "vllm:e2e_request_latency_seconds", _MS)),
        "vllm_most_waiting": ("requests", _most("vllm:num_requests_waiting")),
        "vllm_most_cache": (
            "", "max(max_over_time(vllm:kv_cache_usage_perc{$match}[$window]))"
        ),
        "vllm_preemptions": ("", _sum("vllm:num_preemptions_total")),
    }),
    "bentoml": Preset("BentoML 1.4.40", {
        "bentoml_requests": ("requests", _BENTO),
        "bentoml_p95_request_ms": (
            "ms", _quantile(0.95, "bentoml_service_request_duration_seconds", _MS, _ASKED)
        ),
        "bentoml_failed_share": ("", _share(
            _sum("bentoml_service_request_total", f"{_ASKED}http_response_code{_FAILED}"), _BENTO
        )),
        "bentoml_most_in_progress": (
            "requests", _most("bentoml_service_request_in_progress", _ASKED)
        ),
    }),
    "ray_serve": Preset("Ray 2.60", {
        "ray_serve_requests": ("requests", _RAY),
        "ray_serve_p95_request_ms": (
            "ms", _quantile(0.95, "ray_serve_http_request_latency_ms", labels=_ROUTED)
        ),
        "ray_serve_failed_share": ("", _share(
            _sum("ray_serve_num_http_error_requests_total", f"{_ROUTED}error_code{_FAILED}"), _RAY
        )),
        "ray_serve_most_queued": ("requests", _most("ray_serve_deployment_queued_queries")),
    }),
}  # fmt: skip
