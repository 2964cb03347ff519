"""What some windows brought, beside those before, in one line: for the digest."""

from __future__ import annotations

import datetime as dt

from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import is_told_in_money
from mlmon_dagster.store import Store


def business_line(store: Store, spec: ModelSpec, start: dt.datetime, end: dt.datetime) -> str:
    """Say how the model did, what came of it and what that is worth, from stored profiles.

    Args:
        store: The store.
        spec: The model.
        start: Windows that start at or after this moment; usual are those of 28 lengths before.
        end: Windows that start before this moment.

    Returns:
        Such as "ROC AUC 0.70 (usually 0.71); conversion is 1.2 % below usual ..."; empty of a
        model that declares nothing of it, and where no outcome is known.
    """
    if not is_told_in_money(spec):
        return ""
    from mlmon_dagster.monitors.wording import named, number
    from mlmon_dagster.profiles.in_force import baseline_in_force
    from mlmon_dagster.profiles.measures import columns_of
    from mlmon_dagster.trace.money import BEFORE, money_of
    from mlmon_dagster.trace.slices import compare_slices, default_metrics, profiled_for

    metric = default_metrics(spec)[0]
    names = list(dict.fromkeys([*columns_of(spec, "business"), *profiled_for(spec, [metric])]))
    window = window_containing(spec.time, start)
    before = start - BEFORE * (window.end - window.start)
    in_force = baseline_in_force(store, spec)
    now, then = (
        in_force.profiles(start=a, end=b, dataset=PRODUCTION, columns=names)
        for a, b in ((start, end), (before, start))
    )
    said = [money.sentence for money in money_of(spec, now, then)]
    if not said:
        return ""
    whole = compare_slices(spec, now, then, [metric]).head(1).to_dict("records")
    of_model = [
        f"{named(metric)} {number(row['value'])} (usually {number(row['baseline_value'])})"
        for row in whole
    ]
    return "; ".join([*of_model, *said])
