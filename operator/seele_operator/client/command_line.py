"""How all commands of `seele` show their options, and what they say about a file that is given without `-f`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class CommandLine(typer.Typer):
    """A Typer whose help does not show flags as if they took a value."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # type: ignore[override]
        """Add a command, as `typer.Typer.command` does."""
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type_of_flags(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            positional = self.make_parser(ctx).parse_args(given)[1]
            if positional and error.param is not None and error.param.name == "file":
                ctx.fail(f"Missing option '--file' / '-f': write -f {shlex.quote(positional[0])}")
            raise


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type_of_flags(super().get_params(ctx))


def _without_type_of_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
