"""Evaluations over OpenTelemetry's protocol, from a request's bytes to lines of landing files.

`python -m benchmarks evaluations`: requests of 2,000 log records each, JSON and protobuf, as
`mlmon collect` reads them; CPU seconds are those of this process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.table import Goal, Row, show
from mlmon_dagster.collect.otlp import JSON, PROTOBUF
from mlmon_dagster.store import open_store
from tests.push.collecting import running
from tests.push.otlp import as_json
from tests.push.test_evaluations import assistant, logs_of

LEAST = 30_000  # evaluations a CPU second
IN_A_REQUEST = 2_000


def measure(requests: int) -> dict[str, float]:
    """Return form -> evaluations a CPU second, the median of the requests."""
    request = logs_of([
        {
            "gen_ai.evaluation.name": "faithful", "gen_ai.evaluation.score.value": 4.5,
            "gen_ai.evaluation.score.label": "supported", "judge.version": "judge/7",
            "gen_ai.evaluation.explanation": "Each sentence of the answer is in the document. " * 3,
        }
        for _ in range(IN_A_REQUEST)
    ])  # fmt: skip
    bodies = {"protobuf": (PROTOBUF, request.SerializeToString()), "JSON": (JSON, as_json(request))}
    found = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        with running(open_store(folder / "store"), folder, spec=assistant()) as collector:
            taker = collector.app._spans
            assert taker is not None
            for form, (media_type, body) in bodies.items():
                seconds = []
                for _ in range(requests):
                    begin = time.thread_time()
                    taken = taker.read("logs", media_type, body)
                    seconds.append(time.thread_time() - begin)
                    assert taken.n_rows == IN_A_REQUEST
                found[form] = IN_A_REQUEST / statistics.median(seconds)
    return found


def main() -> int:
    """Print the rates; return 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20)
    rates = measure(parser.parse_args().requests)
    rows = [
        Row(form, (f"{rate:,.0f}",), Goal(rate, LEAST, is_least=True))
        for form, rate in rates.items()
    ]
    table = ("Evaluations", ["a CPU second"], rows)
    return int(show([table], seed=0) > 0)


if __name__ == "__main__":
    sys.exit(main())
