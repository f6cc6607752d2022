"""The `seele` command. Commands import what they need themselves: help and validation stay quick."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from seele_operator.api.problems import BadRunError
from seele_operator.client import commands as cli_cluster

if TYPE_CHECKING:
    from seele_trainer.config import TrainerConfig

FAILED, BAD_INPUT = 1, 2

app = typer.Typer(
    name="seele",
    help="Reinforcement learning with adaptive hints (SEELE), on this machine or on Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

RunFile = Annotated[
    str,
    typer.Option("--file", "-f", help="SeeleRun in YAML; - reads standard input.", metavar="FILE", show_default=False),
]
ConfigFile = Annotated[
    Path, typer.Option("--config", help="The run's config.yaml.", metavar="FILE", show_default=False)
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("seele"))
        raise typer.Exit


@app.callback()
def _seele(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def run(
    file: RunFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; a run that is there goes on.", metavar="DIR", show_default="runs/NAME-TIME"
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all logs of all processes.")] = False,
) -> None:
    """Train on this machine: the pods of the run as local processes, without a cluster.

    Ctrl-C stops the run at the end of its step and saves it; the same folder goes on from there.

    Examples:

        seele run -f manifests/examples/quickstart.yaml

        seele run -f run.yaml --out runs/first --verbose
    """
    from seele_operator.local.command import run_command

    with _refusals():
        raise typer.Exit(run_command(file, out, verbose))


@app.command()
def validate(file: RunFile) -> None:
    """Check a SeeleRun file: every problem with its field, its value and the remedy.

    Examples:

        seele validate -f run.yaml

        cat run.yaml | seele validate -f -
    """
    from seele_operator.validation.load import validate_file

    with _refusals():
        checked = validate_file(file)
    print(f"{checked.metadata.name}: valid")


@app.command()
def render(
    file: RunFile,
    attempt: Annotated[int, typer.Option(min=1, help="Number of the attempt that the pods belong to.")] = 1,
) -> None:
    """Print the Kubernetes objects that a SeeleRun becomes, as YAML.

    Examples:

        seele render -f run.yaml

        seele render -f run.yaml | kubectl apply --dry-run=server -f -
    """
    from seele_operator.api.yaml_files import yaml_text
    from seele_operator.plan.objects import plan
    from seele_operator.validation.load import load_run

    with _refusals():
        objects = plan(load_run(file), attempt)
    print(yaml_text(*objects), end="")


@app.command()
def crd(
    cel: Annotated[
        bool,
        typer.Option(
            "--cel/--no-cel", help="With the rules that Kubernetes 1.25 checks; before 1.23, kubectl refuses them."
        ),
    ] = True,
) -> None:
    """Print the CustomResourceDefinition of SeeleRun, as YAML.

    Examples:

        seele crd | kubectl apply -f -

        seele crd --no-cel | kubectl apply -f -
    """
    from seele_operator.api.yaml_files import yaml_text
    from seele_operator.validation.crd import crd as definition

    print(yaml_text(definition(cel=cel)), end="")


@app.command()
def train(config: ConfigFile) -> None:
    """Train as one pod of the gang (what trainer pods execute).

    Example:

        seele train --config /etc/seele/config.yaml
    """
    with _refusals():
        _read_config(config)
    from seele_trainer.main import train as train_here

    raise typer.Exit(train_here(config))


@app.command()
def prepare_model(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder for the model.", metavar="DIR", show_default=False)],
) -> None:
    """Write the model that rollout servers start from (what their init containers execute).

    Example:

        seele prepare-model --config /etc/seele/config.yaml --out /seele/run/weights/initial
    """
    with _refusals():
        checked = _read_config(config)
    from seele_trainer.weights.prepare import BadModelError, ModelUnreachable
    from seele_trainer.weights.prepare import prepare_model as prepare

    try:
        prepare(checked, out)
    except ModelUnreachable as error:
        _refuse([str(error)], FAILED)
    except BadModelError as error:
        _refuse([str(error)])
    except OSError as error:
        # As with a hub that does not answer, the input is not to blame, and another try may do.
        _refuse(
            [f"--out: the model cannot be written to {out}: {error}; check the folder and the space that is free"],
            FAILED,
        )


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Option(help="Hugging Face folder or model id.", metavar="DIR", show_default=False)],
    benchmark: Annotated[
        str, typer.Option(help="Benchmarks, separated by commas.", metavar="NAME,...", show_default=False)
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(help="File of a benchmark, where its own data set is not reachable.", metavar="NAME=PATH"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first problems of each.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=0, help="Sampled answers a problem, for avg@k.", show_default="the benchmark's own"),
    ] = None,
    engine: Annotated[Literal["vllm", "transformers"], typer.Option(help="What generates the answers.")] = "vllm",
    url: Annotated[
        str | None, typer.Option(help="Ask this vLLM server, which serves the model as `seele`.", metavar="URL")
    ] = None,
    template: Annotated[
        Literal["r1-zero", "chat", "plain"] | None,
        typer.Option(help="Prompt template.", show_default="that of the run, else r1-zero"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 2048,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this file as JSON.", metavar="FILE")] = None,
) -> None:
    """Measure a model on benchmarks, without hints: greedy pass@1, and avg@k.

    Examples:

        seele eval --model runs/first/final --benchmark gsm8k,math500

        seele eval --model Qwen/Qwen2.5-1.5B --benchmark aime24 --samples 32 --out scores.json

        seele eval --model final --benchmark gsm8k --data gsm8k=data/gsm8k/test.jsonl --limit 200
    """
    files: dict[str, str | Path] = {}
    for entry in data or ():
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            _refuse([f"--data: {entry!r} is not NAME=PATH; write the benchmark's name and its file"])
        if not Path(path).is_file():
            _refuse([f"--data: {path} does not exist; give the file of {name}"])
        files[name] = Path(path)
    names = [name.strip() for name in benchmark.split(",") if name.strip()]
    _check_benchmarks(names)
    from seele_trainer.evaluation.command import run as evaluate_model

    raise typer.Exit(evaluate_model(model, names, files, limit, samples, engine, template, max_tokens, out, url=url))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR", show_default=False)],
    problem: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw what the hint controller knows of this problem; can be given again. Otherwise of six, from the "
            "hardest to the easiest.",
            metavar="ID",
        ),
    ] = None,
) -> None:
    """Write report.html and its figures into a run's folder.

    Examples:

        seele report runs/quickstart-20261122-101500

        seele report runs/first --problem 17 --problem 4
    """
    if not (folder / "config.yaml").is_file():
        _refuse([f"{folder} is no run's folder: it has no config.yaml; give the folder that `seele run` has made"])
    from seele_trainer.report.page import ReportError, write_report

    try:
        print(write_report(folder, problem or ()))
    except ReportError as error:
        _refuse([str(error)])


@app.command()
def operator(
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="Look after the runs of this namespace only; can be given again.", metavar="NS"),
    ] = None,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /healthz, /readyz and /metrics.")] = 9401,
    workers: Annotated[int, typer.Option(min=1, help="Runs that are worked on at the same time.")] = 8,
    lease_namespace: Annotated[
        str | None,
        typer.Option(help="Namespace of the lease.", metavar="NS", show_default="the pod's own, else default"),
    ] = None,
    lease_name: Annotated[str, typer.Option(help="Lease that operators on the same runs share.")] = "seele-operator",
    lease_duration: Annotated[
        float, typer.Option(min=3, help="Seconds after which another operator takes over from one that is gone.")
    ] = 15.0,
    leader_election: Annotated[
        bool, typer.Option("--leader-election/--no-leader-election", help="Wait for the lease before doing anything.")
    ] = True,
    kubeconfig: Annotated[
        str | None,
        typer.Option(
            help="How to reach the cluster.", metavar="FILE", show_default="$KUBECONFIG, else the pod's account"
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.", metavar="NAME")] = None,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Lines for people or for programs.")] = "text",
) -> None:
    """Make SeeleRuns of a cluster become pods, and look after them (what the operator pod executes).

    Of several operators with the same lease one works, and the others wait to take over. SIGTERM ends it: what it is doing
    is finished, and the lease given back.

    Examples:

        seele operator

        seele operator --namespace research --namespace teaching --log-format json

        seele operator --kubeconfig ~/.kube/config --context lab --no-leader-election
    """
    from seele_operator.controller.process import OperatorOptions, operator_command

    options = OperatorOptions(
        namespaces=tuple(dict.fromkeys(namespace or ())),
        http_port=http_port,
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        lease_duration=lease_duration,
        leader_election=leader_election,
        workers=workers,
        kubeconfig=kubeconfig,
        context=context,
        log_format=log_format,
    )
    raise typer.Exit(operator_command(options))


cli_cluster.register(app)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Bad input ends with one line for each problem and exit code 2."""
    try:
        yield
    except BadRunError as error:
        _refuse(error.problems)


def _refuse(problems: list[str], code: int = BAD_INPUT) -> NoReturn:
    from seele_trainer.termination import write_termination_message

    write_termination_message("\n".join(problems))
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code)


def _check_benchmarks(names: list[str]) -> None:
    # Before the seconds that importing transformers takes.
    from seele_trainer.data.problem import BadDataError
    from seele_trainer.evaluation.benchmarks import known_benchmark

    for name in names:
        try:
            known_benchmark(name)
        except BadDataError as error:
            _refuse([f"--benchmark: {error}"])


def _read_config(path: Path) -> TrainerConfig:
    from seele_trainer.run_folder.config_file import ConfigError, read_config

    try:
        return read_config(path)
    except ConfigError as error:
        raise BadRunError(f"--config: {problem}" for problem in error.problems) from error


def main() -> None:
    """Entry point of the `seele` command."""
    app()


if __name__ == "__main__":
    main()
