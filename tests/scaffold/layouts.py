"""Data sets of six layouts as people have them, by seed: names, types, ids and noise vary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

LAYOUTS = ("two files", "one file", "reference and analysis", "probabilities of classes",
           "ranking", "regression with dates")  # fmt: skip
FIRST = pd.Timestamp("2026-03-01")
N = 1_200
_DAYS = 12

# What a column is, and what people call it, taste by taste.
TASTES: dict[str, dict[str, tuple[str, ...]]] = {
    "snake": {
        "id": ("request_id", "prediction_id", "id", "uuid", "transaction_id"),
        "time": ("timestamp", "event_time", "scored_at", "created_at", "prediction_timestamp"),
        "score": ("score", "churn_probability", "y_pred_proba", "p_churn", "model_score"),
        "decision": ("prediction", "y_pred", "predicted_label", "decision", "predicted_class"),
        "truth": ("actual", "y_true", "label", "target", "ground_truth", "true_label"),
        "number": ("prediction", "predicted_price", "y_pred", "estimate", "predicted_value"),
        "truth_time": ("actual_time", "label_time", "outcome_at", "known_at", "labeled_at"),
        "split": ("period", "split", "partition", "dataset", "subset"),
        "group": ("query_id", "session_id", "search_id"),
        "rank": ("position", "rank", "rank_position"),
        "proba": ("prob_{}", "y_pred_proba_{}", "p_{}", "{}_probability"),
        "amount": ("amount", "balance", "total_charges"), "age": ("age", "tenure"),
        "plan": ("plan", "contract_type", "payment_method"), "member": ("is_member", "has_phone"),
        "year": ("year", "model_year"), "season": ("season", "quarter"),
        "customer": ("customer_id", "user_id"), "text": ("comment", "description"),
        "constant": ("currency", "source_system"), "empty": ("notes", "legacy_code"),
        "date": ("order_date", "booking_date"), "due": ("promised_at", "due_at"),
    },
    "deutsch": {
        "id": ("vorgangsnummer", "auftragsnummer", "kennung", "antrags_id"),
        "time": ("zeitpunkt", "zeitstempel", "bewertet_am", "datum"),
        "score": ("wahrscheinlichkeit", "kuendigung_wk", "punktzahl", "risiko"),
        "decision": ("vorhersage", "prognose", "entscheidung"),
        "truth": ("tatsaechlich", "ergebnis", "gekuendigt", "wahrheit"),
        "number": ("vorhersage", "prognose", "schaetzung"),
        "truth_time": ("bekannt_am", "ergebnis_am", "gemeldet_am"),
        "split": ("zeitraum", "teil", "stichprobe"),
        "group": ("anfrage_id", "sitzung"), "rank": ("position", "rang", "platz"),
        "proba": ("wk_{}", "p_{}", "{}_wk"),
        "amount": ("umsatz", "betrag"), "age": ("alter", "laufzeit"),
        "plan": ("tarif", "zahlungsart"), "member": ("ist_mitglied", "hat_telefon"),
        "year": ("jahr", "baujahr"), "season": ("quartal", "jahreszeit"),
        "customer": ("kunden_id", "kundennummer"), "text": ("bemerkung", "beschreibung"),
        "constant": ("waehrung", "mandant"), "empty": ("notiz", "altcode"),
        "date": ("bestelldatum", "buchungsdatum"), "due": ("zugesagt_am", "faellig_am"),
    },
}  # fmt: skip
TASTES["Camel"] = {
    what: tuple("".join(part.title() if part != "{}" else part for part in name.split("_"))
                for name in names) for what, names in TASTES["snake"].items()
}  # fmt: skip
TASTES["camel"] = {
    what: tuple(name[:1].lower() + name[1:] for name in names)
    for what, names in TASTES["Camel"].items()
}
TASTES["UPPER"] = {
    what: tuple(name.upper() for name in names) for what, names in TASTES["snake"].items()
}
TASTES["With Spaces"] = {
    what: tuple(name.replace("_", " ").title() for name in names)
    for what, names in TASTES["snake"].items()
}
# Tastes that were written after the rules, and whose failures were counted before any was mended.
HELD_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "français": {
        "id": ("identifiant", "numero_dossier"), "time": ("horodatage", "date_heure"),
        "score": ("probabilité", "note_risque"), "decision": ("prédiction", "classe_predite"),
        "truth": ("réel", "resultat"), "number": ("prix_predit", "estimation"),
        "truth_time": ("connu_le", "date_resultat"), "split": ("période", "jeu"),
        "group": ("recherche_id", "session"), "rank": ("rang", "position"),
        "proba": ("proba_{}", "prob_{}"), "amount": ("montant", "solde"),
        "age": ("âge", "anciennete"), "plan": ("forfait", "mode_paiement"),
        "member": ("est_membre", "a_telephone"), "year": ("année", "annee_modele"),
        "season": ("trimestre", "saison"), "customer": ("client_id", "no_client"),
        "text": ("commentaire", "libelle"), "constant": ("devise", "source"),
        "empty": ("remarque", "ancien_code"), "date": ("date_commande", "date_reservation"),
        "due": ("promis_le", "echeance"),
    },
    "warehouse": {
        "id": ("scoring_request_sk", "inference_key"), "time": ("scored_at_utc", "inference_ts"),
        "score": ("mdl_score_val", "churn_propensity"), "decision": ("mdl_decision_cd", "pred_flg"),
        "truth": ("actual_churn_flg", "outcome_cd"), "number": ("mdl_forecast_amt", "pred_val"),
        "truth_time": ("outcome_loaded_at", "actual_dttm"), "split": ("dataset_cd", "sample_cd"),
        "group": ("search_sk", "session_key"), "rank": ("rank_nbr", "pos_nbr"),
        "proba": ("prob_{}_val", "{}_score"), "amount": ("txn_amt", "bal_amt"),
        "age": ("cust_age_nbr", "tenure_mths"), "plan": ("plan_cd", "pay_mthd_cd"),
        "member": ("member_flg", "phone_ind"), "year": ("model_yr", "fiscal_year"),
        "season": ("fiscal_qtr", "season_cd"), "customer": ("cust_sk", "account_key"),
        "text": ("cmnt_txt", "item_desc"), "constant": ("curr_cd", "src_sys_cd"),
        "empty": ("filler_1", "legacy_cd"), "date": ("order_dt", "booking_dt"),
        "due": ("promise_dttm", "due_dttm"),
    },
}  # fmt: skip
LABELS: tuple[tuple[object, object], ...] = (
    (0, 1), (False, True), ("nein", "ja"), ("no", "yes"), ("N", "Y"), ("stayed", "churned"),
    ("false", "true"), (2, 1), (1, 2), ("ok", "fraud"), (0.0, 1.0), ("False", "True"),
)  # fmt: skip
FORMS = ("parquet", "csv", "semicolons", "german", "jsonl")
CLASSES = (("prepaid", "upmarket", "highstreet"), ("Katze", "Hund", "Maus", "Vogel"),
           ("A", "B", "C"), ("0", "1", "2"), ("low risk", "mid risk", "high risk"))  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """Files of a made-up model, and what a person would say of them.

    Attributes:
        name: The layout, the taste and the form.
        predictions: Rows of events.
        actuals: Ground truth in files of its own; None where it is in the same files.
        form: How files are written.
        roles: Role -> column, as a spec has it; `scores` is class -> column.
        task: Of the model.
        positive: What is written for the positive class; "" where that needs no word.
        features: Columns that the model has been given.
        optional: Columns that may be features or not.
    """

    name: str
    layout: str
    predictions: pd.DataFrame
    actuals: pd.DataFrame | None
    form: str
    roles: Mapping[str, object]
    task: str
    positive: str
    features: frozenset[str]
    optional: frozenset[str]

    @property
    def never(self) -> frozenset[str]:
        """Columns that are no features."""
        both = [*self.predictions, *([] if self.actuals is None else self.actuals)]
        return frozenset(both) - self.features - self.optional

    def write(self, folder: Path) -> list[Path]:
        """Write the files, complete, and return where."""
        frames = {"predictions": self.predictions, "actuals": self.actuals}
        return [
            _written(frame, folder / "landing" / "shop" / stream / "all", self.form)
            for stream, frame in frames.items() if frame is not None
        ]  # fmt: skip


def made(seed: int, *, held_out: bool = False) -> DataSet:
    """Make the data set of a seed; six seeds after another have the six layouts.

    Args:
        seed: Of all draws; the layout goes by it, and the taste by its sixth.
        held_out: Whether names are of the tastes that no rule was written for.
    """
    return _Maker(seed, HELD_OUT if held_out else TASTES).made()


class _Maker:
    def __init__(self, seed: int, tastes: Mapping[str, Mapping[str, tuple[str, ...]]]) -> None:
        self.rng = np.random.default_rng(seed)
        self.layout = LAYOUTS[seed % len(LAYOUTS)]
        self.taste = list(tastes)[(seed // len(LAYOUTS)) % len(tastes)]
        self._called = tastes[self.taste]
        self.form = str(self.rng.choice(FORMS))
        self.frame: dict[str, object] = {}
        self.roles: dict[str, object] = {}
        self.features: set[str] = set()
        self.optional: set[str] = set()
        self.positive = ""
        spread = np.sort(self.rng.uniform(0, _DAYS * 86_400, N)).round()
        self.times = pd.Series(FIRST + pd.to_timedelta(spread, unit="s"))
        kinds = ["naive text", "aware text", "local text"]
        if self.form in ("parquet", "jsonl"):
            kinds = ["epoch", "aware text", "naive text"]
        if self.form == "parquet":
            kinds += ["aware", "naive"]
        if self.form == "german":
            kinds = ["local text"]
        self.time_kind = str(self.rng.choice(kinds))

    def name(self, what: str) -> str:
        """Choose what a column is called, once."""
        names = [n for n in self._called[what] if n not in self.frame]
        return str(self.rng.choice(names))

    def moment(self, times: pd.Series, *, clock: bool = True) -> object:
        """Write times as the data set does."""
        kind = self.time_kind
        if kind == "epoch":
            return (times.astype("int64") // 10**3).where(times.notna())
        if kind == "aware":
            return times.dt.tz_localize("UTC")
        if kind == "naive":
            return times
        if kind == "local text":
            day = "%d.%m.%Y" if self.form == "german" or self.taste == "deutsch" else "%d/%m/%Y"
            return times.dt.strftime(f"{day} %H:%M" if clock else day)
        offset = "+00:00" if kind == "aware text" else ""
        text = times.dt.strftime("%Y-%m-%d %H:%M:%S" if clock or offset else "%Y-%m-%d")
        return text + offset

    def put(self, what: str, values: object, role: str = "") -> str:
        """Add a column, which has a role or else is a feature, and return its name."""
        name = self.name(what)
        self.frame[name] = values
        if role:
            self.roles[role] = name
        else:
            self.features.add(name)
        return name

    def ids(self) -> None:
        """Add an id of some kind."""
        kind = self.rng.choice(["number", "text", "hex", "shuffled"])
        numbers = np.arange(N) + int(self.rng.integers(1, 10**6))
        values: object = numbers
        if kind == "text":
            values = [f"V-{i:07d}" for i in numbers]
        if kind == "hex":
            values = [f"{int(i) * 2654435761 % 2**48:012x}" for i in numbers]
        if kind == "shuffled":
            values = self.rng.permutation(numbers)
        self.put("id", values, "prediction_id")

    def when(self) -> None:
        """Add the time of the event."""
        self.put("time", self.moment(self.times), "event_time")

    def inputs(self) -> None:
        """Add features and noise."""
        rng = self.rng
        self.put("amount", rng.lognormal(3, 1, N).round(2))
        self.put("age", rng.integers(18, 90, N))
        self.put("plan", rng.choice(["basic", "plus", "pro"], N))
        if rng.random() < 0.5:
            self.put("member", rng.random(N) < 0.3)
        noise = [w for w in ("year", "season", "customer", "text", "constant", "empty", "date")
                 if rng.random() < 0.4]  # fmt: skip
        for what in noise:
            values = {
                "year": lambda: self.times.dt.year,
                "season": lambda: (self.times.dt.month - 1) // 3 + 1,
                "customer": lambda: rng.integers(10_000, 10_000 + N // 3, N),
                "text": lambda: [f"note {i} of {rng.integers(10**6)} and more" for i in range(N)],
                "constant": lambda: ["EUR"] * N,
                "empty": lambda: [None] * N,
                "date": lambda: self.times.dt.year * 10_000 + self.times.dt.month * 100
                + self.times.dt.day,
            }[what]()  # fmt: skip
            name = self.put(what, values)
            self.features.discard(name)
            if what == "season":
                self.optional.add(name)

    def label(self, truth: np.ndarray, words: tuple[object, object]) -> object:
        """Write labels in words."""
        return pd.Series([words[int(value)] for value in truth])

    def words(self) -> tuple[object, object]:
        """Choose how labels are written."""
        found = LABELS[int(self.rng.integers(len(LABELS)))]
        says = {str(word).lower().removesuffix(".0") for word in found}
        if not says <= {"0", "1", "true", "false"}:
            self.positive = str(found[1]).lower()
        return found

    def known(self, values: object, into: dict[str, object]) -> None:
        """Add ground truth and when it was known to a table."""
        truth, later = self.name("truth"), self.name("truth_time")
        into[truth] = values
        self.roles["actual"] = truth
        if into is not self.frame or self.rng.random() < 0.5:
            at = self.times + pd.Timedelta(days=2)
            if into is self.frame:
                is_known = pd.Series(self.rng.random(N) < 0.9)
                at = at.where(is_known)
                into[truth] = pd.Series(into[truth]).where(is_known)
            into[later] = self.moment(at, clock=bool(self.rng.random() < 0.5))
            self.roles["actual_time"] = later

    def binary(self, into: dict[str, object] | None = None) -> None:
        """Add a score, maybe a decision, and ground truth."""
        words = self.words()
        score = self.rng.beta(1.2, 3, N).round(4)
        self.put("score", score, "score")
        if self.rng.random() < 0.6:
            decided = score > float(self.rng.choice([0.3, 0.5]))
            self.put("decision", self.label(decided, words), "prediction")
        truth = self.rng.random(N) < score
        self.known(self.label(truth, words), self.frame if into is None else into)

    def made(self) -> DataSet:
        """Make the data set."""
        task = "binary_classification"
        truth: dict[str, object] | None = None
        if self.layout == "ranking":
            task = "ranking"
            self.ranking()
        else:
            self.ids()
            self.when()
            self.inputs()
        if self.layout in ("one file", "reference and analysis"):
            self.binary()
        if self.layout == "two files":
            name = str(self.roles["prediction_id"])
            truth = {name: self.frame[name]}
            self.binary(truth)
        if self.layout == "reference and analysis":
            half = N // 2
            name = self.put("split", ["reference"] * half + ["analysis"] * (N - half), "dataset")
            self.features.discard(name)
        if self.layout == "probabilities of classes":
            task = "multiclass_classification"
            self.multiclass()
        if self.layout == "regression with dates":
            task = "regression"
            self.regression()
        frame = pd.DataFrame(self.frame)
        if self.rng.random() < 0.4:
            frame = frame[[str(c) for c in self.rng.permutation(frame.columns)]]
        name = f"{self.layout}, {self.taste}, {self.form}, {self.time_kind}"
        return DataSet(
            name, self.layout, frame, None if truth is None else pd.DataFrame(truth), self.form,
            self.roles, task, self.positive, frozenset(self.features), frozenset(self.optional),
        )  # fmt: skip

    def ranking(self) -> None:
        """Add results within searches, and how relevant they were."""
        size = int(self.rng.choice([5, 8, 10]))
        n = N // size
        starts = self.times.iloc[::size].iloc[:n]
        self.times = pd.Series(np.repeat(starts.to_numpy(), size))
        rows = n * size
        groups = np.repeat(self.rng.permutation(n) + 1_000, size)
        is_text = self.rng.random() < 0.5
        has_id = self.rng.random() < 0.5
        if has_id:
            self.put("id", [f"i{i:06d}" for i in range(rows)], "prediction_id")
        self.put("group", [f"q{i:05d}" for i in groups] if is_text else groups, "group")
        self.when()
        self.put("rank", np.tile(np.arange(size) + 1, n), "rank")
        self.put("amount", self.rng.lognormal(3, 1, rows).round(2))
        self.put("plan", self.rng.choice([f"SKU{i}" for i in range(30)], rows))
        name = str(self.rng.choice(("relevance", "clicked", "relevanz")))
        most = 2 if name == "clicked" else 3
        self.frame[name] = self.rng.integers(0, most, rows)
        self.roles["actual"] = name

    def multiclass(self) -> None:
        """Add a probability for each class, a decision and ground truth."""
        classes = CLASSES[int(self.rng.integers(len(CLASSES)))]
        shares = self.rng.dirichlet([2.0] * len(classes), N).round(4)
        pattern = str(self.rng.choice(self._called["proba"]))
        scores = {}
        for i, label in enumerate(classes):
            said = label.replace(" ", "_")
            if "amel" in self.taste:
                said = "".join(part[:1].upper() + part[1:] for part in label.split())
            name = pattern.format(said)
            self.frame[name] = shares[:, i]
            scores[label] = name
        self.roles["scores"] = scores
        best = shares.argmax(axis=1)
        names = np.array(classes)
        self.put("decision", names[best], "prediction")
        self.known(names[np.where(self.rng.random(N) < 0.75, best, 0)], self.frame)

    def regression(self) -> None:
        """Add a number, what it was to be, and a time that was promised."""
        predicted = self.rng.gamma(4, 10, N)
        value = predicted + self.rng.normal(0, 4, N)
        self.put("due", self.moment(self.times + pd.Timedelta(days=5)))
        self.put("number", predicted.round(2), "prediction")
        self.known(value.round(2), self.frame)


def _written(frame: pd.DataFrame, path: Path, form: str) -> Path:
    path.parent.mkdir(parents=True)
    if form == "parquet":
        frame.to_parquet(path := path.with_suffix(".parquet"), index=False)
    elif form == "jsonl":
        path = path.with_suffix(".jsonl")
        rows = json.loads(frame.to_json(orient="records", date_format="iso"))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = path.with_suffix(".csv")
        is_german = form == "german"
        frame.to_csv(path, index=False, sep="," if form == "csv" else ";",
                     decimal="," if is_german else ".")  # fmt: skip
    path.with_name(f"{path.name}.done").touch()
    return path
