"""Twelve causes, each of which several monitors may see: one thread and one mention each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.orders import CAUSES, live_cause, make_healthy

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after some weeks without an incident."""
    folder = tmp_path_factory.mktemp("orders")
    assert make_healthy(folder) == []
    return folder


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_is_one_thread_with_one_mention(cause: str, healthy: Path, tmp_path: Path) -> None:
    orders = live_cause(cause, healthy, tmp_path / "orders")

    messages = orders.messages()
    heads = [message for message in messages if not message["head_key"]]
    assert [message["kind"] for message in heads] == ["opened"]
    news = [message for message in messages if message["kind"] != "repeated"]
    assert [bool(message["mentions"]) for message in news] == [True] + [False] * (len(news) - 1)
    assert news[-1]["kind"] == "resolved"
