"""What the site of the documentation needs of the program: every command, also those of files."""

from __future__ import annotations

from typing import Literal

from mlmon_dagster.cli import COMMANDS, cli


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Load the commands that are imported when they are asked for, so that all are listed."""
    import click

    for name in COMMANDS:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        cli.add_command(found, name)
