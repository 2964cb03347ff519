"""The layouts of `events` as other people write them: other names, times, ids and truth values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.scaffold.events import N


def cancellations() -> tuple[pa.Table, pa.Table]:
    """Binary, in German: times without an offset, ground truth by day, whole numbers as codes."""
    rng = np.random.default_rng(10)
    times = pd.Series(pd.date_range("2026-03-01", periods=N, freq="10min"))
    chance = rng.beta(2, 5, N).round(3)
    predictions = pd.DataFrame(
        {
            "vorgangsnummer": [f"V-{i:07d}" for i in range(N)],
            "zeitpunkt": times.dt.strftime("%Y-%m-%d %H:%M:%S"),
            "kuendigung_wk": chance,
            "kuendigung_vorhersage": (chance > 0.5).astype(int),
            "tarif": rng.choice(["Basis", "Komfort", "Premium"], N),
            "postleitzahl": rng.choice([10115, 80331, 20095], N),
            "umsatz_eur": rng.lognormal(3, 1, N).round(2),
        }
    )
    known = (times + pd.Timedelta(days=3)).dt.strftime("%Y-%m-%d")
    truth = pd.DataFrame(
        {
            "vorgangsnummer": predictions["vorgangsnummer"],
            "gekuendigt": (rng.uniform(size=N) < chance).astype(int),
            "bekannt_am": known,
        }
    )
    first, second = (pa.Table.from_pandas(f, preserve_index=False) for f in (predictions, truth))
    return first, second


def frauds() -> pa.Table:
    """Binary: times in milliseconds, truth values as text, countries and shops as numbers."""
    rng = np.random.default_rng(11)
    times = pd.date_range("2026-03-01", periods=N, freq="10min", tz="UTC")
    score = rng.beta(1, 6, N)
    frame = pd.DataFrame(
        {
            "txn_ref": np.arange(N) + 77_000_000,
            "ts_ms": times.as_unit("ms").astype("int64"),
            "fraud_score": score,
            "blocked": np.where(score > 0.4, "True", "False"),
            "mcc": rng.choice([5411, 5812, 4829], N),
            "amount": rng.lognormal(3, 1, N),
            "card_present": rng.choice(["true", "false"], N),
            "is_fraud": np.where(rng.uniform(size=N) < score, "True", "False"),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def office_days() -> pa.Table:
    """Binary: a reference and an analysis whose ids repeat, and truth values as 0.0 and 1.0."""
    rng = np.random.default_rng(12)
    score = rng.beta(2, 2, N).round(2)
    frame = pd.DataFrame(
        {
            "id": np.arange(N) % (N // 2),
            "timestamp": pd.date_range("2026-03-01", periods=N, freq="10min").astype(str),
            "distance": rng.gamma(2, 3, N),
            "workday": rng.choice(["Monday", "Tuesday", "Friday"], N),
            "y_pred_proba": score,
            "y_pred": (score > 0.5).astype(float),
            "work_home_actual": (rng.uniform(size=N) < score).astype(float),
            "partition": ["reference"] * (N // 2) + ["analysis"] * (N // 2),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def animals() -> pa.Table:
    """Multiclass: no column is called a probability, decision or truth; a zone in the file."""
    rng = np.random.default_rng(13)
    names = np.array(["Katze", "Hund", "Maus"])
    shares = rng.dirichlet([2, 2, 2], N).round(4)
    decided = shares.argmax(axis=1)
    frame = pd.DataFrame(
        {
            "bild": [f"b{i}" for i in range(N)],
            "aufgenommen": pd.date_range(
                "2026-03-01", periods=N, freq="10min", tz="America/Sao_Paulo"
            ),
            **{f"conf_{name}": shares[:, i] for i, name in enumerate(names)},
            "klasse": names[decided],
            "wahre_klasse": names[np.where(rng.uniform(size=N) < 0.8, decided, 0)],
            "helligkeit": rng.normal(100, 20, N),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def shop_searches() -> pa.Table:
    """Ranking: the group and the place are told by their values alone; times with an offset."""
    rng = np.random.default_rng(14)
    starts = pd.Series(pd.date_range("2026-03-01", periods=N // 8, freq="1h", tz="Europe/Berlin"))
    frame = pd.DataFrame(
        {
            "anfrage_uuid": [f"{i // 8:08x}" for i in range(N)],
            "angezeigt_um": np.repeat(starts.dt.strftime("%Y-%m-%dT%H:%M:%S%z"), 8),
            "slot": np.arange(N) % 8 + 1,
            "artikel": rng.choice([f"SKU{i}" for i in range(50)], N),
            "preis": rng.lognormal(2, 1, N).round(2),
            "clicked": rng.choice([0, 1], N, p=[0.8, 0.2]),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def house_prices() -> pa.Table:
    """Regression: dates as dates and as text, ground truth that is not always there."""
    rng = np.random.default_rng(15)
    times = pd.Series(pd.date_range("2026-01-01", periods=N, freq="20min"))
    price = rng.lognormal(12, 0.4, N)
    is_sold = np.arange(N) % 9 > 0
    closed = (times + pd.Timedelta(days=30)).dt.strftime("%Y-%m-%d")
    frame = pd.DataFrame(
        {
            "listing": np.arange(N) + 1_000_000,
            "listed_date": (times - pd.Timedelta(days=20)).dt.date,
            "valued_on": times,
            "close_date": closed.where(is_sold, None),
            "yr_built": rng.integers(1900, 2024, N),
            "zip_code": rng.choice([98101, 98052, 97201], N),
            "sqft": rng.normal(1800, 300, N),
            "sale_yyyymm": times.dt.year * 100 + times.dt.month,
            "model_price_estimate": price * rng.lognormal(0, 0.1, N),
            "sold_price": np.where(is_sold, price, np.nan),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)
