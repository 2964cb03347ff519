"""Times as features: nulls are counted, and it is their age at the event that is compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import measure
from tests.profiles.records import START, DuckEngine, make_records, make_spec

N, DAYS, LATER = 2400, 4, 200
HOUR = 3600.0


def booked(hours_before, *, day, null_share=0.0, seed=0):
    """Records of some days from ``day`` on, booked so many hours before their event, on average."""
    rng = np.random.default_rng(seed)
    days = day + rng.integers(0, DAYS, N)
    event = [START + pd.Timedelta(days=int(d), seconds=int(s)) for d, s in zip(
        days, rng.integers(0, 86_400, N), strict=True
    )]  # fmt: skip
    ages = rng.exponential(hours_before * HOUR, N)
    gone = rng.random(N) < null_share
    values = [
        None if null else e - pd.Timedelta(seconds=float(age))
        for e, age, null in zip(event, ages, gone, strict=True)
    ]
    starts = [START + pd.Timedelta(days=int(d)) for d in days]
    return make_records(N, booked_at=values, event_time=event, window_start=starts)


def drift_of(current):
    spec = make_spec(slices=[])
    before = DuckEngine(records=booked(24, day=0))
    binnings = fit_binnings(before, spec, "records")
    baseline = build_profiles(before, spec, "records", binnings)
    now = build_profiles(DuckEngine(records=current), spec, "records", binnings)
    frame = measure(spec, "drift", now, baseline)
    psi = frame[(frame["metric"] == "psi") & (frame["column_name"] == "booked_at")]
    quality = measure(spec, "quality", now, None)
    nulls = quality[(quality["metric"] == "null_rate") & (quality["column_name"] == "booked_at")]
    return psi, nulls


def test_half_a_year_later_nothing_has_drifted_if_ages_are_the_same():
    psi, _ = drift_of(booked(24, day=LATER, seed=1))
    assert psi["value"].abs().max() < 0.05
    assert psi["p_value"].min() > 0.001


def test_values_that_became_older_drift():
    """As when a feed stands still: what it says of last week is said today."""
    psi, _ = drift_of(booked(24 * 7, day=LATER, seed=1))
    assert psi["value"].min() > 0.5
    assert psi["p_value"].max() < 1e-6


def test_nulls_of_a_time_are_a_share_of_the_rows_and_drift():
    psi, nulls = drift_of(booked(24, day=LATER, null_share=0.3, seed=1))
    assert nulls["value"].mean() == pytest.approx(0.3, abs=0.03)
    assert psi["value"].min() > 0.1
