"""What can go wrong between the command and AWS, each with its remedy.

Exit status: 0 all is well; 1 a problem was found, or what was asked for was not; 2 the command line is wrong;
3 AWS or the stack cannot be reached.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

PROBLEM = 1
UNREACHABLE = 3

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"})
_UNACCEPTED = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_GIVE_CREDENTIALS = (
    "Sign in (`aws sso login`, `aws configure`) or name a profile (AWS_PROFILE=...); "
    'for the local cloud: eval "$(neve local env)".'
)


class Explaining(TyperGroup):
    """Commands whose failures are told in a sentence with its remedy; the exit status is 3.

    `later` names modules with a typer `app` that are imported only when they are asked for.
    """

    later: Mapping[str, str] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, those of `later` at the end."""
        return [*super().list_commands(ctx), *self.later]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None if there is none."""
        if cmd_name not in self.later:
            return super().get_command(ctx, cmd_name)
        command = typer.main.get_command(importlib.import_module(self.later[cmd_name]).app)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what goes wrong on the way to AWS ends it with a sentence."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            told = remedy(error)
            if told is None:
                raise
            typer.echo(f"neve: {told}", err=True)
            raise typer.Exit(UNREACHABLE) from error


def remedy(error: BaseException) -> str | None:
    """What happened and what to do about it; None for what is not a failure on the way to AWS."""
    if type(error).__module__.partition(".")[0] not in ("botocore", "neve", "neve_cli", "neve_edge", "neve_local"):
        return None  # importing botocore to tell a wrong option from it would take half a second
    from botocore import exceptions as aws  # noqa: PLC0415

    from neve.errors import MessageRefused, NeveError, QueueDenied, Transient  # noqa: PLC0415

    if (
        isinstance(error, Transient | QueueDenied | MessageRefused) and error.__cause__
    ):  # an adapter's word for a failure of AWS
        return remedy(error.__cause__) or str(error)
    if isinstance(error, NeveError):
        return str(error)
    if isinstance(error, aws.ClientError):
        return _refusal(error)
    if isinstance(error, aws.ConnectionError | aws.HTTPClientError):
        return _no_answer(error)
    return _not_set_up(error)


def _not_set_up(error: BaseException) -> str | None:
    from botocore import exceptions as aws  # noqa: PLC0415

    if isinstance(error, aws.NoRegionError):
        return "No region is set. Name it: AWS_REGION=us-east-1, or `aws configure set region us-east-1`."
    if isinstance(error, aws.ProfileNotFound):
        return f"{error}. `aws configure list-profiles` lists those there are; set AWS_PROFILE to one, or unset it."
    if any(word in type(error).__name__ for word in ("Credential", "SSO", "Token", "Login")):
        return f"No usable AWS credentials: {error}. {_GIVE_CREDENTIALS}"
    return None


def _refusal(error: Any) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = str(error.response.get("Error", {}).get("Message", "") or code)
    if code in _DENIED:
        return (
            f"AWS refuses {error.operation_name}: {said}. "
            "Use credentials that may do this (AWS_PROFILE=...), or have the action granted."
        )
    if code in _UNACCEPTED:
        return f"AWS does not accept the credentials: {said}. {_GIVE_CREDENTIALS}"
    if code in ("ResourceNotFoundException", "NoSuchBucket", "QueueDoesNotExist") or code.endswith("NonExistentQueue"):
        return (
            f"What the stack names is not there ({error.operation_name}: {said}). "
            "Deploy it again: `cdk deploy --all`, or `neve local up`."
        )
    return f"AWS answers {error.operation_name} with {code}: {said}. Try again later."


def _no_answer(error: BaseException) -> str:
    local = os.environ.get("AWS_ENDPOINT_URL")
    if local:
        return (
            f"Nothing answers at {local} (AWS_ENDPOINT_URL). If that is the local cloud, it is not running: "
            '`neve local up`, then eval "$(neve local env)". For AWS itself: unset AWS_ENDPOINT_URL.'
        )
    return f"AWS cannot be reached: {error}. Is the region right (AWS_REGION), and is there a connection?"
