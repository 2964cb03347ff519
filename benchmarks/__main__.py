"""Every benchmark, one table each: `python -m benchmarks`, a quarter of an hour.

`python -m benchmarks calibrate` runs one of them, here how often intervals hold the truth;
`calibrate drift` counts false alarms of drift, `calibrate versions` equal versions that are called
different, `calibrate rectified` how often intervals hold where labels are a chosen subset,
`clusters` those of periods that are compared, and `multivariate` what sees which change
of the joint distribution. `living` counts the incidents of healthy years and the faults noticed in
them, `label_worlds` those of worlds whose ground truth comes late, `levels` those of calibration
and bias. `alerts FOLDER` lives the history of a made project day by day, `drill_claims` puts the
drill's faults into raw files, `erase` counts what erasing ids reads, `daemon` times the way from a
user's asset to its metrics. `estimate_matrix` compares estimates on scores with ties with the
better of two methods. `trace` measures what traces and searches cost, `trace_claims` what they say
where nothing changed and whether they find what did, `effect` how often the interval of what
latency costs holds it, `effect_beside` holds it against doubleml, `outcomes` counts how often
intervals of outcomes with heavy tails hold.
Only by name run `thousand`, a project of a thousand models, `state`, what a sample takes in the
state database and how long its readers take, `peers`, the same work beside other tools, which it
first installs in their environment, `page`, our page beside Evidently's report in a browser, and
`power`, which changes both see.
`memory` runs days of up to ten million rows, `engines` counts as many on Ray and on Spark, with one
worker and with two, by name only.
Each runs in a process of its own, so that the peak memory of one is not the other's.
"""

from __future__ import annotations

import subprocess
import sys

RUNS = (
    ("benchmarks.profile_vs_scan", "--rows", "1_000_000"),
    ("benchmarks.profile_vs_scan", "--rows", "10_000_000", "--repeats", "3"),
    ("benchmarks.drift",),
    ("benchmarks.window",),
    ("benchmarks.trace",),
    ("benchmarks.ingest", "--files", "10"),
    ("benchmarks.daily",),
    ("benchmarks.backfill", "--sample", "8"),
    ("benchmarks.logger",),
    ("benchmarks.collect", "--seconds", "20"),
    ("benchmarks.collect", "--seconds", "20", "--kill"),
)


def main() -> int:
    """Run all, also after one that failed, or the one that is named; return how many failed."""
    named = sys.argv[1:]
    if named[:1] == ["calibrate"] and named[1:2] in (["drift"], ["versions"], ["rectified"]):
        named[:2] = [f"calibrate_{named[1]}"]
    runs = ((f"benchmarks.{named[0]}", *named[1:]),) if named else RUNS
    return sum(
        subprocess.run([sys.executable, "-m", *run], check=False).returncode != 0 for run in runs
    )


if __name__ == "__main__":
    sys.exit(main())
