"""An assistant of a bank's support and the landing files that its first quarter leaves.

Questions are those of BANKING77 (Casanueva and others, 2020). The calls, what the assistant is
right about and what people, a judge and customers say of it are drawn, and so are the two things
that happen: another judge for a week of February, and from 9 March questions on virtual cards,
which the assistant was never told of.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mlmon_dagster.store.places.location import whole_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ZONE = "Europe/London"
BASELINE = (dt.date(2025, 11, 24), dt.date(2026, 1, 4))
FIRST_DAY, LAST_DAY = dt.date(2026, 1, 5), dt.date(2026, 3, 29)
OTHER_JUDGE = (dt.date(2026, 2, 9), dt.date(2026, 2, 15))
LAUNCH = dt.date(2026, 3, 9)  # of virtual cards
DIRECTIONS = 64

_DATA = Path(__file__).with_name("banking77.parquet")
NEW = (
    "virtual_card_not_working", "getting_virtual_card", "get_disposable_virtual_card",
    "disposable_card_limits",
)  # fmt: skip
_NEW_SHARE = 0.2
_GOOD, _GOOD_NEW = 0.88, 0.25
_JUDGES = {"judge-large/3": (0.93, 0.82), "judge-small/1": (0.97, 0.45)}  # sensitivity, specificity
_PRICE = 15e-6  # USD a token
_LABELS, _THUMBS = 40, 0.15
_CALLS = (520, 540, 530, 525, 510, 260, 230)  # from Monday


@dataclass(frozen=True)
class Support:
    """The questions, and the encoder that turns them into vectors.

    Attributes:
        seed: Of everything that is drawn.
    """

    seed: int = 77

    @cached_property
    def questions(self) -> pd.DataFrame:
        """Every question with its intent."""
        import pandas as pd

        return pd.read_parquet(_DATA)

    @cached_property
    def places(self) -> dict[str, NDArray[np.int64]]:
        """Where the questions of each intent are."""
        import numpy as np

        intents = self.questions["intent"].to_numpy()
        return {name: np.flatnonzero(intents == name) for name in sorted({*intents})}

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """A vector of each question: parts of its words, hashed, in 64 directions (unit length)."""
        import numpy as np
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.preprocessing import normalize

        parts = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**16)
        counted = parts.transform(self.questions["text"])
        reduced = TruncatedSVD(DIRECTIONS, random_state=self.seed).fit_transform(counted)
        return np.asarray(normalize(reduced), np.float32)

    @cached_property
    def weights(self) -> dict[str, float]:
        """How often each intent is asked, but for those of virtual cards."""
        import numpy as np

        names = [n for n in sorted(self.questions["intent"].unique()) if n not in NEW]
        ranks = np.random.default_rng(self.seed).permutation(len(names)) + 1
        drawn = 1 / (ranks + 10.0)
        return dict(zip(names, (drawn / drawn.sum()).tolist(), strict=True))

    def draw_calls(self, day: dt.date) -> pd.DataFrame:
        """Draw a day's calls, with ``is_good``, which nobody knows, and what is logged of each."""
        import numpy as np
        import pandas as pd

        rng = np.random.default_rng([self.seed, day.toordinal()])
        n = int(rng.poisson(_CALLS[day.weekday()]))
        is_new = (rng.random(n) < _NEW_SHARE) & (day >= LAUNCH)
        # What people ask about moves from day to day.
        usual = np.array([*self.weights.values()])
        mixture = rng.dirichlet(400 * usual)
        intents = np.array([*self.weights], object)[rng.choice(len(usual), n, p=mixture)]
        intents[is_new] = rng.choice(np.array(NEW, object), int(is_new.sum()))
        chosen = np.array([rng.choice(self.places[name]) for name in intents], np.int64)
        at = pd.Timestamp(day, tz=ZONE) + pd.to_timedelta(np.sort(rng.beta(4, 4, n)) * 24, unit="h")
        tokens = rng.lognormal(4.6, 0.5, n).round() + 10
        return pd.DataFrame({
            "call": [f"{day:%y%m%d}-{i:04}" for i in range(n)],
            "asked_at": at.tz_convert("UTC"),
            "dataset": "validation" if day < FIRST_DAY else "production",
            "prompt": "2026-01",
            "duration_ms": (250 + 9 * tokens) * rng.lognormal(0, 0.15, n),
            "status": np.where(rng.random(n) < 0.004, "error", "ok"),
            "question": self.questions["text"].to_numpy()[chosen],
            "meaning": list(self.vectors[chosen]),
            "channel": rng.choice(["app", "web", "phone"], n, p=[0.6, 0.3, 0.1]),
            "output_tokens": tokens,
            "cost": tokens * _PRICE,
            "is_good": rng.random(n) < np.where(is_new, _GOOD_NEW, _GOOD),
        })  # fmt: skip

    def draw_evaluations(
        self, day: dt.date, calls: pd.DataFrame, before: pd.DataFrame
    ) -> pd.DataFrame:
        """Draw what comes on a day: a judge's word and thumbs, and people's of the day before.

        People read 40 calls a day, a judge all of them, and some customers press a thumb.

        Args:
            day: The day.
            calls: Those of the day, as `draw_calls` gives them.
            before: Those of the day before.
        """
        import numpy as np
        import pandas as pd

        rng = np.random.default_rng([self.seed, day.toordinal(), 1])
        n, good = len(calls), calls["is_good"].to_numpy()
        judge = "judge-small/1" if OTHER_JUDGE[0] <= day <= OTHER_JUDGE[1] else "judge-large/3"
        sensitivity, specificity = _JUDGES[judge]
        passed = np.where(good, rng.random(n) < sensitivity, rng.random(n) >= specificity)
        score = np.where(passed, rng.integers(4, 6, n), rng.integers(1, 4, n))
        of_judge = calls[["call", "asked_at"]].assign(
            name="faithful", by="judge", value=score.astype(float), evaluator=judge,
            at=calls["asked_at"] + pd.Timedelta(minutes=2),
        )  # fmt: skip
        n_read = _LABELS if day > BASELINE[0] else 0  # nothing was asked on the day before
        read = np.sort(rng.choice(len(before), n_read, replace=False))
        of_people = before.iloc[read][["call", "asked_at"]].assign(
            name="correct", by="human", at=pd.Timestamp(day, tz=ZONE) + pd.Timedelta(hours=17),
            label=np.where(before["is_good"].to_numpy()[read], "correct", "wrong"),
        )  # fmt: skip
        pressed = np.flatnonzero(rng.random(n) < _THUMBS)
        likes = rng.random(len(pressed)) < np.where(good[pressed], 0.9, 0.25)
        of_users = calls.iloc[pressed][["call", "asked_at"]].assign(
            name="helpful", by="user", label=np.where(likes, "up", "down"),
            at=calls["asked_at"].iloc[pressed] + pd.Timedelta(minutes=5),
        )  # fmt: skip
        found = pd.concat([of_judge, of_people, of_users], ignore_index=True)
        return found.drop(columns="asked_at")

    def write_days(self, landing: Path, first: dt.date, last: dt.date) -> None:
        """Write the landing files of some days; what is there already is kept."""
        calls = self.draw_calls(first - dt.timedelta(days=1))
        for i in range((last - first).days + 1):
            day = first + dt.timedelta(days=i)
            before, calls = calls, self.draw_calls(day)
            said = self.draw_evaluations(day, calls, before)
            said["at"] = said["at"].map(lambda moment: moment.isoformat())
            for folder, name in (("calls", f"{day}.parquet"), ("evaluations", f"{day}.jsonl")):
                path = landing / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists():
                    continue
                with whole_file(path) as draft:
                    if folder == "calls":
                        calls.drop(columns="is_good").to_parquet(draft, index=False)
                    else:
                        said.to_json(draft, orient="records", lines=True)
