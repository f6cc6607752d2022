"""Builds the parts of a run from its configuration and environment."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from seele_trainer.collect import Collector
from seele_trainer.config import Model, TrainerConfig
from seele_trainer.data.prepared import PREPARED_FILE, Preparer, read_prepared, write_prepared
from seele_trainer.data.problem import BadDataError, BadRows, TokenizedProblem
from seele_trainer.data.prompts import stop_strings
from seele_trainer.data.sampler import ProblemSampler
from seele_trainer.data.sources import fingerprint, load_problems
from seele_trainer.data.tokenizer import TextTokenizer
from seele_trainer.data.tokenizer import load_tokenizer as load_tokenizer_of
from seele_trainer.evaluation.evaluate import LoadedBenchmark, load_benchmarks
from seele_trainer.learner.learner import Learner
from seele_trainer.learner.thread import LearnerThread
from seele_trainer.loop import RunParts
from seele_trainer.methods import Method
from seele_trainer.rollout.canary import canary_sequences, default_tolerance
from seele_trainer.rollout.grading import Grader, StopStrings
from seele_trainer.rollout.pool import VllmPool
from seele_trainer.rollout.protocol import RolloutEngine
from seele_trainer.run_folder.attempt import PodEnvironment
from seele_trainer.run_folder.checkpoint import Checkpoints
from seele_trainer.strategies import build_strategy
from seele_trainer.telemetry.recorder import Preparation, Recorder
from seele_trainer.verify.pool import VerifierPool
from seele_trainer.weights.directory import WeightsDirectory
from seele_trainer.weights.prepare import BadModelError, prepare_model

logger = logging.getLogger(__name__)

CANARY_SEQUENCES = 4
CANARY_TOKENS = 256


def build_learner(config: TrainerConfig) -> Learner:
    """The learner of this rank."""
    return Learner(config, config.training.steps * config.training.updates_per_step, config.training.seed)


def assemble(config: TrainerConfig, environment: PodEnvironment, recorder: Recorder) -> RunParts:
    """Load the data and build every part, without starting any. Raises BadDataError for unusable data."""
    tokenizer = load_tokenizer(config.model)
    longest = context_length(config.model)
    data_fingerprint, problems = _prepare_data(config, tokenizer, Preparation(recorder), environment)
    _check_fits(problems, longest, config.training.method)
    if config.training.method.shows_hints:
        shares = [problem.revealable_share for problem in problems]
        recorder.record_problems([share for share in shares if share is not None])
    benchmarks = load_benchmarks(config, tokenizer)
    text = TextTokenizer(tokenizer.backend_tokenizer)
    strings = stop_strings(config.dataset.prompt_template, config.rollout.stop)
    stop = StopStrings(strings, partial(text.text, special=True))
    engine = _build_engine(config, environment, stop)
    verifier = VerifierPool(config.verifier)
    grader = Grader(verifier, text.text, stop, config.rewards.truncated)
    run_dir, attempt = environment.run_dir, environment.attempt
    return RunParts(
        config=config,
        run_dir=run_dir,
        attempt=attempt,
        problems=problems,
        data_fingerprint=data_fingerprint,
        benchmarks=benchmarks,
        sampler=ProblemSampler(len(problems), config.training.problems_per_step, config.training.seed),
        strategy=build_strategy(config),
        learner=LearnerThread(partial(build_learner, config)),
        engine=engine,
        verifier=verifier,
        grader=grader,
        collector=Collector(config, engine, grader, longest),
        weights=WeightsDirectory(run_dir / "weights", attempt),
        checkpoints=Checkpoints(run_dir / "checkpoints", config.checkpoints.keep, attempt),
        recorder=recorder,
        answer_tokens=_answer_tokens(config, benchmarks, longest),
        decode=text.text,
        canary_sequences=canary_sequences(
            [(*problem.prompt, *problem.solution) for problem in problems[:CANARY_SEQUENCES]],
            CANARY_SEQUENCES,
            # A server scores a sequence only if there is room to generate a token.
            min(CANARY_TOKENS, longest - 1),
        ),
        canary_tolerance=config.rollout.canary_tolerance or default_tolerance(config.model.dtype),
    )


def _prepare_data(
    config: TrainerConfig, tokenizer: PreTrainedTokenizerBase, signs: Preparation, environment: PodEnvironment
) -> tuple[str, list[TokenizedProblem]]:
    """The fingerprint of the data set's usable problems, and those of them that are trained on."""
    dataset, bad_rows = config.dataset, BadRows(config.dataset.on_bad_row)
    need_solution = config.training.method.reads_solutions
    raw = load_problems(dataset, need_solution=need_solution, bad_rows=bad_rows, progress=signs.reading)
    found = fingerprint(raw)
    preparer = Preparer(tokenizer, dataset, config.verifier, vocabulary_size(config.model))
    path, key = environment.run_dir / PREPARED_FILE, preparer.key(found)
    prepared = read_prepared(path, key, raw)
    if prepared is not None:
        logger.info("the problems are as an earlier attempt prepared them (%s)", path)
    else:
        prepared = preparer.prepare(raw, signs.checking, signs.tokenizing)
        write_prepared(path, key, raw, prepared, environment.attempt.check)
    bad_rows.include(prepared.bad_rows)
    logger.info("%d problems to train on; skipped: %s", len(prepared.problems), prepared.dropped)
    if bad_rows.count:
        logger.warning("skipped %s", bad_rows)
    return found, prepared.problems


def _check_fits(problems: list[TokenizedProblem], context_length: int, method: Method) -> None:
    """Refuse data that leaves no room for a completion, at the start rather than in the step that uses the problem.

    Hints count if the method shows them, and whole solutions if it trains on them.
    """
    if not problems:
        raise BadDataError(
            "no problem is short enough to train on: raise dataset.maxPromptTokens or dataset.maxSolutionTokens"
        )
    hinted = method.shows_hints
    longest = max(problems, key=lambda problem: len(problem.prompt) + (problem.revealable if hinted else 0))
    used = len(longest.prompt) + (longest.revealable if hinted else 0)
    if used >= context_length:
        what, remedy = ("prompt and hint", " or dataset.maxSolutionTokens") if hinted else ("prompt", "")
        raise BadDataError(
            f"problem {longest.problem.id} has {used} tokens of {what}, and the model's context is "
            f"{context_length}: lower dataset.maxPromptTokens{remedy}"
        )
    longest = max(problems, key=lambda problem: len(problem.prompt) + len(problem.solution))
    used = len(longest.prompt) + len(longest.solution)
    if method.trains_on_solutions and used > context_length:
        raise BadDataError(
            f"problem {longest.problem.id} has {used} tokens of prompt and solution, which this method trains on, and the "
            f"model's context is {context_length}: lower dataset.maxPromptTokens or dataset.maxSolutionTokens"
        )


def _answer_tokens(config: TrainerConfig, benchmarks: Sequence[LoadedBenchmark], context_length: int) -> int:
    """Most tokens of an answer in an evaluation: servers refuse requests that might exceed the context."""
    wanted = config.evaluation.max_completion_tokens or config.rollout.max_completion_tokens
    for benchmark in benchmarks:
        longest = max(map(len, benchmark.prompts))
        if longest >= context_length:
            raise BadDataError(
                f"benchmark {benchmark.title} has a prompt of {longest} tokens, and the model's context is "
                f"{context_length}: remove its longest problems"
            )
        wanted = min(wanted, context_length - longest)
    return wanted


def _build_engine(config: TrainerConfig, environment: PodEnvironment, stop: StopStrings) -> RolloutEngine:
    if config.rollout.engine == "transformers":
        # Imported here: it needs torch, which a trainer with vLLM servers loads only in its learner.
        from seele_trainer.rollout.transformers_engine import TransformersEngine

        initial = environment.run_dir / "weights" / "initial"
        prepare_model(config, initial)
        return TransformersEngine(initial, config.rollout, stop=stop)
    if not environment.rollout_urls and environment.rollout_urls_file is None:
        raise BadDataError("no rollout server is given: set SEELE_ROLLOUT_URLS, or rollout.engine: transformers")
    return VllmPool(
        environment.rollout_urls,
        config.rollout,
        url_file=environment.rollout_urls_file,
        stop=stop.strings,
        before_push=environment.attempt.check,
    )


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises BadModelError."""
    with _load_errors(model, "tokenizer"):
        return load_tokenizer_of(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)


def context_length(model: Model) -> int:
    """Longest sequence in tokens: the run's setting, or else the model's maximum. Raises BadModelError."""
    if model.context_length is not None:
        return model.context_length
    longest = getattr(_model_config(model), "max_position_embeddings", None)
    if longest is None:
        raise BadModelError(
            f"model.name is {model.name!r}, whose config.json has no max_position_embeddings: set model.contextLength"
        )
    return int(longest)


def vocabulary_size(model: Model) -> int | None:
    """How many tokens the model has embeddings for; None if its configuration does not say. Raises BadModelError."""
    size = getattr(_model_config(model).get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None


def _model_config(model: Model) -> Any:
    with _load_errors(model, "config.json"):
        return AutoConfig.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
        )


@contextmanager
def _load_errors(model: Model, part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers raises anything for a file of another form
        reason = " ".join(str(error).split())
        raise BadModelError(
            f"model.name is {model.name!r}, whose {part} cannot be loaded: {reason} "
            "Give the path of a model folder, or check the id, HF_TOKEN and the network"
        ) from error
