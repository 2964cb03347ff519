"""A registered model of MLflow: which version an alias names, and what that was trained on.

By the REST API, version 2.0, see https://mlflow.org/docs/latest/api_reference/rest-api.html;
nothing of MLflow is imported. What was found is kept in the state database.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import sqlalchemy as sa
from pydantic import AliasPath, BaseModel, Field, ValidationError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.names import url_problem
from mlmon_dagster.store.bounded_http import NoRedirect, open_within
from mlmon_dagster.store.clocks import select_past
from mlmon_dagster.store.state.model_history import note_event
from mlmon_dagster.store.state.schema import registry_state
from mlmon_dagster.store.state.sql import fetch_row, insert_or_ignore, upsert

TIMEOUT_SECONDS = 3.0
LONGEST_VALUE = 500  # of a tag; MLflow takes 5,000, and people read it in a table
_TRAINING = "training"  # what MLflow calls the context of such a data set
_MOST_BYTES = 4_000_000
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"


class RegistryAwayError(StoreError):
    """The registry did not answer: whoever asks it next would wait as long."""


class Version(BaseModel):
    """A version of the registered model.

    Attributes:
        number: As MLflow counts. run_id, run_name, experiment_id: The run that made it, if known.
        datasets: Name and digest of what the run logged as training data, else as any input.
        created_at: When it was registered.
    """

    number: str
    created_at: dt.datetime
    run_id: str = ""
    run_name: str = ""
    experiment_id: str = ""
    datasets: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """Say where it comes from, in a few words; empty if that is not known."""
        names = ", ".join(f"{name} (digest {digest})" for name, digest in self.datasets)
        trained = f"trained on {names}" if names else "no training data set logged"
        return f"run {self.run_name or self.run_id}, {trained}" if self.run_id else ""


class _Alias(BaseModel):
    alias: str
    version: str


class _Registered(BaseModel):
    aliases: tuple[_Alias, ...] = Field(
        (), validation_alias=AliasPath("registered_model", "aliases")
    )
    name: str = Field(validation_alias=AliasPath("registered_model", "name"))


class _ModelVersion(BaseModel):
    version: str = Field(validation_alias=AliasPath("model_version", "version"))
    created: int = Field(validation_alias=AliasPath("model_version", "creation_timestamp"))
    run_id: str = Field("", validation_alias=AliasPath("model_version", "run_id"))


class _Tag(BaseModel):
    key: str
    value: str


class _Input(BaseModel):
    name: str = Field(validation_alias=AliasPath("dataset", "name"))
    digest: str = Field(validation_alias=AliasPath("dataset", "digest"))
    tags: tuple[_Tag, ...] = ()

    @property
    def is_training(self) -> bool:
        return any(t.key == "mlflow.data.context" and t.value == _TRAINING for t in self.tags)


class _Run(BaseModel):
    name: str = Field("", validation_alias=AliasPath("run", "info", "run_name"))
    experiment_id: str = Field(validation_alias=AliasPath("run", "info", "experiment_id"))
    inputs: tuple[_Input, ...] = Field(
        (), validation_alias=AliasPath("run", "inputs", "dataset_inputs")
    )


class _Nothing(BaseModel):
    pass


class _Error(BaseModel):
    error_code: str = ""
    message: str = ""


_Answer = TypeVar("_Answer", bound=BaseModel)


class _NotThere(Exception):
    """MLflow knows nothing of that name."""


@dataclass(frozen=True)
class MlflowRegistry:
    """An MLflow server.

    Attributes:
        url: Its address, without user and password and without ``/api``.
        authorization: The header that is sent along; empty for none.
        timeout_seconds: How long to wait for an answer.
    """

    url: str
    authorization: str = field(default="", repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS

    @classmethod
    def at(cls, url: str, token: str | None) -> Self:
        """Open the server at an address, which may hold a user and a password.

        Raises:
            StoreError: If it is no web address.
        """
        problem = url_problem(url)
        parts = urllib.parse.urlsplit(url) if problem is None else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            said = problem or "an address starts with http:// or https://"
            raise StoreError(f"MLflow cannot be asked: of its address, {said}.")
        authorization = f"Bearer {token}" if token else ""
        if parts.username and not token:
            user, password = (
                urllib.parse.unquote(p or "") for p in (parts.username, parts.password)
            )
            authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        clean = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        return cls(clean.geturl().rstrip("/"), authorization)

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version, of all aliases of a registered model; one request.

        Raises:
            StoreError: If it does not answer, refuses, or knows no such model.
        """
        try:
            found = self._ask("registered-models/get", {"name": name}, _Registered)
        except _NotThere as error:
            raise StoreError(
                f"MLflow at {self.url} has no registered model {name!r}; see registry.mlflow."
            ) from error
        return {one.alias: one.version for one in found.aliases}

    def version(self, name: str, number: str) -> Version | None:
        """Return a version with its run and data sets; None if there is none of that number.

        Raises:
            StoreError: If it does not answer, or refuses.
        """
        asked = {"name": name, "version": number}
        try:
            found = self._ask("model-versions/get", asked, _ModelVersion)
        except _NotThere:
            return None
        created = dt.datetime.fromtimestamp(found.created / 1000, dt.UTC)
        version = Version(number=found.version, created_at=created, run_id=found.run_id)
        if not found.run_id:
            return version
        try:
            run = self._ask("runs/get", {"run_id": found.run_id}, _Run)
        except _NotThere:  # it was deleted
            return version
        shown = [one for one in run.inputs if one.is_training] or run.inputs
        datasets = tuple((one.name, one.digest) for one in shown)
        update = {"run_name": run.name, "experiment_id": run.experiment_id, "datasets": datasets}
        return version.model_copy(update=update)

    def tag(self, name: str, number: str, tags: Mapping[str, str]) -> None:
        """Write tags onto a version; those that are there are overwritten.

        Raises:
            StoreError: If it does not answer, refuses, or knows no such version.
        """
        for key, value in tags.items():
            told = {"name": name, "version": number, "key": key, "value": value[:LONGEST_VALUE]}
            try:
                self._ask("model-versions/set-tag", told, _Nothing, method="POST")
            except _NotThere as error:
                raise StoreError(
                    f"MLflow at {self.url} has no version {number} of {name!r}."
                ) from error

    def _ask(
        self, path: str, asked: Mapping[str, str], answer: type[_Answer], method: str = "GET"
    ) -> _Answer:
        url, body = f"{self.url}/api/2.0/mlflow/{path}", None
        if method == "GET":
            url += f"?{urllib.parse.urlencode(asked, quote_via=urllib.parse.quote)}"
        else:
            body = json.dumps(asked).encode()
        headers = {"User-Agent": "mlmon-dagster", "Content-Type": "application/json"}
        headers |= {"Authorization": self.authorization} if self.authorization else {}
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with open_within(request, self.timeout_seconds, NoRedirect()) as said:
                return answer.model_validate_json(said.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, error.read(_MOST_BYTES)) from error
        except ValidationError as error:
            raise StoreError(
                f"What answers at {self.url} is not MLflow's REST API; is that its address?"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RegistryAwayError(
                f"MLflow cannot be reached at {self.url}: {reason or type(error).__name__}"
            ) from error

    def _refused(self, status: int, body: bytes) -> Exception:
        try:
            told = _Error.model_validate_json(body)
        except ValidationError:
            told = _Error()
        if told.error_code == _NOT_THERE:
            return _NotThere()
        if status in (401, 403):
            cure = (
                "does the token, or the user in the address, have the right to it?"
                if self.authorization
                else "it was asked without a token. Declare registry.token_env, the variable that "
                "holds one, or write user:password@ into the address."
            )
            return StoreError(f"MLflow at {self.url} refuses (HTTP {status}): {cure}")
        if 300 <= status < 400:
            return StoreError(
                f"MLflow at {self.url} answered HTTP {status}: redirects are not followed; "
                "declare the address it leads to."
            )
        said = f"HTTP {status}" + (f", {told.message}" if told.message else "")
        kind = RegistryAwayError if status >= 500 or status == 429 else StoreError
        return kind(f"MLflow at {self.url} answered {said}")


def version_link(address: str, name: str, number: str) -> str:
    """Return the page of a version in MLflow's own UI."""
    return f"{address}/#/models/{urllib.parse.quote(name, safe='')}/versions/{number}"


def run_link(address: str, version: Version) -> str:
    """Return the page of a version's run; empty if the run is not known."""
    if not (version.run_id and version.experiment_id):
        return ""
    return f"{address}/#/experiments/{version.experiment_id}/runs/{version.run_id}"


AUTHOR: Final = "MLflow"


class Move(BaseModel):
    """An alias was seen to name a version, or none any more (an empty one)."""

    alias: str
    version: str
    at: dt.datetime


class Known(BaseModel):
    """Versions and moves of aliases, oldest first.

    Attributes:
        name: The registered model; of another one nothing here holds.
        address: Where the registry is, for links; it holds no secret.
        versions: Those that an alias has named, or that were asked for, by their number.
    """

    name: str = ""
    address: str = ""
    versions: dict[str, Version] = {}
    moves: tuple[Move, ...] = ()

    def now(self, alias: str) -> str:
        """Return the version that an alias names, empty if it names none."""
        return next((move.version for move in reversed(self.moves) if move.alias == alias), "")

    def since(self, alias: str) -> dt.datetime | None:
        """Return when an alias was first seen to name what it names; None if it names nothing."""
        found = [move for move in self.moves if move.alias == alias]
        return found[-1].at if found and found[-1].version else None

    def at(self, alias: str, start: dt.datetime, end: dt.datetime) -> str:
        """Return the version that an alias named throughout a window; empty if nobody can tell.

        Before the first look it is that look's, if it was registered before the window.
        """
        mine = [move for move in self.moves if move.alias == alias]
        before = [move.version for move in mine if move.at <= start]
        within = [move for move in mine if start < move.at < end]
        if before and not within:
            return before[-1]
        if before or not mine:
            return ""
        first = self.versions.get(mine[0].version)
        is_one = not within or within == mine[:1]
        return first.number if first and is_one and first.created_at <= start else ""


@dataclass(frozen=True)
class RegistryLook:
    """The last look at a model's registry.

    Attributes:
        looked_at: When, by the real clock.
        problem: Why it found nothing out; empty if it did.
        known: What is known by now, of this look or of earlier ones.
    """

    looked_at: dt.datetime
    problem: str
    known: Known


def load_last_look(engine: sa.Engine, model: str) -> RegistryLook | None:
    """Return what is known of a model's versions; None before the first look."""
    c = registry_state.c
    query = sa.select(c.looked_at, c.problem, c.known).where(c.model == model)
    row = fetch_row(engine, query)
    if row is None:
        return None
    return RegistryLook(row.looked_at, row.problem, Known.model_validate_json(row.known))


def is_away(engine: sa.Engine, server: str, since: dt.datetime, now: dt.datetime) -> bool:
    """Tell whether a server has lately let another model's look wait in vain."""
    c = registry_state.c
    away = (c.server == server, c.is_away, ~select_past(c.looked_at, since, now))
    return fetch_row(engine, sa.select(c.model).where(*away).limit(1)) is not None


def note_problem(
    engine: sa.Engine, model: str, server: str, problem: str, now: dt.datetime, *, away: bool
) -> None:
    """Write down that a look failed, or a tag could not be written; what is known stays."""
    row = {"model": model, "server": server, "looked_at": now, "problem": problem, "is_away": away}
    with engine.begin() as conn:
        upsert(conn, registry_state, [row])


def note_known(
    engine: sa.Engine,
    model: str,
    server: str,
    before: Known,
    after: Known,
    now: dt.datetime,
) -> None:
    """Write down what a look found, and an event for each move; of two at once, the first counts.

    Args:
        engine: The state database.
        model: The model.
        server: The variable that holds the registry's address.
        before: What was known.
        after: What is known now, with ``before`` in it.
        now: The real time of the look.
    """
    c = registry_state.c
    row = {"server": server, "looked_at": now, "problem": "", "is_away": False}
    blank = Known().model_dump_json()
    with engine.begin() as conn:
        insert_or_ignore(conn, registry_state, [{"model": model, "known": blank, **row}])
        same = (c.model == model, c.known == before.model_dump_json())
        values = {**row, "known": after.model_dump_json()}
        if not conn.execute(sa.update(registry_state).where(*same).values(values)).rowcount:
            return
        for n, move in enumerate(after.moves[len(before.moves) :], len(before.moves)):
            earlier = Known(moves=after.moves[:n]).now(move.alias)
            note_event(
                conn,
                model,
                f"alias {move.alias}",
                author=AUTHOR,
                note=_describe_move(after.versions.get(move.version), move.version, earlier),
                now=move.at,
            )


def _describe_move(version: Version | None, number: str, before: str) -> str:
    moved = f"version {number}" if number else "no version"
    moved += f", before version {before}" if before else ""
    where = version.text() if version is not None else ""
    return f"{moved}; {where}" if where else moved
