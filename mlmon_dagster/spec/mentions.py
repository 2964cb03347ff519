"""Who a message calls by name, in the words that Slack resolves.

Slack shows any other ``@name`` of a bot's message as plain text and notifies nobody, without an
error: so a name that it cannot resolve is refused while the spec is read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlmon_dagster.spec.scalars import shown

_BROADCASTS = {
    "here": "everybody active in the channel",
    "channel": "everybody in the channel",
    "everyone": "everybody in the workspace; Slack takes it in its general channel alone",
}
_BROADCAST = re.compile(r"<!(here|channel|everyone)>|@?(here|channel|everyone)")
# A bare id has a digit, so that @SUPPORT is not taken for one.
_PERSON = re.compile(r"<@([UW][A-Z0-9]+)>|@?((?=[A-Z]*[0-9])[UW][A-Z0-9]{6,})")
_GROUP = re.compile(r"<!subteam\^(S[A-Z0-9]+)>|@?((?=[A-Z]*[0-9])S[A-Z0-9]{6,})")


class Mention(NamedTuple):
    """Whom a message notifies: the markup for Slack, and who that is in words."""

    markup: str
    who: str


def read_mention(text: str) -> Mention | None:
    """Return whom Slack notifies by a declared mention; None if it would show plain text.

    Args:
        text: ``@here``, ``@channel`` or ``@everyone``; the id of a person (``U012ABCDEF``) or of a
            user group (``S012ABCDEF``), with or without an @; or Slack's own markup of these.
    """
    text = text.strip()
    if match := _BROADCAST.fullmatch(text):
        name = match[1] or match[2]
        return Mention(f"<!{name}>", f"@{name} ({_BROADCASTS[name]})")
    if match := _PERSON.fullmatch(text):
        member = match[1] or match[2]
        return Mention(f"<@{member}>", f"the person {member}")
    if match := _GROUP.fullmatch(text):
        group = match[1] or match[2]
        return Mention(f"<!subteam^{group}>", f"the user group {group}")
    return None


def mention_problem(text: str) -> str | None:
    """Say why Slack would notify nobody by a mention, and what to write; None if it would."""
    if read_mention(text) is not None:
        return None
    if not text.isprintable():
        return "a mention is printable text"
    return (
        f"Slack shows {shown(text)} as plain text and notifies nobody. Write "
        "'<!subteam^S0123ABCD>' for a user group (Slack: People, User groups, the group's menu, "
        "Copy group ID; several people need a group), '<@U0123ABCD>' for a person (their profile, "
        "More, Copy member ID), or '@here', '@channel' or '@everyone'"
    )
