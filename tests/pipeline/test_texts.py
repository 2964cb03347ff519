"""Texts by description: what is computed of them is judged, sliced and shown as any feature."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.profiles.baseline import ensure_baseline
from mlmon_dagster.profiles.storage import load_profiles
from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import ModelSpec, parse_predicate, predicate_columns, window_from_key
from mlmon_dagster.spec.derived import DESCRIPTIONS, LANGUAGE
from mlmon_dagster.spec.files.loader import parse_model
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.tables.rows import rows_of
from tests.pipeline.looking import Place

ROWS = 400
FIRST, DAY = dt.date(2024, 2, 1), dt.date(2024, 3, 1)
NOW = dt.datetime(2024, 3, 2, 6, tzinfo=dt.UTC)
SPEC = """\
model: assistant
task: binary_classification
owners: [team:support]
time: {start: 2024-03-01}
source:
  predictions: {path: landing/predictions/*.parquet, settle: 0s}
columns: {prediction_id: id, event_time: at, score: p, dataset: dataset}
features:
  question:
    type: text
    pii: true
    nullable: true
    describe: [length, words, empty, json, email, {name: order, matches: "ORD-[0-9]+"}, language]
slices: [question.order]
monitors: {drift: {windows: 1 of 1}}
"""
ASKED = [
    "Where is my parcel today?", "How do I reset the password of my account?",
    "The app does not open any more since the last update", "Please cancel the order ORD-4711",
    "What does delivery to Norway cost?", "I was charged twice for the same month",
]  # fmt: skip


def asked(day: dt.date, dataset: str = "production", **more: float) -> pd.DataFrame:
    """Return the questions of a day; of a share of them something is added: ``email=0.03``."""
    rng = np.random.default_rng(day.toordinal())
    texts = [f"{ASKED[i]} {'please ' * rng.poisson(1)}".strip() for i in rng.integers(0, 6, ROWS)]
    added = {
        "email": "Write to jane.doe@example.com.",
        "german": "Wo bleibt meine Bestellung, die ich vor einer Woche bezahlt habe?",
        "longer": "I have told you all of this before, and nobody has answered me since. " * 2,
    }
    for name, share in more.items():
        for i in np.flatnonzero(rng.random(ROWS) < share):
            texts[i] = added[name] if name == "german" else f"{texts[i]} {added[name]}"
    return pd.DataFrame(
        {
            "id": [f"{dataset[:1]}{day:%m%d}-{i}" for i in range(ROWS)],
            "at": pd.Timestamp(day, tz="UTC") + pd.to_timedelta(np.arange(ROWS) * 200, unit="s"),
            "p": rng.random(ROWS),
            "dataset": dataset,
            "question": [None if rng.random() < 0.02 else text for text in texts],
        }
    )


def make_desk(folder: Path, day: pd.DataFrame) -> Place:
    """Return a project with twenty days of baseline and one day of production, computed."""
    desk = Place(folder, SPEC, NOW)
    usual = [asked(FIRST + dt.timedelta(days=n), "validation", email=0.002) for n in range(20)]
    desk.land("predictions", "validation", pd.concat(usual))
    desk.land("predictions", "day", day)
    desk.look()
    return desk


def test_a_usual_day_is_judged_by_every_description_and_nothing_fires(tmp_path: Path) -> None:
    """Rows without a text are told of the text's column alone."""
    desk = make_desk(tmp_path, asked(DAY, email=0.002))
    assert desk.firing() == {}
    names = ["length", "words", "empty", "json", "email", "order", LANGUAGE]
    ids = {f"drift/psi/question.{name}" for name in names}
    found = desk.newest()
    found = found[found["slice_key"] == "all"].set_index("monitor")
    assert ids <= set(found.index)
    assert set(found.loc[sorted(ids), "status"]) <= {"OK", "NO_DATA"}
    assert found.loc["drift/psi/question.length", "status"] == "OK"
    assert found.loc["quality/null_rate/question", "status"] == "OK"
    assert [name for name in found.index if name.startswith("quality/null_rate/")] == [
        "quality/null_rate/question"
    ]


def test_a_rise_of_e_mail_addresses_is_told_with_what_is_usual(tmp_path: Path) -> None:
    said = make_desk(tmp_path, asked(DAY, email=0.05)).firing()
    assert set(said) == {"quality/personal_rate/question.email"}
    assert said["quality/personal_rate/question.email"] == (
        "5.84 % of question hold an e-mail address, usually 0.2 % (n 394), above 1.03 %."
    )


def test_other_languages_and_longer_texts_are_drift_in_words(tmp_path: Path) -> None:
    said = make_desk(tmp_path, asked(DAY, german=0.3, longer=0.3)).firing()
    assert said["drift/psi/question.language"] == (
        "question.language has a value never seen before, de, in 23.8 % of rows."
    )
    assert said["drift/psi/question.length"] == (
        "question.length is at least 104 characters in 31 % of rows, before in 0 %."
    )


def test_a_personal_text_is_on_no_page_and_in_no_row_and_what_it_is_like_is(
    tmp_path: Path,
) -> None:
    desk = make_desk(tmp_path, asked(DAY, email=0.05))
    store, spec = desk.store, desk.spec
    windows = [window_from_key(spec.time, str(DAY))]
    picked = parse_predicate(
        "question.email = true and question.words > 5", predicate_columns(spec)
    )
    found = rows_of(store, spec, windows, picked)
    assert 0 < found.n < 30
    assert set(found.table["question"].to_pylist()) == {"***"}
    assert set(found.table["question.email"].to_pylist()) == {True}
    assert min(found.table["question.words"].to_pylist()) > 5
    page = health_report(store, spec, NOW).html
    assert "question.email" in page
    assert "jane.doe" not in page
    assert "reset the password" not in page


def test_descriptions_are_in_no_table_and_no_file_is_asked_for_them(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, asked(DAY))
    store, spec = desk.store, desk.spec
    stored = store.records("assistant").to_arrow().column_names
    assert "question" in stored
    assert not [name for name in stored if name.startswith("question.")]
    assert "question.length" in store.inference_records(spec).read(limit=1).column_names


def test_an_erased_text_is_in_no_number_of_its_descriptions(tmp_path: Path) -> None:
    """The longest text of the day is one row's, and so is its length."""
    day = asked(DAY)
    day.loc[7, "question"] = "please " * 400
    desk = make_desk(tmp_path, day)
    store, spec = desk.store, desk.spec
    binnings = ensure_baseline(store, spec, NOW).binnings

    def longest() -> float:
        found = load_profiles(store, spec, binnings, start=NOW - dt.timedelta(3))
        return float(np.nanmax(found["question.length"].maximum))

    assert longest() == 2_800
    erase(store, spec, [str(day.loc[7, "id"])], now=NOW)
    desk.look()
    assert longest() < 300


def test_slices_by_a_description_are_profiled(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, asked(DAY))
    store, spec = desk.store, desk.spec
    baseline = ensure_baseline(store, spec, NOW)
    found = load_profiles(
        store,
        spec,
        baseline.binnings,
        columns=["question.length"],
        start=NOW - dt.timedelta(3),
    )["question.length"]
    by_value = dict(zip(found.cells["slice_value"], found.n.tolist(), strict=True))
    assert set(by_value) == {"all", "true", "false", "<null>"}
    assert by_value["<null>"] == 0  # rows without a text have no length
    assert by_value["all"] == by_value["true"] + by_value["false"]
    assert 0.1 < by_value["true"] / by_value["all"] < 0.25


def test_languages_are_told_of_a_sample_that_no_division_of_the_rows_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(DESCRIPTIONS[LANGUAGE], most_rows=100)
    monkeypatch.setitem(DESCRIPTIONS, LANGUAGE, few)
    desk = make_desk(tmp_path, asked(DAY, german=0.3))
    once, twice = desk.profile_twice()
    name = "question.language"
    assert np.array_equal(once[name].counts, twice[name].counts)
    assert 50 <= once[name].n[0] <= 120
    assert once["question.length"].n[0] > 350
    for column in desk.spec.features:
        assert np.array_equal(once[column].counts, twice[column].counts), column


def describe_texts(*texts: str | None) -> pd.DataFrame:
    """Return what each description says of some texts, by its own expression."""
    table = pa.table({"t": pa.array(texts, pa.string())})
    columns = ", ".join(
        f'{kind.sql("t")} AS "{name}"' for name, kind in DESCRIPTIONS.items() if name != LANGUAGE
    )
    with duckdb.connect() as database:
        database.register("texts", table)
        return database.sql(f"SELECT t, {columns} FROM texts").to_df().set_index("t")


def told_of(name: str, *texts: str) -> list[str]:
    """Return the texts that a description is true of."""
    found = describe_texts(*texts)[name]
    return [text for text in texts if found[text]]


def test_lengths_words_and_repetition_are_those_of_plain_python() -> None:
    rng = np.random.default_rng(5)
    letters = ["a", "b", " ", "  ", "\n", "é", "word", "ß", "日本"]
    texts = ["".join(rng.choice(letters, n)) for n in rng.integers(0, 30, 300)]
    found = describe_texts(*dict.fromkeys(texts))
    for text, row in found.iterrows():
        words = str(text).lower().split()
        assert row["length"] == len(str(text))
        assert row["words"] == len(words)
        assert row["empty"] == (not words)
        assert row["repetition"] == pytest.approx(
            1 - len(set(words)) / len(words) if words else 0.0, abs=1e-12
        )
        plain = [char for char in str(text) if ord(char) < 128]
        assert row["non_ascii"] == pytest.approx(
            1 - len(plain) / len(str(text)) if text else 0.0, abs=1e-12
        )


def test_nothing_is_said_of_a_text_that_is_not_there() -> None:
    assert describe_texts(None, "x").iloc[0].isna().all()


@pytest.mark.parametrize(
    ("name", "texts", "others"),
    [
        ("json", ['{"a": [1]}', " [1, 2]"], ["{broken", "5", "true", ""]),
        ("email", ["to bob.b+x@mail.example.co.uk!"], ["bob@home", "@example.com", "a @ b.de"]),
        ("phone", ["+49 30 1234567", "(212) 555-0199", "call 020 7946 0958 now"],
         ["2024-01-02 12:30", "01-02-2024", "order 1234567890", "12.50", "10.0.0.1"]),
        ("card", ["4111 1111 1111 1111", "5500-0000-0000-0004", "3714 496353 98431"],
         ["1234 5678 9012 3456", "41111111111111112222", "4111 1111"]),
        ("iban", ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819"], ["DE89", "ab12cdef"]),
        ("refusal", ["I'm sorry, but no.", "I cannot help with that", "As an AI model, I"],
         ["I can help with that", "Sorry to hear it. It is fixed now."]),
    ],
)  # fmt: skip
def test_what_texts_hold_is_recognised(name: str, texts: list[str], others: list[str]) -> None:
    assert told_of(name, *texts, *others) == texts


LISTED = (
    'describe: [length, words, empty, json, email, {name: order, matches: "ORD-[0-9]+"}, language]'
)


def refused(before: str, after: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse_model(SPEC.replace(before, after))
    return str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (LISTED, "describe: [lenght]", "'lenght' is no description of a text; did you mean 'leng"),
        (LISTED, "describe: [email, email]", "'email' is listed twice"),
        (LISTED, 'describe: [{name: order, matches: "("}]', "'(' is no regular expression: "),
        (LISTED, 'describe: [{name: order, matches: "a(?=b)"}]', "'(?=', which RE2 does not have"),
        (LISTED, 'describe: [{name: email, matches: "x"}]', "'email' is a description of its own"),
        (LISTED, 'describe: [{name: "an order", matches: "x"}]', "'an order' cannot name a column"),
        ("[question.order]", "[question.language]", "is computed for a sample of rows"),
        ("type: text", "type: categorical", "describe is for text, not for categorical features"),
    ],
)
def test_a_wrong_description_is_refused_with_the_way_out(
    before: str, after: str, said: str
) -> None:
    assert said in refused(before, after)


def test_language_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlmon_dagster.spec.derived.find_spec", lambda name: None)
    said = refused(LISTED, "describe: [language]")
    assert "pip install 'mlmon-dagster[language]'" in said


def test_a_known_spec_is_read_back_without_its_derived_columns() -> None:
    spec = parse_model(SPEC)
    again = ModelSpec.model_validate_json(spec.model_dump_json(exclude_unset=True, by_alias=True))
    assert again == spec
    assert list(again.logged_features) == ["question"]
    assert len(again.features) == 8
