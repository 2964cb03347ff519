"""Links from an alert into the Dagster UI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from mlmon_dagster.alerts.view import AlertView

Links = Callable[[AlertView], Sequence[tuple[str, str]]]

# The asset whose page shows a family's checks.
_ASSETS = {
    "schema": "inference_store",
    "freshness": "event_log",
    "quality": "data_quality",
    "drift": "drift",
    "performance": "performance",
    "estimated_performance": "estimated_performance",
    "service": "service_health",
    "business": "business_impact",
}


def dagster_links(base_url: str) -> Links:
    """Return links into the Dagster UI at an address; none if the address is empty."""

    def links(view: AlertView) -> Sequence[tuple[str, str]]:
        base, model = base_url.rstrip("/"), quote(view.row["model"])
        if not base:
            return ()
        if view.row["family"] == "pipeline":
            run_id = quote(str(view.details.get("run_id", "")))
            return (("Run in Dagster", f"{base}/runs/{run_id}"),)
        asset = _ASSETS.get(view.row["family"], "health_report")
        return (("Asset in Dagster", f"{base}/assets/{model}/{asset}?view=checks"),)

    return links
