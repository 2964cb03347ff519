"""The world outside: who applies for a loan on a day, and who does not pay it back."""

import datetime as dt

import dagster as dg
import numpy as np
import pandas as pd

FEATURES = ["income", "debt_share", "age"]


class Bank(dg.ConfigurableResource):
    """A bank's customers.

    Attributes:
        shock: The day from which debts mean the opposite of what they meant; "" for never. This
            is the drift of the example: no column looks different, and the model is wrong.
        applications: How many there are a day.
    """

    shock: str = "2024-05-06"
    applications: int = 400

    def customers(self, day: dt.date) -> pd.DataFrame:
        """Return the applications of a day, with what became of them; always the same ones."""
        rng = np.random.default_rng(day.toordinal())
        n = self.applications
        income = rng.lognormal(1.2, 0.4, n)
        debt_share = rng.beta(2, 4, n)
        age = rng.uniform(20, 70, n)
        is_after = bool(self.shock) and day >= dt.date.fromisoformat(self.shock)
        weight = -8 if is_after else 8
        logit = weight * (debt_share - 0.33) - 0.4 * (income - 3.5)
        hours = pd.to_timedelta(np.sort(rng.uniform(0, 24, n)), unit="h")
        applied_at = pd.Timestamp(day, tz="UTC") + hours
        return pd.DataFrame(
            {
                "application": [f"{day:%m%d}-{i}" for i in range(n)],
                "applied_at": applied_at,
                "income": income,
                "debt_share": debt_share,
                "age": age,
                "defaulted": (rng.uniform(size=n) < 1 / (1 + np.exp(-logit))).astype(int),
                "known_at": applied_at.normalize() + pd.Timedelta(hours=26),
            }
        )
