"""New messages of a topic become batches, one partition each; see `polling`."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from mlmon_dagster.ingest.polling import Batch, Polled, Variables, needed, poll, stage_lines
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import KafkaSource, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.kafka_source import open_topic
from mlmon_dagster.store.sources import Position

MOST_BATCHES = 20  # of a look; the next one reads on


def poll_topic(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: KafkaSource,
    variables: Variables,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage the new messages of a topic, and note them; commit what was noted before."""

    def read(position: Position, folder: Path) -> Polled:
        config = _config(source, variables)
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
                    rest = type(wanted)(wanted.partition, first, wanted.end)
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


def check_topic(source: KafkaSource, variables: Variables) -> str:
    """Connect to the servers of a source and look its topic up.

    Raises:
        ConfigError: If the variable or the topic is wrong.
        StoreError: If the servers cannot be reached.
    """
    config = _config(source, variables)
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


def _config(source: KafkaSource, variables: Variables) -> str:
    return needed(variables, source.config_env, f"the servers of the topic {source.kafka}")
