"""Passwords of Postgres logins: from the environment, or asked for; never an argument."""

import sys

import click

from control_plane.cli.problems import usage
from control_plane.config import ClientSettings


def ask_password(user: str, host: str) -> str:
    """What TENANTRY_SERVER_PASSWORD says, or else what a person types.

    Raises:
        Problem: it is not set, and there is nobody to ask.
    """
    given = ClientSettings.from_environment().server_password
    if given is not None:
        return given.reveal()
    if not sys.stdin.isatty():
        raise usage("no password: set TENANTRY_SERVER_PASSWORD, or run this on a terminal")
    return str(click.prompt(f"Password of {user} at {host}", hide_input=True, err=True))
