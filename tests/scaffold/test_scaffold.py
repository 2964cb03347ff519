"""From a sample of events to a first spec."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.scaffold import notes_of
from mlmon_dagster.scaffold.proposal import model_name, propose
from mlmon_dagster.scaffold.roles import Roles, guess_roles, with_labels
from mlmon_dagster.scaffold.sample import facts_of, read_sample, unique_together
from mlmon_dagster.scaffold.spec_text import Files, Scaffold, spec_text
from mlmon_dagster.spec import ModelSpec, parse_model
from mlmon_dagster.spec.baseline import default_baseline
from tests.scaffold.events import N, churn

PLAN = Scaffold(
    model="churn",
    predictions=Files("landing/churn/*.parquet"),
    actuals=Files("landing/churn/*.parquet"),
    start=dt.date(2026, 3, 1),
    end=None,
    zone="Europe/Berlin",
    granularity="day",
    owner="team:growth",
    n_rows=N,
)


def roles_of(table: pa.Table) -> Roles:
    return guess_roles(table, facts_of(table))


def written_for(granularity: str) -> tuple[str, ModelSpec]:
    return written(churn().drop_columns(["dataset"]), replace(PLAN, granularity=granularity))


def written(table: pa.Table, plan: Scaffold = PLAN) -> tuple[str, ModelSpec]:
    text = spec_text(plan, roles_of(table), facts_of(table))
    return text, parse_model(text, "churn.yaml")


@pytest.mark.parametrize(
    ("name", "values", "is_version"),
    [
        ("release", ["2026.1", "2026.2"], True),
        ("modell_version", ["a", "b"], True),
        ("model_tag", ["a", "b"], True),
        ("release", [2009, 2015], False),  # a year, of films maybe
    ],
)
def test_what_a_team_calls_its_models_version_is_no_feature(
    name: str, values: list[object], is_version: bool
) -> None:
    table = churn().append_column(name, pa.array([values[i % 2] for i in range(N)]))

    assert (roles_of(table).found.get("model_version") is not None) == is_version


def test_a_name_without_fitting_values_gets_no_role() -> None:
    table = churn()
    table = table.set_column(table.schema.get_field_index("p_churn"), "p_churn", pa.array(range(N)))

    assert "score" not in roles_of(table).found


def words(table: pa.Table, no: object, yes: object) -> pa.Table:
    for name in ("churn_predicted", "label"):
        said = [yes if value else no for value in table.column(name).to_pylist()]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(said))
    return table


@pytest.mark.parametrize(
    ("no", "yes", "said"),
    [
        ("nein", "ja", ("ja", "nein")),
        ("ok", "Betrug", ("betrug", "ok")),
        ("a", "b", ("b", "a")),
        (2, 1, ("1", "2")),
        (1, 2, ("2", "1")),
        ("no", "yes", ("yes", "no")),
    ],
)
def test_two_words_are_labels_and_the_score_tells_which_is_positive(
    no: object, yes: object, said: tuple[str, str]
) -> None:
    table = words(churn(), no, yes)
    roles = with_labels(roles_of(table), table, facts_of(table))
    text = spec_text(PLAN, roles, facts_of(table))
    spec = parse_model(text, "churn.yaml")

    assert spec.task == "binary_classification"
    assert (spec.columns.score, spec.columns.prediction) == ("p_churn", "churn_predicted")
    assert spec.labels is not None
    assert (spec.labels.positive, spec.labels.negative) == ((said[0],), (said[1],))
    assert "# p_churn is 0." in text


def test_without_a_score_a_word_that_says_so_is_positive_else_the_rarer_one() -> None:
    for no, yes, said in (("stayed", "churned", "churned means"), ("x", "y z", "the rarer one")):
        table = words(churn(), no, yes).drop_columns(["p_churn"])
        rare = pa.array([yes if i % 9 == 0 else no for i in range(N)])
        for name in ("label", "churn_predicted"):
            table = table.set_column(table.schema.get_field_index(name), name, rare)
        labels = with_labels(roles_of(table), table, facts_of(table)).labels
        assert labels is not None
        assert (labels.positive, labels.negative) == ((yes,), (no,))
        assert said in labels.reason


def test_a_feature_that_a_score_happens_to_order_is_no_ground_truth() -> None:
    table = churn().drop_columns(["label"])
    rare = [score > 0.97 for score in table.column("p_churn").to_pylist()]
    found = roles_of(table.append_column("is_vip", pa.array(rare))).found

    assert "actual" not in found
    assert found["prediction"].columns == ("churn_predicted",)


def test_ground_truth_without_a_telling_name_is_known_by_its_gaps() -> None:
    table = churn().drop_columns(["label"])
    known = pa.array([None if i % 9 == 0 else i % 2 for i in range(N)])
    later = [None if i % 9 == 0 else t for i, t in enumerate(table.column("scored_at").to_pylist())]
    table = table.append_column("left", known)
    table = table.append_column("seen", pa.array(later, table.schema.field("scored_at").type))
    found = roles_of(table).found

    assert found["actual"].columns == ("left",)
    assert found["actual_time"].columns == ("seen",)


def test_without_an_id_the_fewest_columns_that_tell_rows_apart_are_taken() -> None:
    table = pa.table(
        {
            "timestamp": [dt.datetime(2026, 3, 1, i // 4, tzinfo=dt.UTC) for i in range(80)],
            "shop": [i % 2 for i in range(80)],
            "till": [i % 4 // 2 for i in range(80)],
            "amount": [1.5] * 80,
        }
    )
    key = roles_of(table).found["prediction_id"].columns

    assert key == ("timestamp", "shop", "till")
    assert unique_together(table, key)


def test_the_spec_loads_and_says_what_was_left_out() -> None:
    text, spec = written(churn())

    assert spec.baseline.dataset == "validation"
    assert set(spec.features) == {"plan", "age", "balance", "contact", "is_new"}
    assert {name: f.type for name, f in spec.features.items()} == {
        "plan": "categorical",
        "age": "numeric",
        "balance": "numeric",
        "contact": "categorical",
        "is_new": "boolean",
    }
    assert spec.features["balance"].nullable
    assert spec.slices == (("is_new",), ("plan",))
    assert "# session: left out: a different value in every row" in text
    assert "# always: left out: always x" in text
    assert "# tags: left out: its type is nested" in text


def test_personal_columns_are_marked_and_their_values_not_written() -> None:
    text, spec = written(churn())

    assert spec.features["contact"].pii
    assert "@example.com" not in text


def test_values_that_few_rows_share_are_not_written() -> None:
    names = pa.array([f"visitor {i % (N // 5)}" for i in range(N)])
    text, _ = written(churn().append_column("visitor", names))

    assert "400 values, not shown, since few rows share one" in text
    assert "visitor 1" not in text


def test_names_and_values_cannot_break_out_of_their_comment_or_key() -> None:
    table = churn()
    bad = pa.array((["x\n  evil: {type: numeric}", "y: z # no", "}"] * N)[:N])
    table = table.append_column("odd", bad)
    table = table.append_column("my: col\n", pa.array(range(N)))
    text, spec = written(table)

    assert "evil" not in yaml.safe_load(text)["features"]
    assert "odd" in spec.features
    assert set(yaml.safe_load(text)) <= set(ModelSpec.model_fields)


def test_a_sample_of_a_large_file_spans_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "big.parquet"
    pq.write_table(pa.table({"i": range(100_000)}), file, row_group_size=1000)
    sample = read_sample([file], max_rows=5000)

    assert sample.n_rows == 100_000
    assert 4000 <= sample.table.num_rows <= 6000
    assert sample.table.column("i")[0].as_py() == 0
    assert sample.table.column("i")[-1].as_py() >= 99_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("x.csv", b"a,b\n", "no rows"),
        ("x.pickle", b"", "expected files of one format"),
        ("x.parquet.gz", b"", "expected files of one format"),
        ("x.csv", "id,city\nr1,Orléans\n".encode("latin-1"), "not UTF-8 in column 'city'"),
        ("x.jsonl", b'{"x": 1}\n{"x": "a"}\n{"x": "\xe4"}\n', "line 3 is not UTF-8"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is no JSON object"),
    ],
)
def test_a_file_that_cannot_be_sampled_is_an_error_that_says_why(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=said):
        read_sample([file])


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst", ".jsonl.gz"])
def test_compressed_files_are_sampled_and_their_glob_names_them(
    tmp_path: Path, ending: str
) -> None:
    file = tmp_path / "landing" / "churn" / f"2026-03-01{ending}"
    file.parent.mkdir(parents=True)
    events = churn().drop_columns(["tags"])
    with pa.output_stream(str(file)) as out:
        if ".csv" in ending:
            pyarrow.csv.write_csv(events, out)
        else:
            lines = events.to_pandas().to_json(orient="records", lines=True, date_format="iso")
            out.write(str(lines).encode())
    at = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
    text = propose(tmp_path, (file,), model_name(file), None, "team:crm", at)
    assert f"path: landing/churn/*{ending}" in text
    assert "model: churn" in text


def test_types_that_arrow_computes_little_with_are_sampled(tmp_path: Path) -> None:
    file = tmp_path / "events.parquet"
    cells = {
        "id": pa.array(["a", "b"]).cast(pa.string_view()),
        "p": pa.array(np.array([0.25, 0.5], dtype=np.float16)),
    }
    pq.write_table(pa.table(cells), file)
    kinds = {f.name: f.kind for f in facts_of(read_sample([file]).table)}
    assert kinds["p"] == "numeric"


def test_a_json_column_of_several_types_is_text_and_stops_nothing(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('\ufeff{"a": 1, "b": 2}\n{"a": "x"}\n\n{"a": [1]}\n', encoding="utf-8")
    table = read_sample([file]).table
    assert table.to_pydict() == {"a": ["1", "x", "[1]"], "b": [2, None, None]}


def write_shifts(folder: Path, weekdays: tuple[int, ...], hours: tuple[int, int]) -> Path:
    """Write six weeks of 100 predictions a day, in Tokyo, on some weekdays and in some hours."""
    rng = np.random.default_rng(5)
    days = [day for day in pd.date_range("2026-03-02", periods=42) if day.weekday() in weekdays]
    minutes = [rng.integers(hours[0] * 60, hours[1] * 60, 100) for _ in days]
    at = [
        day + pd.Timedelta(minutes=int(m))
        for day, own in zip(days, minutes, strict=True)
        for m in own
    ]
    n = len(at)
    events = {
        "request": [f"r{i}" for i in range(n)],
        "scored_at": pd.Series(at).dt.tz_localize("Asia/Tokyo").dt.tz_convert("UTC"),
        "score": rng.random(n), "label": rng.integers(0, 2, n), "age": rng.normal(40, 9, n),
    }  # fmt: skip
    pd.DataFrame(events).to_parquet(folder / "desk.parquet", index=False)
    return folder / "desk.parquet"


@pytest.mark.parametrize(
    ("weekdays", "hours", "said", "granularity"),
    [
        ((0, 1, 2, 3, 4), (8, 18),
         "no events on Saturdays and Sundays, none between 18:00 and 08:00", "day"),
        ((0, 1, 2, 3, 4, 5, 6), (0, 22), "", "day"),
        ((0, 1, 2, 3, 4, 5, 6), (6, 22), "no events between 22:00 and 06:00", "day"),
        ((1,), (0, 24), "events on Tuesdays only", "week"),
        ((0,), (6, 7), "events on Mondays only, all between 06:00 and 07:00", "week"),
    ],
)  # fmt: skip
def test_a_spec_says_when_no_events_were_seen(
    tmp_path: Path, weekdays: tuple[int, ...], hours: tuple[int, int], said: str, granularity: str
) -> None:
    """In its own zone; a job of one day a week has weeks for windows."""
    file = write_shifts(tmp_path, weekdays, hours)
    now = dt.datetime(2026, 4, 14, tzinfo=dt.UTC)
    text = propose(tmp_path, (file,), "desk", "Asia/Tokyo", "team:desk", now)
    assert parse_model(text, "desk").time.granularity == granularity
    line = f"  # {said}; what is usually empty is learnt, and no alert\n"
    assert line in text if said else "usually empty" not in text
    assert ("# holidays: DE-BE  #" in text) == bool(said)


@pytest.mark.parametrize(
    ("granularity", "written"), [("day", "28d"), ("week", "26w"), ("month", "365d")]
)
def test_the_length_of_a_baseline_of_earlier_windows_is_written(
    granularity: str, written: str
) -> None:
    text, spec = written_for(granularity)
    assert f"\nbaseline: {{moving: {written}}}  # no column names a dataset" in text
    assert spec.baseline == default_baseline(has_dataset=False, granularity=granularity)


@pytest.mark.parametrize(("days", "gap"), [(20, 0), (40, 7)])
def test_a_baseline_of_earlier_windows_keeps_a_fault_out_for_a_week_once_there_are_enough(
    tmp_path: Path, days: int, gap: int
) -> None:
    start, n = dt.datetime(2026, 3, 1, tzinfo=dt.UTC), 100 * days
    table = {
        "order_id": [f"o{i}" for i in range(n)],
        "scored_at": [start + i * dt.timedelta(days=days) / n for i in range(n)],
        "basket": [i % 97 / 2 for i in range(n)], "p_return": [i % 89 / 89 for i in range(n)],
        "returned": [i % 2 for i in range(n)],
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "orders.parquet")
    now = start + dt.timedelta(days=days)
    text = propose(tmp_path, (tmp_path / "orders.parquet",), "m", "UTC", "team:m", now)
    baseline = parse_model(text, "m").baseline
    assert (baseline.moving, baseline.gap) == (dt.timedelta(days=28), dt.timedelta(days=gap))
    assert ("is judged once there are 14" in text) == (not gap)


def demand(folder: Path, forecast: str, *, is_near: bool) -> tuple[Path, Path]:
    """Write forecasts of ten days, and their loads: a first half of validation."""
    rng = np.random.default_rng(2)
    hours = [dt.datetime(2026, 3, 1, tzinfo=dt.UTC) + dt.timedelta(hours=h) for h in range(240)]
    load = 400 + 120 * np.sin(np.arange(240) / 24 * 2 * np.pi) + rng.normal(0, 10, 240)
    said = load + rng.normal(0, 20, 240) if is_near else rng.normal(10, 3, 240)
    ids = [f"f{h}" for h in range(240)]
    events = {
        "forecast_id": ids, "made_at": hours, "temperature": rng.normal(10, 3, 240),
        forecast: said.round(1), "split": ["validation"] * 120 + ["production"] * 120,
    }  # fmt: skip
    pq.write_table(pa.table(events), folder / "forecasts.parquet")
    pq.write_table(pa.table({"forecast_id": ids, "load_mw": load}), folder / "loads.parquet")
    return folder / "forecasts.parquet", folder / "loads.parquet"


def test_the_number_that_goes_with_its_truth_in_other_files_is_the_prediction(
    tmp_path: Path,
) -> None:
    files = demand(tmp_path, "mw_ahead", is_near=True)
    text = propose(
        tmp_path, files, "demand", None, "team:grid", dt.datetime(2026, 3, 12, tzinfo=dt.UTC)
    )

    spec = parse_model(text, "demand")
    assert (spec.task, spec.columns.prediction) == ("regression", "mw_ahead")
    assert "of the size of load_mw, and goes with it" in text
    assert "week  # about 24 events a day" in text  # those of validation are no events of a day


def test_where_nothing_goes_with_the_truth_the_columns_to_choose_from_are_named(
    tmp_path: Path,
) -> None:
    files = demand(tmp_path, "mw_ahead", is_near=False)
    with pytest.raises(ConfigError) as caught:
        propose(
            tmp_path, files, "demand", None, "team:grid", dt.datetime(2026, 3, 12, tzinfo=dt.UTC)
        )

    assert "needs columns.prediction" in str(caught.value)
    assert "Not used for anything yet: temperature, mw_ahead." in str(caught.value)


def test_rare_positives_are_watched_by_how_well_they_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    table = churn().drop_columns(["label", "churn_predicted", "plan"])
    late = rng.uniform(size=N) < 0.004
    table = table.append_column("label", pa.array(["fraud" if one else "fine" for one in late]))
    plans = rng.choice(["basic", "plus", None], N, p=[0.4, 0.3, 0.3])
    table = table.append_column("plan", pa.array(list(plans)))
    pq.write_table(table, tmp_path / "events.parquet")
    at = dt.datetime(2026, 3, 18, tzinfo=dt.UTC)
    text = propose(tmp_path, (tmp_path / "events.parquet",), "fraud", None, "team:risk", at)

    spec = parse_model(text, "fraud")
    watched = {m.metric: m for m in spec.monitors.performance}
    assert watched["pr_auc"].change == 0.25
    assert watched["roc_auc"].drop == 0.05
    assert f"# {late.mean():.1%} are positive" in text
    limit = spec.features["plan"].null_rate
    assert limit is not None
    assert limit.above in (0.5, 0.55)  # three in ten are null here, and a fifth more
    assert spec.features["balance"].null_rate is None


def test_what_names_and_values_do_not_tell_is_left_to_a_person(tmp_path: Path) -> None:
    at = dt.datetime(2026, 12, 30, tzinfo=dt.UTC)
    (tmp_path / "2026-10-18.csv").write_text("")
    (tmp_path / "2026-10-19.csv").write_text("customer,scored_at,p,age\n")
    for day in range(20, 31):  # clocks change on the 25th
        times = pd.date_range(f"2026-10-{day}", periods=24, freq="h", tz="Europe/Berlin")
        rows = [f"c{i},{t.isoformat()},{i / 30},{20 + i}" for i, t in enumerate(times)]
        text = "\n".join(["customer,scored_at,p,age", *rows])
        (tmp_path / f"2026-10-{day}.csv").write_text(text)
    (tmp_path / "truth.csv").write_text(
        "customer,churned\n" + "\n".join(f"c{i},{i % 2}" for i in range(24))
    )
    text = propose(tmp_path, tuple(sorted(tmp_path.iterdir())), "churn", None, "team:crm", at)

    spec = parse_model(text, "churn")
    key, zone, ended = notes_of(text)
    assert "have no scored_at, and customer alone is not different in every row" in key
    assert "written at +01:00 and +02:00, as clocks show in Europe/Berlin" in zone
    assert (spec.time.zone, spec.columns.score, spec.time.granularity) == ("UTC", "p", "week")
    assert spec.time.end == dt.date(2026, 11, 2)  # a Monday: the last week counts as well
    assert "the events stop before 2026-11-02" in ended
    assert "refused; delete that line for a model that goes on" in ended
    (tmp_path / "words.csv").write_text("id;p\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"words\.csv is UTF-16\. Write it as UTF-8"):
        read_sample([tmp_path / "words.csv"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*gone\.parquet"):
        read_sample([tmp_path / "gone.parquet"])


def test_columns_named_like_another_ones_shap_values_are_no_features() -> None:
    values = pa.array([i / N for i in range(N)])
    table = churn()
    for name in ("shap_age", "plan_SHAP_value", "shap_nothing", "shap_email"):
        table = table.append_column(name, values)
    text, spec = written(table)

    assert spec.columns.shap == {"plan": "plan_SHAP_value", "age": "shap_age"}
    assert not {"shap_age", "plan_SHAP_value", "shap_email"} & set(spec.features)
    assert "shap_nothing" in spec.features
    assert "SHAP values, by their names" in text


@pytest.mark.parametrize("form", ["lists", "texts", "names"])
def test_several_labels_a_row_and_vectors_are_known_by_their_values(
    form: str, tmp_path: Path
) -> None:
    """As lists or as texts; of single names, one of which has the sign in it, nothing changes."""
    rng = np.random.default_rng(1)
    chosen = [sorted(rng.choice(["billing", "delivery", "other"], n, replace=False))
              for n in rng.integers(1, 3, N)]  # fmt: skip
    truth = [chosen[i] if i % 5 else ["other"] for i in range(N)]
    if form == "names":
        chosen, truth = ([[["n|a", "b", "c"][i % 3]] for i in range(N)] for _ in range(2))
    columns: dict[str, object] = {
        "id": [f"r{i}" for i in range(N)],
        "at": pd.date_range("2026-03-01", periods=N, freq="min", tz="UTC"),
        "meaning": rng.normal(size=(N, 8)).astype(np.float32).tolist(),
        "channel": rng.choice(["chat", "mail"], N).tolist(),
    }
    for name, rows in (("prediction", chosen), ("actual", truth)):
        columns[name] = rows if form == "lists" else ["|".join(labels) for labels in rows]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    text, spec = written(read_sample([path]).table)
    assert "meaning: {type: embedding}  # lists of 8 numbers" in text
    if form == "names":
        assert spec.task == "multiclass_classification"
    else:
        assert spec.task == "multilabel_classification"
        assert " holds several labels, such as " in text
        assert spec.classes == ("billing", "delivery", "other")
