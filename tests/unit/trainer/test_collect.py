"""The rounds of a problem are sequential, and problems never wait for each other."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import pytest

from seele_trainer.collect import PROBE_ROUND, Collector
from seele_trainer.config import TrainerConfig
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Completion, RolloutUnavailable, Sampling, derive_seed
from seele_trainer.strategies import build_strategy
from tests.support.text_answers import RIGHT, WRONG, IdleEngine, TextVerifier, decode, problem


def config(engine: str = "vllm", probes: int = 2) -> TrainerConfig:
    return TrainerConfig.model_validate(
        {
            "name": "t",
            "model": {"name": "m"},
            "dataset": {"path": "d.jsonl"},
            "hints": {"rounds": 2, "rollouts_per_round": 4, "unhinted_probes": probes},
            "rollout": {"engine": engine, "max_completion_tokens": 50},
        }
    )


class ScriptedEngine(IdleEngine):
    """Every second completion is right. Held prompts are answered once a test opens their gate."""

    def __init__(self, held: Sequence[int] = ()) -> None:
        super().__init__()
        self.requests: list[tuple[tuple[int, ...], Sampling]] = []
        self.gates = {token: asyncio.Event() for token in held}
        self.answered: defaultdict[int, int] = defaultdict(int)
        self.progress = asyncio.Condition()
        self.gone: set[int] = set()

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        self.requests.append((tuple(prefix), sampling))
        if prefix[0] in self.gone:
            raise RolloutUnavailable("no server is left")
        if prefix[0] in self.gates:
            await self.gates[prefix[0]].wait()
        async with self.progress:
            self.answered[prefix[0]] += 1
            self.progress.notify_all()
        return [Completion(RIGHT if i % 2 else WRONG, (-0.1, -0.1), "stop", 3) for i in range(sampling.n)]

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        self.requests += [(tuple(prefix), sampling) for prefix in prefixes]
        return [[Completion(RIGHT, (-0.1, -0.1), "stop", 3)] for _ in prefixes]


def collector(engine: ScriptedEngine, settings: TrainerConfig, context: int = 64) -> Collector:
    return Collector(settings, engine, Grader(TextVerifier(), decode), context)  # type: ignore[arg-type]


async def test_every_problem_gets_its_rounds_verified_and_in_the_order_of_the_batch() -> None:
    engine = ScriptedEngine()
    collected = await collector(engine, config()).collect(build_strategy(config()), [problem(0), problem(1)], step=1)
    assert [[r.round for r in rollouts] for rollouts in collected.rollouts] == [[1] * 4 + [2] * 4] * 2
    assert [r.reward for r in collected.rollouts[0][:4]] == [0.0, 1.0, 0.0, 1.0]
    assert {r.problem.problem.id for r in collected.rollouts[1]} == {"1"}


async def test_a_rollout_is_masked_if_the_grader_says_so() -> None:
    class CutEngine(ScriptedEngine):
        async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
            return [Completion(RIGHT, (-0.1, -0.1), "length", 3)] * sampling.n

    grader = Grader(TextVerifier(), decode, truncated="mask")  # type: ignore[arg-type]
    collected = await Collector(config(), CutEngine(), grader, 64).collect(
        build_strategy(config()), [problem(0)], step=1
    )
    assert {(one.reward, one.masked) for one in collected.rollouts[0]} == {(0.0, True)}


async def test_a_slow_problem_delays_no_other() -> None:
    engine = ScriptedEngine(held=[100])
    running = asyncio.create_task(
        collector(engine, config(probes=0)).collect(build_strategy(config()), [problem(0), problem(1)], step=1)
    )
    async with asyncio.timeout(10), engine.progress:
        # Problem 1 finishes both rounds while problem 0 still waits for its first.
        await engine.progress.wait_for(lambda: engine.answered[101] == 2)
    assert engine.answered[100] == 0
    engine.gates[100].set()
    assert len((await running).rollouts[0]) == 8


async def test_the_in_process_engine_gets_one_problem_at_a_time_so_that_a_run_is_reproducible() -> None:
    engine = ScriptedEngine()
    await collector(engine, config("transformers", probes=0)).collect(
        build_strategy(config()), [problem(0), problem(1), problem(2)], step=1
    )
    assert [prefix[0] for prefix, _ in engine.requests] == [100, 100, 101, 101, 102, 102]


async def test_probes_are_unhinted_and_not_part_of_the_rollouts() -> None:
    engine = ScriptedEngine()
    collected = await collector(engine, config(probes=2)).collect(
        build_strategy(config()), [problem(n) for n in range(3)], step=1
    )
    assert [(probe.round, probe.hint_length) for probe in collected.probes] == [(PROBE_ROUND, 0)] * 2
    assert all(r.round != PROBE_ROUND for rollouts in collected.rollouts for r in rollouts)


async def test_completions_never_exceed_the_context() -> None:
    engine = ScriptedEngine()
    await collector(engine, config(), context=20).collect(build_strategy(config()), [problem(0)], step=1)
    assert all(len(prefix) + sampling.max_tokens <= 20 for prefix, sampling in engine.requests)


async def test_a_lost_engine_raises_its_reason_and_cancels_the_other_problems() -> None:
    engine = ScriptedEngine(held=[100])
    engine.gone = {101}
    with pytest.raises(RolloutUnavailable, match="no server is left"):
        await collector(engine, config(probes=0)).collect(build_strategy(config()), [problem(0), problem(1)], step=1)
    assert engine.answered[100] == 0


def test_seeds_differ_between_steps_problems_and_rounds_and_depend_on_nothing_else() -> None:
    seeds = {derive_seed(0, step, name, number) for step in range(5) for name in "abc" for number in range(4)}
    assert len(seeds) == 60
    assert derive_seed(0, 1, "a", 2) == derive_seed(0, 1, "a", 2)
    assert all(0 <= seed < 2**31 for seed in seeds)
