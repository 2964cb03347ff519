"""The files of baselines in a bucket behave as those in a folder do."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, baselines

NOW = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)


def test_a_baseline_in_a_bucket_is_written_read_tidied_and_missed(remote: Store) -> None:
    for payload in ('{"binnings": [1]}', '{"binnings": ["Wien"]}'):
        baselines.save_baseline(remote, "credit", "a", "dataset", payload, NOW, dataset="v")
    stored = baselines.load_newest(remote.state, "credit")
    assert stored is not None
    assert baselines.read_payload(remote, stored) == '{"binnings": ["Wien"]}'

    assert len((remote.root / "baselines" / "credit").below()) == 2
    assert len(baselines.tidy_files(remote, "credit")) == 1
    assert baselines.redact_names(remote, "credit", ["v"], ["Wien"]) == 1
    stored = baselines.load_newest(remote.state, "credit")
    assert stored is not None
    assert baselines.read_payload(remote, stored) == '{"binnings": ["[erased]"]}'
    [name] = (remote.root / "baselines" / "credit").below()

    (remote.root / "baselines" / "credit" / name).delete()
    with pytest.raises(StoreError, match=rf"s3://.*{name}: there is none"):
        baselines.read_payload(remote, stored)
