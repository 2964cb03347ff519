"""A spec file is right, or every one of its problems is told with its line."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import (
    ModelSpec,
    load_model,
    load_models,
    parse_model,
    read_models,
    spec_from_mapping,
)
from tests.spec.specs import YAML, mapping

REPOSITORY = Path(__file__).parents[2]
LATER = dt.datetime(2034, 1, 1, tzinfo=dt.UTC)
TOKEN = "-".join(["xoxb", "123456789012", "abcDEF"])


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_model(text, "m.yaml")
    lines = str(caught.value).split("\n")
    assert all(line.startswith("m.yaml:") for line in lines)
    return [line.removeprefix("m.yaml:") for line in lines]


def test_yaml_and_plain_values_give_the_same_spec() -> None:
    loaded = parse_model(YAML)

    slices = ["plan", "member", ["plan", "member"], "model_version"]
    assert loaded == ModelSpec.model_validate(mapping(slices=slices))
    assert loaded.slices == (("plan",), ("member",), ("plan", "member"), ("model_version",))
    assert hash(loaded.time) == hash(loaded.time.model_copy())


def test_a_spec_survives_json_and_goes_through_a_component() -> None:
    loaded = parse_model(YAML)

    assert ModelSpec.model_validate_json(loaded.model_dump_json(exclude_unset=True)) == loaded
    assert spec_from_mapping(loaded.model_dump(mode="json", exclude_unset=True)) == loaded


def test_every_shipped_model_loads() -> None:
    models = load_models(REPOSITORY / "models")

    assert "flight_delay" in [spec.model for spec in models]


def test_all_problems_are_told_at_once_each_on_its_line() -> None:
    text = (
        YAML.replace("team:growth", "growth")
        .replace("Europe/Berlin", "Europe/Berln")
        .replace("comment: {type: text}", "comment: {type: txt}\n  comment: {type: text}")
        .replace("member: {type: boolean}", "member: {type: boolean, nulable: true}")
        .replace("split", "'split\\x27'")
        + "monitors:\n  drift: {above: x, windows: 3 of 2}\n  quality: {null_rate: {above: 20}}\n"
    )

    found = problems(text)

    assert found == [
        "3: owners.0: 'growth' is not an owner: write an e-mail address or team:<name>; "
        "did you mean team:growth?",
        "4: time.zone: 'Europe/Berln' is not a time zone; did you mean 'Europe/Berlin'?",
        "18: features.member.nulable: unknown key; did you mean 'nullable'? "
        "Known keys: type, from, alias, min, max, unit, nullable, null_rate, pii, describe, "
        "embedder, prices, importance, description",
        "22: features.comment.type: 'txt' is not one of 'numeric', 'categorical', 'boolean', "
        "'datetime', 'text' or 'embedding'; did you mean 'text'?",
        "23: features: the key 'comment' is already on line 22",
        "26: monitors.drift.above: expected a number, found 'x'",
        "26: monitors.drift.windows: '3 of 2' is not a window count; write for instance '2 of 3' "
        "(of at most 30)",
        "27: monitors.quality.null_rate: a rate is between 0 and 1, not 20; write 5 % as 0.05",
    ]


def test_unknown_keys_do_not_hide_what_does_not_fit_together() -> None:
    text = YAML.replace("[plan, member,", "[plam, member,").replace(
        "team:growth]", "growth]\nnotes: none"
    )

    assert [" ".join(line.split(" ")[:2]) for line in problems(text)] == [
        "3: owners.0:",
        "4: notes:",
        "24: slices.0:",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("churn\ntask", "no\ntask", "1: model: expected text, found False. YAML reads no as true"),
        ("team:growth", "12:30:00", "3: owners.0"),
        ("{zone: Europe/Berlin", "{zone: off", "4: time.zone: expected text, found False. YAML"),
        ("2024-01-01", "2024-02-30", "4: time.start: '2024-02-30' is not a date that exists"),
        ("2024-01-01", "2024-01-01 10:00:00", "4: time.start: "),
        ("2024-01-01", "yesterday", "4: time.start: 'yesterday' is not a date"),
        ("max: 130", "max: 012", "19: features.age.max: YAML reads 012 as another number"),
        ("max: 130", "max: 1:30", "19: features.age.max: YAML reads 1:30 as another number"),
        ("max: 130", "max: .inf", "19: features.age.max: should be a finite number, found inf"),
        ("max: 130", "max: .nan", "19: features.age.max: should be a finite number, found nan"),
        ("max: 130", "max: '130'", "19: features.age.max: expected a number, found '130'"),
        ("max: 130", "max: yes", "19: features.age.max: expected a number, found True. YAML reads"),
        ("max: 130", "max: -1", "19: features.age: min 0 is greater than max -1"),
        ("nullable: true", "nullable: 1", "19: features.age.nullable: expected true or false, fou"),
        ("nullable: true", "nullable: 'yes'", "19: features.age.nullable: expected true or false"),
        ("  plan: ", "  on: ", "17: features: YAML reads the key 'on' as true or false; write it"),
        ("  plan: ", "  1: ", "17: features: YAML reads the key '1' as a number; write it in"),
        ("  plan: ", "  ? [a, b]\n  : ", "17: features: a key must be text, not a list"),
        ("max: 130", "max: 1e3", "19: features.age.max: expected a number, found '1e3'. Write"),
        ("score: p_churn", "score:", None),
        ("owners: [team:growth]", "owners: team:growth", "3: owners: expected a list, found 'tea"),
        ("owners: [team:growth]", "owners: []", "3: owners: at least one owner is needed"),
        ("owners: [team:growth]", "", "1: owners: is required"),
        ("time: {zone: Europe/Berlin, start: 2024-01-01}", "time:", "4: time: expected a mapping"),
        ("task: binary", "task: &a binary", "2: the anchor &a is not allowed"),
        ("model: churn", "model: *x", "1: model: the alias *x is not allowed"),
        (
            "model: churn",
            "model: !!python/name:os.system x",
            "1: the tag !!python/name:os.system is not",
        ),
        ("model: churn", "model: !!str churn", "1: the tag !!str is not allowed"),
        ("model: churn", "<<: {a: 1}\nmodel: churn", "1: the merge key << is not allowed"),
        ("model: churn", "model: churn\nmodel: churn", "2: the key 'model' is already on line 1"),
        ("model: churn", "--- \nmodel: churn\n---\nmodel: churn", "3: a second document starts"),
        ("model: churn", "\tmodel: churn", "1: a tab cannot indent YAML"),
        ("model: churn", "model: [churn", "2: not valid YAML"),
        ("model: churn", "model: %churn", "1: not valid YAML"),
        ("model: churn", "model: \x00", "1: the character U+0000 is not allowed"),
        ("model: churn", "model: 'a\\nb'", "1: model: "),
    ],
)
def test_traps_of_yaml_are_explained_where_they_are(
    old: str, new: str, expected: str | None
) -> None:
    assert old in YAML
    text = YAML.replace(old, new, 1)

    if expected is None:
        assert parse_model(text).columns.score is None
        return
    assert any(line.startswith(expected) for line in problems(text))


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        TOKEN.replace("xoxb", "xoxp"),
        "postgresql://mlmon:hunter2@db.example.com/mlmon",
        "https://" + "hooks.slack.com/services/T0/B0/XXXX",
        "AKIA" + "A" * 16,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
    ids=["bot", "user", "database", "webhook", "aws", "key"],
)
@pytest.mark.parametrize(
    "place",
    [
        'alerts: {{slack: {{channel: "{0}"}}}}',
        'description: "{0}"',
        "# {0}",
        '"{0}": 1',
        'actuals: {{expected_within: "{0}"}}',
        'alerts: ["{0}"',
    ],
)
def test_a_secret_is_refused_and_not_repeated(secret: str, place: str) -> None:
    found = problems(YAML + place.format(secret) + "\n")

    assert any(line.startswith("24: this looks like a secret") for line in found)
    assert not any("hunter2" in line or secret in line for line in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("- a\n- b\n", "1: a spec is a mapping"),
        ("just text", "1: a spec is a mapping"),
        ("{}", "1: model: is required"),
        ("[" * 5000, "1: not valid YAML: nested more than 40 levels deep"),
        ("a: " + "{b: " * 5000, "1: not valid YAML: nested more than 40 levels deep"),
        ("a: &a [x]\n" + "b: [" + "*a, " * 9 + "]", "2: b.0: the alias *a is not allowed"),
        ("a: " + "9" * 5000, "is not a number that exists"),
        ("a: !!binary x", "1: the tag"),
        ("model: " + "x" * 1_000_001, "more than 1,000,000 bytes"),
        ("'" + "a: b", "not valid YAML"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_spec_at_all_is_one_clear_error(text: str, message: str) -> None:
    assert any(message in line for line in problems(text))


BITS = ["model", "task", ":", ": ", "\n", "  ", "- ", "{", "}", "[", "]", "&a", "*a", "<<", "!!int",
        "null", "no", "012", "1e400", "2024-01-01", "'", '"', "#", "features", "slices", "\t",
        "monitors", "drift", "above", "~", "?", "|", ">", "%", "---", "churn", "time",
        "\\x1b"]  # fmt: skip


@given(text=st.text(max_size=200) | st.lists(st.sampled_from(BITS), max_size=30).map("".join))
@example("\ud800")
@example("a: 2024-99-99T99:99:99Z")
@example("? &a\n: *a")
@example("a: 0x_")
@example("a: 0b2")
@example("features: {x: {type: numeric, max: " + "9" * 400 + "}}")
@example("a: 1_:0")
@example("model: !<tag:yaml.org,2002:timestamp> x")
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_spec_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_model(text)

    assert all(
        line.isprintable() and line.startswith("<text>:") for line in str(caught.value).split("\n")
    )


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_spec_is_a_spec_or_a_config_error(data: st.DataObject) -> None:
    text = YAML
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 12))
        text = text[:start] + data.draw(st.sampled_from(["", *BITS])) + text[start + length :]
    try:
        loaded: object = parse_model(text)
    except ConfigError:
        loaded = None
    assert loaded is None or isinstance(loaded, ModelSpec)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_value_in_any_place_is_accepted_or_a_config_error(data: st.DataObject) -> None:
    values = mapping(monitors={"drift": {}, "performance": [{"drop": 0.1}], "quality": {}})
    key = data.draw(st.sampled_from(sorted(ModelSpec.model_fields)))
    value = data.draw(JSON)
    if isinstance(values.get(key), dict) and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(sorted(values[key])))
        values[key][inner] = value
    else:
        values[key] = value
    try:
        loaded: object = spec_from_mapping(values, "defs.yaml")
    except ConfigError as error:
        loaded = str(error)
    assert isinstance(loaded, ModelSpec | str)


def test_a_mappings_problems_name_their_place() -> None:
    with pytest.raises(ConfigError, match=r"^defs\.yaml: owners: expected a list, found 'x'$"):
        spec_from_mapping(mapping(owners="x"), "defs.yaml")


def test_an_empty_or_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \*\.yaml file"):
        load_models(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        load_models(tmp_path / "models")


def test_models_come_sorted_from_yaml_and_yml(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(YAML)
    (tmp_path / "b.yaml").write_text(YAML.replace("model: churn", "model: abandon"))
    (tmp_path / "notes.txt").write_text("not a spec")

    assert [spec.model for spec in load_models(tmp_path)] == ["abandon", "churn"]


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + YAML.replace("\n", "\r\n").encode())

    assert load_model(path) == parse_model(YAML)


def test_a_file_of_more_than_a_megabyte_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAML + "#" * 1_000_000)

    with pytest.raises(ConfigError, match="more than 1,000,000 bytes"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"model: caf\xe9\n", "not UTF-8"),
        (b"model: [", "not valid YAML"),
        (b"- a\n- b\n", "a spec is a mapping"),
        (YAML.replace("score:", "scor:").encode(), "columns.scor: unknown key"),
        (YAML.encode(), "model 'churn' is already in"),
        (
            YAML.replace("model: churn", "model: old")
            .replace("time: {", "time: {granularity: hour, ")
            .encode(),
            "hourly windows since",
        ),
        (None, "cannot be read"),
        ("folder", "is not a file"),
        ("dangling", "is not a file"),
        ("pipe", "is not a file"),  # and does not make us wait
    ],
)
def test_a_file_that_does_not_load_stops_no_other(
    tmp_path: Path, content: bytes | str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "churn.yaml").write_text(YAML)
    bad = tmp_path / "bad.yaml"
    if content == "folder":
        bad.mkdir()
    elif content == "pipe":
        os.mkfifo(bad)
    elif content == "dangling":
        bad.symlink_to(tmp_path / "gone")
    else:
        bad.write_bytes(content if isinstance(content, bytes) else b"model: x")
    if content is None:
        really = Path.open

        def refuse(path: Path, *args: object, **more: object) -> object:
            if path == bad:
                raise PermissionError(13, "Permission denied")
            return really(path, *args, **more)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", refuse)

    models = read_models(tmp_path, LATER)

    assert [spec.model for spec in models.specs] == ["churn"]
    [broken] = models.broken
    assert broken.path == bad
    assert said in broken.summary()
    assert broken.problems.startswith(f"{bad}:")
    assert broken.name not in ("churn", "")


def test_of_two_files_of_one_model_the_one_named_after_it_counts(tmp_path: Path) -> None:
    (tmp_path / "a_copy.yaml").write_text(YAML.replace("owners: [", "owners: [team:copy, "))
    (tmp_path / "churn.yaml").write_text(YAML)

    models = read_models(tmp_path, LATER)

    assert models.specs == (parse_model(YAML),)
    assert [(b.name, b.path.name) for b in models.broken] == [("a_copy", "a_copy.yaml")]
    (tmp_path / "churn.yaml").unlink()
    assert models.again(LATER).specs[0].owners[0] == "team:copy"
    assert models.again(LATER).broken == ()
    (tmp_path / "a_copy.yaml").unlink()
    assert models.again(LATER).specs == ()


def test_broken_files_have_names_that_dagster_takes_and_that_differ(tmp_path: Path) -> None:
    for name in ("b d!", "b_d_", "mlmon", "ü"):
        (tmp_path / f"{name}.yaml").write_text("model: [")
    (tmp_path / "other.yaml").write_text(YAML.replace("score:", "scor:"))

    names = [broken.name for broken in read_models(tmp_path, LATER).broken]

    assert len(set(names)) == 5
    assert "churn" in names  # what the file says it is
    assert all(re.fullmatch("[A-Za-z0-9_]+", name) for name in names)
    assert "mlmon" not in names
