"""Topics of users in Kafka: new messages become batches, one partition each; see `polling`.

Where a reader stands is noted in the state database together with what was read, so a message is
taken once however a process dies. The consumer group's offsets in Kafka follow: they are committed
once everything before them is in the log, for whoever watches the lag there.

An offset says little by itself: a topic that was made anew counts from 0 again, and may have passed
it. So the last message that was read is noted too, by a hash, and compared at its offset.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.sources.polling import (
    Batch,
    Polled,
    Surroundings,
    needed,
    poll,
    stage_lines,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import KafkaSource, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.sources import Position

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message


_SECONDS = 10.0  # for an answer of the servers
_AT_ONCE = 10_000
Offsets = Mapping[int, int]  # partition -> offset of the next message
Marks = Mapping[int, tuple[int, str]]  # partition -> offset of the last message, and its hash


@dataclass(frozen=True)
class Range:
    """Messages of a partition that are to be read: from the first offset up to the end."""

    partition: int
    first: int
    end: int


@dataclass(frozen=True)
class Taken:
    """A message: its offset, value, and a hash of value and time. A tombstone has no value."""

    offset: int
    value: bytes | None
    mark: str


@dataclass(frozen=True)
class News:
    """What came to a topic.

    Attributes:
        ranges: What is to be read, one a partition.
        renewed: Partitions that are not the ones that were read before.
        notice: What a person has to know of messages that are gone; "" if nothing.
    """

    ranges: list[Range] = field(default_factory=list)
    renewed: frozenset[int] = frozenset()
    notice: str = ""


@dataclass(frozen=True)
class Topic:
    """A topic, opened for reading."""

    name: str
    label: str
    consumer: Consumer

    def find_new(self, offsets: Offsets, marks: Marks) -> News:
        """Return what came since some offsets, and what is to be told of messages that are gone.

        Args:
            offsets: Of the next message of each partition; a partition without is read from its
                beginning.
            marks: The last message that was read of each partition.
        """
        from confluent_kafka import KafkaException, TopicPartition

        found, renewed, gone = list[Range](), set[int](), list[str]()
        try:
            partitions = self.consumer.list_topics(self.name, timeout=_SECONDS).topics[self.name]
            if partitions.error is not None:
                raise ConfigError(f"{self.label} cannot be read: {partitions.error.str()}.")
            for number in sorted(partitions.partitions):
                low, high = self.consumer.get_watermark_offsets(
                    TopicPartition(self.name, number), timeout=_SECONDS
                )
                first = offsets.get(number, 0 if offsets else low)
                if self._is_renewed(number, first, low, high, marks):
                    renewed.add(number)
                    gone.append(
                        f"partition {number} is not the one that was read up to offset {first}: "
                        "the topic was created again. It is read from its beginning; messages of "
                        "the former one that had not been read are lost, an unknown number"
                    )
                    first = 0
                if first < low:
                    gone.append(
                        f"{low - first:,} offsets of partition {number}, {first} to {low - 1}, "
                        "are lost: the topic kept them for less time than they waited. Read more "
                        "often, or let it keep them for longer (retention.ms, retention.bytes)"
                    )
                    first = low
                found.append(Range(number, first, high))
        except KafkaException as error:
            raise self._failed(error) from error
        gone += [
            f"partition {number} is no longer there: messages after offset {offsets[number]} are "
            "lost, an unknown number"
            for number in sorted(set(offsets) - set(partitions.partitions))
        ]
        return News(found, frozenset(renewed), "; ".join(gone) + "." if gone else "")

    def _is_renewed(self, number: int, first: int, low: int, high: int, marks: Marks) -> bool:
        if first > high:
            return True
        offset, mark = marks.get(number, (-1, ""))
        if not low <= offset < high:  # it is gone by age, so nothing is known
            return False
        there = self.messages(Range(number, offset, offset + 1), 1)
        return bool(there) and there[0].mark != mark  # a compacted topic may have dropped it

    def messages(self, wanted: Range, most: int) -> list[Taken]:
        """Return messages of a partition, at most so many.

        Raises:
            StoreError: If they do not come.
        """
        from confluent_kafka import KafkaException, TopicPartition

        found = list[Taken]()
        reached, patience = wanted.first, time.monotonic() + _SECONDS
        try:
            self.consumer.assign([TopicPartition(self.name, wanted.partition, wanted.first)])
            while reached < wanted.end and len(found) < most:
                # More than there are would be waited for.
                at_once = min(most - len(found), wanted.end - reached, _AT_ONCE)
                for message in self.consumer.consume(at_once, timeout=1):
                    reached = self._take(message, wanted, found)
                    patience = time.monotonic() + _SECONDS
                # Marks of transactions have offsets, and are no messages: the position passes them.
                [place] = self.consumer.position([TopicPartition(self.name, wanted.partition)])
                reached = max(reached, place.offset)
                if time.monotonic() > patience:
                    raise StoreError(f"{self.label}: no message within {_SECONDS:.0f} s.")
        except KafkaException as error:
            raise self._failed(error) from error
        return found

    def _take(self, message: Message, wanted: Range, found: list[Taken]) -> int:
        if (error := message.error()) is not None:
            raise StoreError(f"{self.label} cannot be read: {error.str()}.")
        offset, value = message.offset(), message.value()
        assert offset is not None
        if offset < wanted.end:
            content = value.encode() if isinstance(value, str) else value
            _, milliseconds = message.timestamp()
            hashed = b"%d " % milliseconds + (content or b"")
            mark = hashlib.blake2b(hashed, digest_size=12).hexdigest()
            found.append(Taken(offset, content, mark))
        return offset + 1

    def commit(self, offsets: Offsets) -> str:
        """Commit offsets of the group; return why that failed, "" if it did not.

        Only who watches the lag in Kafka goes by them.
        """
        from confluent_kafka import KafkaException, TopicPartition

        places = [TopicPartition(self.name, number, offset) for number, offset in offsets.items()]
        try:
            if places:
                self.consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            return f"offsets could not be committed: {error.args[0].str()}."
        return ""

    def _failed(self, error: Exception) -> StoreError:
        said = error.args[0].str() if error.args else str(error)
        return StoreError(f"{self.label} cannot be read: {said}.")


@contextmanager
def open_topic(name: str, label: str, config: str, variable: str, group: str) -> Iterator[Topic]:
    """Open a topic.

    Args:
        name: The topic's name.
        label: What people call the source.
        config: Servers, such as ``a:9092,b:9092``, or librdkafka's properties as a JSON object.
        variable: The environment variable that holds them.
        group: The consumer group whose offsets are committed.

    Raises:
        ConfigError: If the configuration is wrong, or the package is missing.
    """
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError as error:
        raise ConfigError(
            f"{label} needs the package confluent-kafka: pip install 'mlmon-dagster[kafka]'."
        ) from error
    try:
        consumer = Consumer(_properties(config, variable, group))
    except KafkaException as error:
        # What it says names the property, never its value.
        raise ConfigError(f"{variable} is refused: {error.args[0].str()}.") from error
    try:
        yield Topic(name, label, consumer)
    finally:
        consumer.close()


def _properties(config: str, variable: str, group: str) -> dict[str, object]:
    properties: dict[str, object] = {"bootstrap.servers": config}
    if config.lstrip().startswith("{"):
        try:
            properties = dict(json.loads(config))
        except ValueError as error:
            raise ConfigError(
                f"{variable} is no JSON object; expected servers such as a:9092,b:9092, or "
                "librdkafka's properties as an object."
            ) from error
    fixed = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
    }
    # What is asked for is there: a request that waits for more would only hold up the next one.
    usual = {"isolation.level": "read_committed", "fetch.wait.max.ms": 10}
    return {**usual, **properties, **fixed}


MOST_BATCHES = 20  # of a look; the next one reads on


def poll_source(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: KafkaSource,
    around: Surroundings,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage the new messages of a topic, and note them; commit what was noted before."""

    def read(position: Position, folder: Path) -> Polled:
        config = _config(source, around)
        name, variable = source.kafka, source.config_env
        with open_topic(name, source.label, config, variable, source.group) as topic:
            # Everything before the position that a look begins with is in the log.
            offsets = {int(number): at for number, at in position.get("offsets", {}).items()}
            stored = position.get("marks", {}).items()
            marks = {int(number): (int(at), str(mark)) for number, (at, mark) in stored}
            told = [topic.commit(offsets)]
            news = topic.find_new(offsets, marks)
            told.append(news.notice)
            marks = {n: mark for n, mark in marks.items() if n not in news.renewed}
            offsets = {wanted.partition: wanted.first for wanted in news.ranges}
            batches: list[Batch] = []
            for wanted in news.ranges:
                while (first := offsets[wanted.partition]) < wanted.end:
                    if len(batches) >= MOST_BATCHES:
                        break
                    rest = replace(wanted, first=first)
                    found = topic.messages(rest, source.batch_rows)
                    after = found[-1].offset + 1 if len(found) == source.batch_rows else wanted.end
                    offsets[wanted.partition] = after
                    if found:
                        marks[wanted.partition] = found[-1].offset, found[-1].mark
                    lines = [_line(one.value) for one in found if one.value is not None]
                    if lines:  # a tombstone holds no event
                        label = f"{wanted.partition}/{first}-{after - 1}"
                        batches.append(stage_lines(folder, lines, label))
        position_after = {
            "offsets": {str(number): at for number, at in offsets.items()},
            "marks": {str(n): list(marks[n]) for n in sorted(marks) if n in offsets},
        }
        return Polled(position_after, batches, " ".join(filter(None, told)))

    identity = f"{source.config_env}/{source.kafka}"
    return poll(store, spec, stream, source.label, identity, f"kafka:{source.kafka}", read, now)


def check_source(
    _spec: ModelSpec, _stream: Stream, source: KafkaSource, around: Surroundings
) -> str:
    """Connect to the servers of a source and look its topic up.

    Raises:
        ConfigError: If the variable or the topic is wrong.
        StoreError: If the servers cannot be reached.
    """
    config = _config(source, around)
    variable = source.config_env
    with open_topic(source.kafka, source.label, config, variable, source.group) as topic:
        ranges = topic.find_new({}, {}).ranges
    waiting = sum(wanted.end - wanted.first for wanted in ranges)
    return f"{source.label}, {len(ranges)} partitions, {waiting} messages kept"


def _line(message: bytes) -> bytes:
    """Write a message as a line of JSON; one that is no object becomes a row that is refused."""
    try:
        is_object = isinstance(json.loads(message), dict)
    except ValueError:
        is_object = False
    if is_object:
        # In an object a line end is white space, or would not be JSON.
        return message.replace(b"\n", b" ").replace(b"\r", b" ")
    return json.dumps({"message": message.decode("utf-8", "replace")}).encode()


def _config(source: KafkaSource, around: Surroundings) -> str:
    return needed(around.variables, source.config_env, f"the servers of the topic {source.kafka}")
