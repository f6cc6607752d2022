"""The command line of the `seele` commands for clusters."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from seele_operator.api.types import BadRunError
from seele_operator.client.errors import BadInput, CommandError
from seele_trainer.termination import ExitCode

if TYPE_CHECKING:
    from seele_operator.client.control import Confirm
    from seele_operator.client.runs_api import RunsApi

PANEL = "On a cluster"

RunFile = Annotated[
    str,
    typer.Option(
        "--file", "-f", help="A SeeleRun in YAML; - reads standard input.", metavar="FILE", show_default=False
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the run.", metavar="NAME", show_default=False)]
Kubeconfig = Annotated[
    str | None,
    typer.Option(help="Path of the kubeconfig.", metavar="FILE", show_default="$KUBECONFIG, else ~/.kube/config"),
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig.", metavar="NAME", show_default="the current one")
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace of the run.", metavar="NAME", show_default="that of the context"),
]


class _PlainFlags:
    """Help that does not show flags as if they took a value."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class Group(_PlainFlags, TyperGroup):
    """The group of all commands."""


class Command(_PlainFlags, TyperCommand):
    """A command, which says how to give it a file if `-f` is missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            positional = self.make_parser(ctx).parse_args(given)[1]
            if positional and error.param is not None and error.param.name == "file":
                ctx.fail(f"Missing option '--file' / '-f': write -f {shlex.quote(positional[0])}")
            raise


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (submit, status, logs, suspend, resume, delete):
        app.command(rich_help_panel=PANEL)(command)


def submit(
    file: RunFile,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check the run, without changing anything.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run until it ends; exit with 0 if it succeeds, 1 if it fails.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Train on a cluster: check a SeeleRun file, and create the run or change the existing one.

    Models and data sets are not looked up on this machine, since the pods run elsewhere.

    Examples:

    - `seele submit -f run.yaml`
    - `seele submit -f run.yaml -n team-a --dry-run`
    - `seele submit -f run.yaml --wait && echo trained`
    """
    with _errors_to_exit_codes():
        if dry_run and wait:
            raise BadInput("--wait: a dry run starts nothing to wait for; leave out either --dry-run or --wait")
        from seele_operator.client import submit as submission
        from seele_operator.validation.load import parse_run
        from seele_operator.validation.warnings import run_warnings

        body = submission.read_submission(file, namespace)
        for warning in run_warnings(parse_run(body)):
            typer.echo(f"warning: {warning}", err=True)
        with _cluster(kubeconfig, context, namespace, body["metadata"].get("namespace")) as cluster:
            raise typer.Exit(cluster.run(submission.submit(cluster.api, body, typer.echo, dry_run=dry_run, wait=wait)))


def status(
    name: Annotated[
        str | None, typer.Argument(help="Name of a run, to show it in detail.", metavar="[NAME]", show_default=False)
    ] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Show the runs of all namespaces.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show every change until Ctrl-C is pressed.")] = False,
    output: Annotated[
        Literal["table", "json", "yaml"], typer.Option("--output", "-o", help="Print the objects for other programs.")
    ] = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show the runs of a cluster, or one run with its pods, failures and last events.

    Examples:

    - `seele status`
    - `seele status -A --watch`
    - `seele status quickstart`
    - `seele status quickstart -o json`
    """
    with _errors_to_exit_codes():
        if name is not None and all_namespaces:
            raise BadInput("--all-namespaces: a run is in one namespace; leave out its name, or give -n instead")
        if watch and output != "table":
            raise BadInput(f"--watch: cannot be shown as {output}; leave out either --watch or --output")
        from rich.console import Console

        from seele_operator.client.status import show_run, show_runs

        console = Console(highlight=False)
        with _cluster(kubeconfig, context, namespace) as (api, run):
            if name is None:
                run(show_runs(api, console, all_namespaces=all_namespaces, watch=watch, output=output))
            else:
                run(show_run(api, name, console, watch=watch, output=output))


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until the run ends.")] = False,
    role: Annotated[
        Literal["trainer", "rollout"] | None, typer.Option(help="Show only the pods with this role.")
    ] = None,
    pod: Annotated[str | None, typer.Option(help="Show only this pod, such as trainer-0.", metavar="POD")] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Show only the last lines of each log.", show_default="all")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Show only the lines of the last 45s, 10m, 1h30m, ...", metavar="TIME")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Print the time before each line.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show the logs of all pods of a run's current attempt, each line after the name of its pod.

    With --follow, the pods of later attempts are added as they start, and a pod that cannot start says why.

    Examples:

    - `seele logs quickstart`
    - `seele logs quickstart -f --role trainer`
    - `seele logs quickstart --pod rollout-0 --tail 50 --timestamps`
    """
    with _errors_to_exit_codes():
        from rich.console import Console

        from seele_operator.client.log_lines import LogPrinter
        from seele_operator.client.logs import logs as print_logs
        from seele_operator.client.logs import seconds_of
        from seele_operator.client.pods import Selection
        from seele_operator.client.runs_api import LogRange

        part = LogRange(follow, tail, None if since is None else seconds_of(since))
        printer = LogPrinter(Console(highlight=False), Console(stderr=True, highlight=False), timestamps=timestamps)
        with _cluster(kubeconfig, context, namespace) as cluster:
            raise typer.Exit(cluster.run(print_logs(cluster.api, name, Selection(role, pod), part, printer)))


def suspend(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run is suspended.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Stop all pods of a run and keep its folder; `seele resume` continues from the last checkpoint.

    Examples:

    - `seele suspend quickstart`
    - `seele suspend quickstart -n team-a --wait`
    """
    with _errors_to_exit_codes(), _cluster(kubeconfig, context, namespace) as cluster:
        from seele_operator.client.control import suspend as suspend_run

        raise typer.Exit(cluster.run(suspend_run(cluster.api, name, typer.echo, wait=wait)))


def resume(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run is running.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Resume a suspended run from its last checkpoint.

    Examples:

    - `seele resume quickstart`
    - `seele resume quickstart -n team-a --wait`
    """
    with _errors_to_exit_codes(), _cluster(kubeconfig, context, namespace) as cluster:
        from seele_operator.client.control import resume as resume_run

        raise typer.Exit(cluster.run(resume_run(cluster.api, name, typer.echo, wait=wait)))


def delete(
    names: Annotated[list[str], typer.Argument(help="Names of the runs.", metavar="NAME...", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the runs and their pods are gone.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Delete runs with their pods and other objects. Asks for confirmation, and says what is kept.

    Examples:

    - `seele delete quickstart`
    - `seele delete first second --yes --wait`
    """
    with _errors_to_exit_codes(), _cluster(kubeconfig, context, namespace) as (api, run):
        from seele_operator.client import control

        runs = run(control.find_all(api, names))
        for one in runs if yes else ():
            for line in control.at_stake(one):
                typer.echo(f"{one.name}: {line}")
        # Asked outside the event loop, where Ctrl-C ends the question at once.
        if not yes and not control.confirm_deletion(api, runs, typer.echo, confirmation()):
            typer.echo("Nothing was deleted.")
            raise typer.Exit(ExitCode.FAILED)
        run(control.delete(api, runs, typer.echo, wait=wait))


def confirmation() -> Confirm | None:
    """How to ask the user; None if there is no terminal to ask on."""
    return typer.confirm if sys.stdin.isatty() else None


class _Cluster(NamedTuple):
    api: RunsApi
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    """Runs a coroutine to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""


@contextlib.contextmanager
def _cluster(
    kubeconfig: str | None, context: str | None, namespace: str | None, namespace_of_file: str | None = None
) -> Iterator[_Cluster]:
    """The cluster of the options. Imports the Kubernetes client, which takes a while."""
    import asyncio

    from seele_operator.client.runs_api import ClusterOptions, connect

    api = connect(ClusterOptions(kubeconfig, context, namespace), namespace_of_file)
    with asyncio.Runner() as runner:
        try:
            yield _Cluster(api, runner.run)
        finally:
            runner.run(api.close())


@contextlib.contextmanager
def _errors_to_exit_codes() -> Iterator[None]:
    """Print the lines of an error to standard error and exit with its code; Ctrl-C exits quietly."""
    try:
        yield
    except BadRunError as error:
        typer.echo("\n".join(error.problems), err=True)
        raise typer.Exit(ExitCode.BAD_INPUT) from error
    except CommandError as error:
        typer.echo(error, err=True)
        raise typer.Exit(error.exit_code) from error
    except ModuleNotFoundError as error:
        if error.name != "kubernetes":
            raise
        typer.echo("the Kubernetes client is not installed here; run pip install '.[operator]' in a checkout", err=True)
        raise typer.Exit(ExitCode.BAD_INPUT) from error
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from interrupt
