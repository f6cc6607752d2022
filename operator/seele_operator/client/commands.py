"""The commands of `seele` that speak to a cluster."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seele_operator.api.problems import BadRunError
from seele_operator.client.errors import BadInput, RemoteError

if TYPE_CHECKING:
    from seele_operator.client.control import Confirm
    from seele_operator.client.kubeconfig import Target
    from seele_operator.client.runs import Print

BAD_INPUT = 2
INTERRUPTED = 130
PANEL = "On a cluster"

RunFile = Annotated[
    str,
    typer.Option("--file", "-f", help="SeeleRun in YAML; - reads standard input.", metavar="FILE", show_default=False),
]
Name = Annotated[str, typer.Argument(help="Name of the run.", metavar="NAME", show_default=False)]
Kubeconfig = Annotated[
    str | None, typer.Option(help="Kubeconfig file.", metavar="FILE", show_default="KUBECONFIG, ~/.kube/config")
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig.", metavar="NAME", show_default="the current one")
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace of the run.", metavar="NAME", show_default="that of the context"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (submit, status, logs, suspend, resume, delete):
        app.command(rich_help_panel=PANEL)(command)


def submit(
    file: RunFile,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check it, and change nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end: 0 succeeded, 1 failed.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Train on a cluster: check a SeeleRun file and apply it, as a new run or as a change of one.

    Models and data sets are not looked for on this machine: they are where the pods run.

    Examples:

        seele submit -f run.yaml

        seele submit -f run.yaml -n team-a --dry-run

        seele submit -f run.yaml --wait && echo trained
    """
    with _answers():
        if dry_run and wait:
            raise BadInput("--wait: a dry run starts nothing to wait for; leave out one of --dry-run and --wait")
        from seele_operator.client.submit import submit as submit_run

        raise typer.Exit(submit_run(_target(kubeconfig, context, namespace), file, _say(), dry_run=dry_run, wait=wait))


def status(
    name: Annotated[str | None, typer.Argument(help="Name of a run, for all about it.", show_default=False)] = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Show the runs of all namespaces.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and show every change; Ctrl-C ends it.")] = False,
    output: Annotated[
        Literal["table", "json", "yaml"], typer.Option("--output", "-o", help="Objects as they are, for programs.")
    ] = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show the runs of a cluster, or one run with its pods, failures and last events.

    Examples:

        seele status

        seele status -A --watch

        seele status quickstart

        seele status quickstart -o json
    """
    with _answers():
        if name is not None and everywhere:
            raise BadInput("--all-namespaces: a run is in one namespace; leave out its name, or give -n instead")
        if watch and output != "table":
            raise BadInput(f"--watch: cannot be shown as {output}; leave out one of --watch and --output")
        from rich.console import Console

        from seele_operator.client.status import show_run, show_runs

        target, console = _target(kubeconfig, context, namespace), Console(highlight=False)
        if name is None:
            code = show_runs(target, console, everywhere=everywhere, watch=watch, output=output)
        else:
            code = show_run(target, name, console, watch=watch, output=output)
        raise typer.Exit(code)


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the run is over.")] = False,
    role: Annotated[Literal["trainer", "rollout"] | None, typer.Option(help="Only the pods of this role.")] = None,
    pod: Annotated[str | None, typer.Option(help="Only this pod, such as trainer-0.", metavar="POD")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Last lines of each log.", show_default="all")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only lines of the last 45s, 10m, 1h30m, ...", metavar="TIME")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show the logs of all pods of a run's present attempt, each line behind the name of its pod.

    With --follow, the pods of later attempts come in as they start; what keeps a pod from starting is said.

    Examples:

        seele logs quickstart

        seele logs quickstart -f --role trainer

        seele logs quickstart --pod rollout-0 --tail 50 --timestamps
    """
    with _answers():
        from rich.console import Console

        from seele_operator.client.log_lines import LogPrinter
        from seele_operator.client.logs import LogsWanted, seconds_of
        from seele_operator.client.logs import logs as print_logs
        from seele_operator.client.pods import Selection

        wanted = LogsWanted(Selection(role, pod), follow, tail, None if since is None else seconds_of(since))
        printer = LogPrinter(Console(highlight=False), Console(stderr=True, highlight=False), timestamps=timestamps)
        raise typer.Exit(print_logs(_target(kubeconfig, context, namespace), name, wanted, printer))


def suspend(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is suspended.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Stop all pods of a run and keep its folder; `seele resume` goes on from the last checkpoint.

    Examples:

        seele suspend quickstart

        seele suspend quickstart -n team-a --wait
    """
    with _answers():
        from seele_operator.client.control import suspend as suspend_run

        raise typer.Exit(suspend_run(_target(kubeconfig, context, namespace), name, _say(), wait=wait))


def resume(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is running.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Let a suspended run go on from its last checkpoint.

    Examples:

        seele resume quickstart

        seele resume quickstart -n team-a --wait
    """
    with _answers():
        from seele_operator.client.control import resume as resume_run

        raise typer.Exit(resume_run(_target(kubeconfig, context, namespace), name, _say(), wait=wait))


def delete(
    names: Annotated[list[str], typer.Argument(help="Names of runs.", metavar="NAME...", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when they and their pods are gone.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Delete runs with their pods and other objects, after a question that says what is kept.

    Examples:

        seele delete quickstart

        seele delete first second --yes --wait
    """
    with _answers():
        from seele_operator.client.control import delete as delete_runs

        target = _target(kubeconfig, context, namespace)
        raise typer.Exit(delete_runs(target, names, _say(), questioner(), yes=yes, wait=wait))


def questioner() -> Confirm | None:
    """How the user is asked; None where there is no terminal to ask on."""
    return typer.confirm if sys.stdin.isatty() else None


def _target(kubeconfig: str | None, context: str | None, namespace: str | None) -> Target:
    from seele_operator.client.kubeconfig import Target

    return Target(kubeconfig, context, namespace)


def _say() -> Print:
    """Lines for the user, whole and as soon as they are said."""
    return typer.echo


@contextlib.contextmanager
def _answers() -> Iterator[None]:
    """What goes wrong ends with its lines on standard error; Ctrl-C ends quietly."""
    try:
        yield
    except BadRunError as error:
        typer.echo("\n".join(error.problems), err=True)
        raise typer.Exit(BAD_INPUT) from error
    except RemoteError as error:
        typer.echo(error, err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(INTERRUPTED) from interrupt
