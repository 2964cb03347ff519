"""Correlations from sums: against numpy, merged, calibrated, and seen when they change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlmon_dagster.metrics.drift.joint import (
    JOINT,
    MOST,
    UNIT,
    folded_scores,
    joint_moments,
    joint_sums,
    multivariate_metrics,
    normal_scores,
    size_of,
)
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge
from mlmon_dagster.spec.monitors import CORRELATION_CHANGE, CORRELATION_SHIFT
from tests.metrics import samples

K = 8
MIXED = np.random.default_rng(5).normal(size=(K, 3)) * [1.0, 0.7, 0.4]
EXACT = 1e-12


def rows(rng, n, *, k=K, block=1):
    """Scores of n rows of correlated normals; with `block`, each drawn so many times."""
    drawn = -(-n // block)
    x = rng.normal(size=(drawn, 3)) @ MIXED.T + rng.normal(size=(drawn, K))
    x = np.repeat(x, block, axis=0)[:n, :k] / np.sqrt((MIXED**2).sum(axis=1) + 1)[:k]
    return np.clip(np.rint(x * UNIT), -MOST, MOST).astype(np.int8)


def statistics(parts, names=None):
    sums = np.stack([joint_sums(part) for part in parts])
    names = names or [f"f{i}" for i in range(parts[0].shape[1])]
    columns = tuple(name.strip("|") for name in names)
    size = size_of(len(names))
    binning = Binning(JOINT, "joint", size, "b", categories=tuple(names), tail=columns)
    return samples.statistics(binning, sums, n=sums[:, 0])


def shift(current, baseline, **options):
    frame = multivariate_metrics(statistics(current), statistics(baseline), **options)
    return frame[frame["metric"] == CORRELATION_SHIFT]


def test_correlations_and_fourth_moments_are_numpys():
    z = rows(np.random.default_rng(0), 500)
    moments = joint_moments(joint_sums(z)[None], K)
    x = z / UNIT
    np.testing.assert_allclose(moments.correlation[0], np.corrcoef(x.T), atol=EXACT)
    np.testing.assert_allclose(moments.mean[0], x.mean(axis=0), atol=EXACT)
    np.testing.assert_allclose(moments.variance[0], x.var(axis=0), atol=EXACT)
    raw = (x**4).mean(axis=0) / (x**2).mean(axis=0) ** 2
    np.testing.assert_allclose(moments.kurtosis[0], raw, rtol=EXACT)


def test_noise_is_the_variance_of_the_correlation_over_many_windows():
    rng = np.random.default_rng(2)
    sums = np.stack([joint_sums(rows(rng, 400)) for _ in range(1500)])
    spread = joint_moments(sums, K).correlation.var(axis=0) * 400
    noise = joint_moments(sums.sum(axis=0, keepdims=True), K).noise[0]
    apart = ~np.eye(K, dtype=bool)
    np.testing.assert_allclose(noise[apart], spread[apart], rtol=0.15)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(0, 90), st.integers(1, 5))
def test_sums_do_not_depend_on_order_or_on_how_rows_are_split(seed, cut, k):
    rng = np.random.default_rng(seed)
    z = rows(rng, 90, k=k)
    whole = joint_sums(z)
    assert (whole == joint_sums(rng.permutation(z))).all()
    assert (whole == joint_sums(z[:cut]) + joint_sums(z[cut:])).all()
    merged = merge(statistics([z[:cut], z[cut:]]), ("slice_key",))
    assert (merged.counts[0] == whole).all()


@given(st.lists(st.integers(0, 500), min_size=1, max_size=30))
def test_normal_scores_rise_with_the_bins_and_have_the_baselines_mean_and_spread(counts):
    n = np.array(counts)
    scores = normal_scores(n).astype(float)
    assert (np.diff(scores[n > 0]) >= 0).all()
    assert np.abs(scores).max() <= MOST
    if n.sum() and (n > 0).sum() > 1 and n.max() < 0.9 * n.sum():
        assert abs(scores @ n / n.sum()) <= UNIT / 4


def test_folded_scores_are_uncorrelated_with_the_normal_ones_of_even_bins():
    n = np.full(20, 50)
    assert abs(stats.pearsonr(normal_scores(n), folded_scores(n)).statistic) < EXACT
    assert folded_scores(n)[[0, 19]].min() > folded_scores(n)[[9, 10]].max()


@pytest.mark.parametrize(("windows", "block"), [(1, 1), (20, 1), (20, 10)])
@pytest.mark.parametrize("n", [200, 2000])
def test_unchanged_windows_are_rarely_called(windows, block, n):
    """Also where ten rows share their values, once the baseline's windows show that."""
    rng = np.random.default_rng(3)
    called = []
    for _ in range(8):
        baseline = [rows(rng, 6000 // windows, block=block) for _ in range(windows)]
        current = [rows(rng, n, block=block) for _ in range(25)]
        called.append(shift(current, baseline)["p_value"] <= 0.01)
    assert np.concatenate(called).mean() <= 0.03


def broken(rng, n):
    z = rows(rng, n)
    z[:, 0] = rng.permutation(z[:, 0])
    return z


def test_a_broken_correlation_is_called_named_and_measured():
    rng = np.random.default_rng(6)
    baseline = [rows(rng, 500) for _ in range(20)]
    frame = multivariate_metrics(statistics([broken(rng, 300)]), statistics(baseline))
    found = frame[frame["metric"] == CORRELATION_SHIFT].iloc[0]
    pairs = frame[frame["metric"] == CORRELATION_CHANGE]
    truth = np.abs(np.corrcoef(np.vstack(baseline).T)[0, 1:]).max()
    assert found["p_value"] < 1e-6
    assert found["value"] == pytest.approx(truth, abs=0.25)  # less the noise of the largest
    assert pairs["column_name"].str.contains("f0 x ").all()
    assert len(pairs) == 3


def test_what_is_bent_shows_in_the_folded_score_alone():
    rng = np.random.default_rng(7)

    def scored(bent):
        x, y = rng.normal(size=(2, 500))
        y = (
            np.sort(y)[np.argsort(np.argsort(np.abs(x) + 0.3 * rng.normal(size=500)))]
            if bent
            else y
        )
        columns = [x, y, np.abs(x) - 0.8, np.abs(y) - 0.8]
        return np.clip(np.rint(np.column_stack(columns) * UNIT), -MOST, MOST).astype(np.int8)

    names = ["x", "y", "|x|", "|y|"]
    baseline = statistics([scored(False) for _ in range(20)], names)
    frame = multivariate_metrics(statistics([scored(True)], names), baseline)
    assert frame["p_value"].iloc[0] < 1e-6
    assert frame["column_name"].iloc[1] == "y x |x|"


def test_a_column_that_moved_by_itself_is_left_to_its_own_drift():
    rng = np.random.default_rng(8)
    moved = broken(rng, 1000)
    moved[:, 0] = np.clip(moved[:, 0] + UNIT, -MOST, MOST)
    frame = multivariate_metrics(
        statistics([moved]), statistics([rows(rng, 500) for _ in range(20)])
    )
    assert frame["p_value"].iloc[0] > 0.01
    assert not frame["column_name"].str.contains("f0").any()


def test_few_rows_no_baseline_and_no_pairs_have_reasons():
    rng = np.random.default_rng(9)
    usual = [rows(rng, 400)]
    constant = np.zeros((400, K), np.int8)
    nothing = np.zeros((0, K), np.int8)
    assert shift([rows(rng, 20)], usual)["reason"].item() == "few_rows"
    assert shift(usual, [nothing])["reason"].item() == "no_baseline"
    assert shift(usual, [rows(rng, 20)])["reason"].item() == "few_baseline_rows"
    assert shift([constant], usual)["reason"].item() == "no_pairs"
    assert shift(usual, [constant])["reason"].item() == "no_pairs"
    assert shift([usual[0][:, :1]], [usual[0][:, :1]])["reason"].item() == "no_pairs"


def test_other_scores_refuse_to_be_compared():
    one = statistics([rows(np.random.default_rng(0), 100)])
    two = statistics([rows(np.random.default_rng(0), 100, k=3)])
    other = ColumnStatistics(
        **{**vars(two), "binning": Binning(JOINT, "joint", two.binning.size, "c")}
    )
    with pytest.raises(ValueError, match="differently"):
        multivariate_metrics(one, other)
