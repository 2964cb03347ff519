"""A topic is read offset by offset, from librdkafka's own cluster: each message once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest import IngestReport, readers
from mlmon_dagster.ingest.sources import kafka
from mlmon_dagster.ingest.sources.kafka import check_source
from mlmon_dagster.ingest.sources.polling import Surroundings
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import KafkaSource
from mlmon_dagster.store import Store
from mlmon_dagster.store.sources import load_cursor, save_cursor
from tests.ingest.landing import NOW, credit_spec, dying_at, ingest, letters_of
from tests.ingest.sql_world import ids_of

VARIABLE = "KAFKA_CONFIG"
COLUMNS = {
    "prediction_id": "id", "event_time": "at", "score": "out.score", "prediction": "decision",
    "actual": "defaulted", "actual_time": "known_at",
}  # fmt: skip


def kafka_spec(**changes: Any) -> ModelSpec:
    source = {"kafka": "scores", "config_env": VARIABLE, **changes}
    features = {"age": {"type": "numeric", "nullable": True}, "region": {"type": "categorical"}}
    return credit_spec(source__predictions=source, columns=COLUMNS, features=features)


SPEC = kafka_spec()


@dataclass
class Cluster:
    """A cluster in this process that speaks Kafka's protocol over real sockets."""

    producer: Producer
    servers: str

    def send(self, *ids: str, partition: int = 0, **changed: Any) -> None:
        for name in ids:
            event = {
                "id": name, "at": "2024-02-01T08:00:00Z", "out": {"score": 0.5}, "decision": 1,
                "age": 30, "region": "north", **changed,
            }  # fmt: skip
            self.raw(json.dumps(event, indent=1).encode(), partition)
        assert self.producer.flush(10) == 0

    def raw(self, value: bytes | None, partition: int = 0) -> None:
        self.producer.produce("scores", value, partition=partition)

    def committed(self, *partitions: int) -> list[int]:
        asked = Consumer({"bootstrap.servers": self.servers, "group.id": "mlmon"})
        found = asked.committed([TopicPartition("scores", n) for n in partitions], timeout=10)
        asked.close()
        return [place.offset for place in found]

    def poll(self, store: Store, project: Path, spec: ModelSpec = SPEC) -> IngestReport:
        return ingest(store, spec, project, readers=readers({VARIABLE: self.servers}.get))


def make_cluster() -> Cluster:
    quiet = {"bootstrap.servers": "ignored:1", "test.mock.num.brokers": 1, "log_level": 0}
    producer = Producer(quiet)
    brokers = producer.list_topics(timeout=10).brokers.values()
    return Cluster(producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers))


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


def test_every_message_of_every_partition_is_read_once(
    store: Store, project: Path, cluster: Cluster
) -> None:
    cluster.send("a", "b")
    cluster.send("c", partition=3)
    first = cluster.poll(store, project)
    assert ids_of(store, SPEC) == ["a", "b", "c"]
    assert cluster.poll(store, project).files == ()

    cluster.send("d")
    second = cluster.poll(store, project)

    assert ids_of(store, SPEC) == ["a", "b", "c", "d"]
    names = [file.path for report in (first, second) for file in report.files]
    assert names == [
        f"kafka:scores/{n}.jsonl" for n in ("0/0-1/1", "3/0-0/2", "0/2-2/1")
    ]  # partition, offsets, number of the batch


def test_offsets_are_committed_only_when_everything_before_them_is_in_the_log(
    store: Store, project: Path, cluster: Cluster
) -> None:
    cluster.send("a", "b")
    with dying_at("ingest.staged"):
        cluster.poll(store, project)
    assert cluster.committed(0)[0] < 0  # read and noted, and not in the log yet
    cluster.poll(store, project)
    assert ids_of(store, SPEC) == ["a", "b"]
    cluster.poll(store, project)
    assert cluster.committed(0) == [2]


def test_what_is_no_event_goes_to_the_dead_letter_and_stops_nothing(
    store: Store, project: Path, cluster: Cluster
) -> None:
    cluster.send(*(f"p{n}" for n in range(5)))
    cluster.raw(b"no JSON")
    cluster.raw(None)  # a tombstone
    cluster.send("last")

    [file] = cluster.poll(store, project).files

    assert (file.n_new, file.n_bad) == (6, 1)
    assert "last" in ids_of(store, SPEC)
    assert {letter["row_number"] for letter in letters_of(store, SPEC)} == {"5"}


def test_a_look_reads_so_many_batches_and_the_next_one_reads_on(
    store: Store, project: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "MOST_BATCHES", 2)
    spec = kafka_spec(batch_rows=2)
    cluster.send(*"abcde")

    counts = [[file.n_new for file in cluster.poll(store, project, spec).files] for _ in range(3)]

    assert counts == [[2, 2], [1], []]


def test_what_is_wrong_with_a_topic_is_said(project: Path, store: Store, cluster: Cluster) -> None:
    source = SPEC.source.predictions
    assert isinstance(source, KafkaSource)

    def check(variables: dict[str, str]) -> str:
        return check_source(SPEC, "predictions", source, Surroundings(project, variables.get))

    with pytest.raises(ConfigError, match="KAFKA_CONFIG is not set"):
        check({})
    with pytest.raises(ConfigError, match="KAFKA_CONFIG is no JSON object"):
        check({VARIABLE: '{"sasl.password": '})
    wrong = json.dumps({"bootstrap.servers": cluster.servers, "securty.protocol": "secret"})
    with pytest.raises(ConfigError, match=r"securty\.protocol") as raised:
        check({VARIABLE: wrong})
    assert "secret" not in str(raised.value)
    cluster.send("a")
    assert check({VARIABLE: cluster.servers}) == (
        "topic scores (servers of KAFKA_CONFIG), 4 partitions, 1 messages kept"
    )


def told(report: IngestReport) -> str:
    return " ".join(file.message for file in report.files if file.status == "skipped")


@pytest.mark.parametrize("n_new", [1, 2, 5])
def test_a_topic_that_was_made_anew_is_read_from_its_beginning_and_told(
    store: Store, project: Path, cluster: Cluster, n_new: int
) -> None:
    cluster.send("a", "b")
    cluster.poll(store, project)
    cluster.send("never read")
    other = make_cluster()  # behind the same variable
    names = [f"n{i}" for i in range(n_new)]
    other.send(*names)

    report = other.poll(store, project)

    assert ids_of(store, SPEC) == ["a", "b", *names]
    assert "partition 0 is not the one that was read up to offset 2" in told(report)
    assert "lost, an unknown number" in told(report)
    assert told(other.poll(store, project)) == ""


def test_offsets_that_the_topic_dropped_before_they_were_read_are_counted(
    store: Store, project: Path, cluster: Cluster
) -> None:
    cluster.send("a")
    cluster.poll(store, project)
    for i in range(9):  # the cluster keeps 5 MB of a partition
        cluster.send(f"n{i}", unused="x" * 900_000)

    report = cluster.poll(store, project)

    kept = len(ids_of(store, SPEC)) - 1
    assert 0 < kept < 9
    assert f"{9 - kept} offsets of partition 0, 1 to {9 - kept}, are lost" in told(report)


def test_partitions_that_come_and_go_are_read_and_told(
    store: Store, project: Path, cluster: Cluster
) -> None:
    cluster.send("a")
    cluster.send("b", partition=3)
    cluster.poll(store, project)
    cluster.poll(store, project)
    cursor = load_cursor(store.state, SPEC.model, "predictions")
    offsets = {**cursor.position["offsets"], "7": 12}  # a partition that was there
    del offsets["3"]  # and one that was not
    with store.state.begin() as conn:
        position = {**cursor.position, "offsets": offsets}
        save_cursor(conn, SPEC.model, "predictions", position, NOW)
    cluster.send("c", partition=3)

    report = cluster.poll(store, project)

    assert ids_of(store, SPEC) == ["a", "b", "c"]
    assert "partition 7 is no longer there: messages after offset 12 are lost" in told(report)
