"""What a cause goes with, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlmon_dagster.spec.declaration import Experiment
from mlmon_dagster.trace.effect import FEW_WINDOWS, FEWEST_WINDOWS, Effect, Trial


def told(found: Effect, names: Mapping[str, str], per: float, within: Sequence[str]) -> list[str]:
    """Say in sentences what was found.

    Args:
        found: What a cause goes with.
        names: ``cause``, ``outcome`` and ``unit`` (of the cause, may be empty), as people say them;
            ``more_is``: ``worse`` if more of the cause cannot make more of the outcome, as of a
            latency.
        per: So many units of the cause are spoken of.
        within: Covariates that rows were compared within.
    """
    cause, outcome = names["cause"], names["outcome"]
    step = _step(names, per)
    compared = " and ".join([*within, "its window"])
    lines = [_headline(found, step, outcome, per, compared)]
    if found.windows < FEWEST_WINDOWS:
        lines.append(
            f"Only {found.windows} windows: how far windows stray is not known below "
            f"{FEWEST_WINDOWS}, so no interval is given and nothing is called real."
        )
    elif found.windows < FEW_WINDOWS:
        lines.append(f"{found.windows} windows are few for an interval; {FEW_WINDOWS} hold it.")
    reversed_ = _reversed(found, names)
    if reversed_:
        lines.append(reversed_)
    if found.is_bent:
        pieces = [
            f"{_signed(per * piece.value)} {where}"
            for piece, where in zip(
                found.pieces,
                (
                    f"up to {found.knots[0]:.4g}",
                    f"from there to {found.knots[1]:.4g}",
                    "above",
                ),
                strict=True,
            )
        ]
        lines.append(f"It is no straight line (p {found.bend:.2g}): {', '.join(pieces)}.")
    plain = found.unadjusted
    if np.isfinite(plain.value) and not found.slope.lower <= plain.value <= found.slope.upper:
        lines.append(
            f"Over all rows it would be {_signed(per * plain.value)} "
            f"({_signed(per * plain.lower)} to {_signed(per * plain.upper)}): the rest is what "
            f"rows of other {compared} bring."
        )
    if found.missing:
        total = found.missing + found.n
        lines.append(
            f"{found.missing / total:.1%} of the rows have an outcome but no {cause}, as failed "
            f"requests do: mean {outcome} {found.missing_mean:.4g} beside {found.mean:.4g}. "
            "They are in no number above."
        )
    if found.alone > 0.2 * found.n:
        lines.append(
            f"{found.alone / found.n:.0%} of the rows are alone in their cell and compare with "
            "none; fewer covariates, or coarser ones, would use them."
        )
    return lines


def _headline(found: Effect, step: str, outcome: str, per: float, compared: str) -> str:
    slope, share = found.slope, found.relative
    value = f"{_signed(per * slope.value)} of {outcome}"
    if np.isfinite(slope.lower):
        value += f" ({_signed(per * slope.lower)} to {_signed(per * slope.upper)})"
    if np.isfinite(share.value):
        value += f", {per * share.value:+.2%}"
        if np.isfinite(share.lower):
            low, high = sorted((per * share.lower, per * share.upper))
            value += f" ({low:+.2%} to {high:+.2%})"
    sure = "" if slope.is_sure else "; 0 is within what chance makes of it"
    return (
        f"{step} goes with {value} a row, among rows of the same {compared}{sure}: "
        "an association, not yet an effect."
    )


def _reversed(found: Effect, names: Mapping[str, str]) -> str:
    """Say that the outcome makes the cause, where more of the cause cannot be good and seems so."""
    if names.get("more_is") != "worse" or not found.slope.lower > 0:
        return ""
    return (
        f"The cause is reversed: more {names['cause']} does not bring more {names['outcome']}. "
        "What makes a request worth more seems to make it slower too (a large basket is both): "
        "name what it is among the covariates, or draw an arm by lot."
    )


def _step(names: Mapping[str, str], per: float) -> str:
    return " ".join(filter(None, (f"{per:g}", names["unit"], "more", names["cause"])))


def _signed(value: float) -> str:
    return f"{value:+.4g}"


def told_of_trial(found: Trial, names: Mapping[str, str], per: float, arm: Experiment) -> list[str]:
    """Say in sentences what an experiment's arm did.

    Args:
        found: What was found.
        names: As `told`.
        per: So many units of the cause are spoken of.
        arm: As it is declared.
    """
    control, treatment = arm.control, arm.treatment
    if not found.is_valid:
        return [
            f"Arm {treatment} answered {found.got:.1%} of the rows and was to answer "
            f"{arm.share:.1%} (p {found.split:.1g}): something else than the lot decided, so the "
            "arms are not compared."
        ]
    difference, share = found.difference, found.relative
    sure = "" if difference.is_sure else "; 0 is within what chance makes of it"
    lines = [
        f"Drawn by lot: arm {treatment} has {_signed(difference.value)} "
        f"({_signed(difference.lower)} to {_signed(difference.upper)}) of {names['outcome']} a row "
        f"against {control}, {share.value:+.2%} ({share.lower:+.2%} to {share.upper:+.2%}), "
        f"{found.n[1]:,} rows against {found.n[0]:,}: an effect{sure}."
    ]
    if np.isfinite(found.per_unit.value):
        unit = found.per_unit
        lines.append(
            f"The arm moved {names['cause']} by {_signed(found.cause.value)}: {_step(names, per)} "
            f"brings {_signed(per * unit.value)} ({_signed(per * unit.lower)} to "
            f"{_signed(per * unit.upper)}), if it did nothing else."
        )
    return lines
