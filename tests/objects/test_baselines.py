"""The files of baselines in a bucket behave as those in a folder do."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store
from mlmon_dagster.store.baselines import baseline_files, fitted_baselines

NOW = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)


def test_a_baseline_in_a_bucket_is_written_read_tidied_and_missed(remote: Store) -> None:
    for payload in ('{"binnings": [1]}', '{"binnings": ["Wien"]}'):
        fitted_baselines.save(remote, "credit", "a", "dataset", payload, NOW, dataset="v")
    stored = fitted_baselines.newest(remote.state, "credit")
    assert stored is not None
    assert fitted_baselines.payload_of(remote, stored) == '{"binnings": ["Wien"]}'

    assert len((remote.root / "baselines" / "credit").below()) == 2
    assert len(baseline_files.tidy(remote, "credit")) == 1
    assert baseline_files.redact(remote, "credit", ["v"], ["Wien"]) == 1
    stored = fitted_baselines.newest(remote.state, "credit")
    assert stored is not None
    assert fitted_baselines.payload_of(remote, stored) == '{"binnings": ["[erased]"]}'
    [name] = (remote.root / "baselines" / "credit").below()

    (remote.root / "baselines" / "credit" / name).delete()
    with pytest.raises(StoreError, match=rf"s3://.*{name}: there is none"):
        fitted_baselines.payload_of(remote, stored)
