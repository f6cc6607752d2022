"""`seele eval`: runs benchmarks on a model without hints, shows the scores and writes them to a file."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import AutoConfig, PreTrainedTokenizerBase

from seele_trainer.config import Benchmark, Evaluation, RolloutOptions, Verifier
from seele_trainer.data.problem import BadDataError
from seele_trainer.data.prompts import Template
from seele_trainer.data.tokenizer import load_tokenizer
from seele_trainer.evaluation.benchmarks import known_benchmark
from seele_trainer.evaluation.evaluate import Examiner, LoadedBenchmark, completions_needed, load_benchmark
from seele_trainer.evaluation.local_server import local_server
from seele_trainer.formatting import percent
from seele_trainer.rollout.protocol import RolloutEngine
from seele_trainer.run_folder.attempt import CONFIG_FILE, ConfigError, read_tree
from seele_trainer.run_folder.records import BenchmarkScore
from seele_trainer.termination import ExitCode, ExpectedFailure
from seele_trainer.verify.pool import VerifierPool
from seele_trainer.weights.prepare import BadModelError
from seele_trainer.weights.stored_tensors import BadSafetensors, check_safetensors

SERVED_NAME = "seele"
URL_SECONDS = 60.0
"""How long a server given by URL, which should be up already, may take to answer."""

EngineKind = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Exam:
    """A local model, its tokenizer, and the problems that it has to answer with at most `max_tokens` tokens."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    benchmarks: tuple[LoadedBenchmark, ...]
    max_tokens: int

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def context_length(self) -> int:
        """Longest prompt and completion, in tokens."""
        return max(len(prompt) for benchmark in self.benchmarks for prompt in benchmark.prompts) + self.max_tokens


def run(
    model: str,
    benchmarks: Sequence[str],
    data: Mapping[str, str | Path],
    limit: int | None = None,
    samples: int | None = None,
    engine: EngineKind = "vllm",
    template: str | None = None,
    max_tokens: int = 2048,
    out: Path | None = None,
    *,
    url: str | None = None,
    seed: int = 0,
) -> int:
    """Evaluate a model folder or Hugging Face model id; returns the exit code.

    `data` maps benchmarks to local files, `limit` keeps only the first problems of each, and `samples` is the k of avg@k
    (by default the benchmark's own, 32 for aime24 and amc23). `template` defaults to that of the run if its config.yaml
    lies next to the model's folder, else to r1-zero. `url` names a running vLLM server that serves the model as `seele`;
    without it, `engine: vllm` starts one. The scores are written to `out` as JSON.
    """
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        sources = _sources(benchmarks, data, limit, samples)
        _check_out(out)
        chosen = _template(template, model)
        exam = prepare(model, sources, chosen, max_tokens)
        if url is None:
            _check_weights(exam.folder)
        scores = asyncio.run(_examine(exam, engine, url, seed, console))
    except ExpectedFailure as failure:
        errors.print(str(failure), markup=False)
        return failure.exit_code
    except KeyboardInterrupt:
        errors.print("stopped; no scores were written")
        return ExitCode.FAILED
    console.print(score_table(model, scores))
    if out is not None:
        shown = {title: score.model_dump(mode="json", by_alias=True) for title, score in scores.items()}
        content = {"model": model, "template": chosen, "maxTokens": exam.max_tokens, "seed": seed, "scores": shown}
        # Not replaced by a new file: it may be /dev/stdout, a pipe or a link.
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return ExitCode.DONE


def prepare(model: str, sources: Sequence[Benchmark], template: Template, max_tokens: int) -> Exam:
    """Find the model and read the problems. Raises BadModelError, BadDataError or BadTokenizerError."""
    folder = _folder(model)
    try:
        tokenizer = load_tokenizer(str(folder))
        context = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadModelError(
            f"--model: {model} cannot be loaded: {reason} Give the folder that save_pretrained wrote, with its tokenizer"
        ) from error
    loaded = tuple(load_benchmark(source, tokenizer, template) for source in sources)
    longest = max(len(prompt) for benchmark in loaded for prompt in benchmark.prompts)
    room = context - longest if context else max_tokens
    if room < 1:
        raise BadModelError(f"the longest prompt has {longest} tokens, and the context of {model} is {context}")
    return Exam(folder, tokenizer, loaded, min(max_tokens, room))


def score_table(model: str, scores: Mapping[str, BenchmarkScore]) -> Table:
    """The scores for people, in percent."""
    table = Table(title=f"{model}, without hints", title_justify="left")
    for name in ("benchmark", "problems", "greedy pass@1", "avg@k", "cut off"):
        table.add_column(name, justify="left" if name == "benchmark" else "right")
    for title, score in scores.items():
        sampled = percent(score.sampled_accuracy) + (f" (k={score.samples})" if score.samples else "")
        table.add_row(title, str(score.problems), percent(score.greedy_accuracy), sampled, percent(score.truncated))
    if len(scores) > 1:
        mean = sum(score.greedy_accuracy for score in scores.values()) / len(scores)
        table.add_row("mean", "", percent(mean), "", "")
    return table


async def _examine(
    exam: Exam, kind: EngineKind, url: str | None, seed: int, console: Console
) -> dict[str, BenchmarkScore]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=completions_needed(exam.benchmarks))
        verifier = VerifierPool(Verifier())
        async with _engine(exam, kind, url, lambda line: console.print(line, markup=False, soft_wrap=True)) as engine:
            await engine.start()
            await verifier.start()
            bar.update(task, description="answers")
            try:
                examiner = Examiner(
                    engine,
                    verifier,
                    exam.decode,
                    temperature=Evaluation().temperature,
                    max_tokens=exam.max_tokens,
                    seed=seed,
                    answered=lambda count: bar.advance(task, count),
                )
                return await examiner.scores(exam.benchmarks)
            finally:
                await verifier.close()


@asynccontextmanager
async def _engine(
    exam: Exam, kind: EngineKind, url: str | None, waiting: Callable[[str], None]
) -> AsyncIterator[RolloutEngine]:
    # Engines are imported where they are used: only one of them needs torch.
    engine: RolloutEngine
    async with AsyncExitStack() as stack:
        if url is None and kind == "transformers":
            from seele_trainer.rollout.transformers_engine import TransformersEngine

            engine = TransformersEngine(exam.folder, RolloutOptions(), device="cuda" if _has_gpu() else "cpu")
        else:
            from seele_trainer.rollout.pool import VllmPool

            options = RolloutOptions() if url is None else RolloutOptions(server_start_timeout_seconds=URL_SECONDS)
            if url is None:
                log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seele-eval-"))) / "vllm.log"
                server = local_server(exam.folder, SERVED_NAME, exam.context_length, log, gpu=_has_gpu())
                url = await stack.enter_async_context(server)
            engine = VllmPool([url], options, SERVED_NAME, waiting=waiting)
        stack.push_async_callback(engine.close)
        yield engine


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _sources(
    benchmarks: Sequence[str], data: Mapping[str, str | Path], limit: int | None, samples: int | None
) -> list[Benchmark]:
    if not benchmarks:
        raise BadDataError("no benchmark is named: give --benchmark gsm8k,math500")
    changes = {name: value for name, value in (("limit", limit), ("samples", samples)) if value is not None}
    sources = [
        known_benchmark(title, str(data[title]) if title in data else None).model_copy(update=changes)
        for title in dict.fromkeys(benchmarks)
    ]
    if unknown := sorted(set(data) - set(benchmarks)):
        raise BadDataError(f"--data names {unknown[0]!r}, which is not among the benchmarks {', '.join(benchmarks)}")
    return sources


def _check_out(out: Path | None) -> None:
    if out is not None and not out.absolute().parent.is_dir():
        raise BadDataError(f"--out {out}: the folder {out.absolute().parent} does not exist; create it first")
    if out is not None and out.is_dir():
        raise BadDataError(f"--out {out}: is a folder; give the file to write the scores to")


def _check_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise BadModelError(f"--model: {folder} has no weights (*.safetensors); save the model with save_pretrained")
    for file in files:
        try:
            check_safetensors(file)
        except BadSafetensors as error:
            raise BadModelError(f"--model: {error}") from error


def _template(given: str | None, model: str) -> Template:
    """The given template, or the one of the run that trained the model."""
    beside = Path(model).absolute().parent / CONFIG_FILE
    if given is None and Path(model).is_dir() and beside.is_file():
        try:
            given = read_tree(beside).get("dataset", {}).get("promptTemplate")
        except (ConfigError, AttributeError) as error:
            raise BadModelError(f"{beside} cannot be read for its prompt template: give --template") from error
    for template in get_args(Template):
        if (given or "r1-zero") == template:
            return template  # type: ignore[no-any-return]
    raise BadModelError(f"--template: {given!r} is not a prompt template; use {' or '.join(get_args(Template))}")


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_absolute() or model.startswith("."):
        raise BadModelError(f"--model: the folder {model} does not exist")
    try:
        return Path(snapshot_download(model))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BadModelError(
            f"--model: {model} is neither a local folder nor a model that can be downloaded from the Hugging Face hub: "
            f"{' '.join(str(error).split())}; give the path of a folder, or check the id, HF_TOKEN and the network"
        ) from error
