"""What the doctor found, a line each, with the cure under what is not fine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is.
        is_fine: Whether it works.
        found: What was found.
        cure: The next step, if it does not work.
    """

    subject: str
    is_fine: bool
    found: str
    cure: str = ""


def render_findings(findings: list[Finding]) -> str:
    """Return the findings as lines, with a cure under each that is not fine."""
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.is_fine else 'FIX '} {finding.subject}: {finding.found}")
        if not finding.is_fine and finding.cure:
            lines.append(f"     -> {finding.cure}")
    return "\n".join(lines)
