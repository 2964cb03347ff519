"""Evidently's report of two Parquet files; runs in the peers' environment, see `peer_environment`.

    python benchmarks/evidently_page.py REFERENCE CURRENT HTML

The presets that cover what our page is about: drift of the inputs, a summary of both data sets, and
the quality of a binary classification, each with its tests.
"""

from __future__ import annotations

import sys
import warnings

import pandas as pd

warnings.simplefilter("ignore")

NOT_SHOWN = ["flight_id", "scheduled_departure", "dataset", "model_version", "landed_at"]
CATEGORICAL = ["carrier", "origin", "dest"]
ROLES = ["late", "late_predicted", "p_late"]


def main() -> None:
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.presets import ClassificationPreset, DataDriftPreset, DataSummaryPreset

    reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
    features = [c for c in current if c not in (*NOT_SHOWN, *ROLES)]
    definition = DataDefinition(
        numerical_columns=[c for c in features if c not in CATEGORICAL],
        categorical_columns=CATEGORICAL,
        classification=[
            BinaryClassification(
                target="late", prediction_labels="late_predicted", prediction_probas="p_late",
                pos_label=1,
            )
        ],
    )  # fmt: skip
    sides = [
        Dataset.from_pandas(frame[[*features, *ROLES]], definition)
        for frame in (current, reference)
    ]
    presets = [
        DataDriftPreset(columns=features),
        ClassificationPreset(probas_threshold=0.3),
        DataSummaryPreset(columns=features),
    ]
    Report(presets, include_tests=True).run(*sides).save_html(sys.argv[3])


if __name__ == "__main__":
    main()
