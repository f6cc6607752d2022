"""The loss as plain functions: against hand-made formulas, autograd, and the properties that training relies on."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seele_trainer.learner import loss
from seele_trainer.learner.loss import (
    Coefficients,
    Denominators,
    LossTerms,
    most_uncertain,
    seele_loss,
    token_logprobs,
)
from seele_trainer.learner.sample import EVERY_TOKEN, SampleFields

COEFFICIENTS = Coefficients(clip_epsilon=0.2, importance_cap=2.0, kl=0.1)
GAMMA = 0.01


def tokens_of(
    generated: Sequence[float],
    supervised: Sequence[float],
    advantage: Sequence[float],
    behaviour: Sequence[float],
    off_policy: Sequence[float] | None = None,
    shaping: float = 0.0,
    *,
    clipped: bool = True,
) -> SampleFields[Tensor, Tensor]:
    """Tokens with the multiplicity given for their kind; supervised ones weigh GAMMA, off-policy ones are all shaped alike."""
    kinds = torch.tensor([generated, off_policy or [0.0] * len(generated), supervised])
    return SampleFields(
        tokens=torch.zeros(len(generated), dtype=torch.int64),
        policy_mask=kinds[0] > 0,
        off_policy=kinds[1] > 0,
        supervised=GAMMA * (kinds[2] > 0),
        multiplicity=kinds.sum(0),
        advantage=torch.tensor(advantage),
        behaviour_logprobs=torch.tensor(behaviour),
        clipped=torch.full((len(generated),), clipped),
        shaping=torch.full((len(generated),), shaping),
        most_uncertain=torch.full((len(generated),), EVERY_TOKEN),
    )


def one_token(ratio: float, advantage: float, cap: float = 2.0, *, clipped: bool = True) -> tuple[float, float, float]:
    """Loss, gradient by the log-probability, and clip fraction of one generated token with this probability ratio."""
    logprob = torch.tensor([-1.0 + math.log(ratio)], requires_grad=True)
    terms = seele_loss(
        logprob,
        None,
        tokens_of([1.0], [0.0], [advantage], [-1.0], clipped=clipped),
        Coefficients(clip_epsilon=0.2, importance_cap=cap, kl=0.0),
        Denominators(1.0, 0.0, 0.0),
    )
    terms.total.backward()
    assert logprob.grad is not None
    return terms.policy.item(), logprob.grad.item(), terms.clip_fraction.item()


def test_log_probabilities_are_those_of_a_softmax_at_the_temperature() -> None:
    logits = torch.randn(5, 7)
    targets = torch.tensor([0, 6, 3, 2, 2])
    temperature = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.7])
    expected = (logits / temperature[:, None]).softmax(-1)[torch.arange(5), targets].log()
    torch.testing.assert_close(token_logprobs(logits, targets, temperature), expected)


def test_log_probabilities_in_chunks_have_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(11, 7, dtype=torch.float32, requires_grad=True)
    targets = torch.randint(0, 7, (11,))
    whole = token_logprobs(logits, targets)
    (gradient,) = torch.autograd.grad(whole.square().sum(), logits)
    entropy = token_logprobs(logits, targets, with_entropy=True)[1]
    monkeypatch.setattr(loss, "_CHUNK_ELEMENTS", 21)
    for chunked in (token_logprobs(logits, targets), token_logprobs(logits, targets, with_entropy=True)[0]):
        (chunked_gradient,) = torch.autograd.grad(chunked.square().sum(), logits)
        torch.testing.assert_close(chunked, whole)
        torch.testing.assert_close(chunked_gradient, gradient)
    torch.testing.assert_close(token_logprobs(logits, targets, with_entropy=True)[1], entropy)


def test_entropies_are_those_of_the_predictions_also_where_a_token_is_impossible() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -math.inf, -math.inf]])
    _, entropy = token_logprobs(logits, torch.tensor([0, 1]), with_entropy=True)
    expected = [math.log(4), -0.75 * math.log(0.75) - 0.25 * math.log(0.25)]
    assert entropy.tolist() == pytest.approx(expected, abs=1e-6)


def test_log_probabilities_of_half_precision_logits_are_computed_in_float32() -> None:
    logits = (torch.randn(3, 50) * 8).to(torch.bfloat16)
    targets = torch.tensor([1, 2, 3])
    exact = torch.log_softmax(logits.double(), -1).gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(token_logprobs(logits, targets).double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        pytest.param(1.0, 0.5, -0.5, -0.5, 0.0, id="on policy: the plain policy gradient"),
        pytest.param(1.1, 1.0, -1.1, -1.1, 0.0, id="within the clip range"),
        pytest.param(1.5, 1.0, -1.2, 0.0, 1.0, id="good token already likelier: no gradient"),
        pytest.param(0.5, 1.0, -0.5, -0.5, 0.0, id="good token less likely: pulled back up"),
        pytest.param(0.5, -1.0, 0.8, 0.0, 1.0, id="bad token already less likely: no gradient"),
        pytest.param(1.5, -1.0, 1.5, 1.5, 0.0, id="bad token likelier: pushed down"),
        pytest.param(9.0, -1.0, 2.0, 0.0, 1.0, id="bad token beyond the cap: weight truncated, no gradient"),
        pytest.param(9.0, 0.0, 0.0, 0.0, 0.0, id="no advantage: nothing"),
    ],
)
def test_the_policy_gradient_of_a_token(
    ratio: float, advantage: float, value: float, gradient: float, clipped: float
) -> None:
    assert one_token(ratio, advantage) == pytest.approx((value, gradient, clipped), abs=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        pytest.param(1.5, 1.0, -1.5, -1.5, 0.0, id="a good token already likelier: still pulled up"),
        pytest.param(0.5, -1.0, 0.5, 0.5, 0.0, id="a bad token already less likely: still pushed down"),
        pytest.param(9.0, 1.0, -2.0, 0.0, 1.0, id="beyond the cap: weight truncated, no gradient"),
    ],
)
def test_a_token_that_is_not_clipped_has_its_plain_ratio_up_to_the_cap(
    ratio: float, advantage: float, value: float, gradient: float, clipped: float
) -> None:
    assert one_token(ratio, advantage, clipped=False) == pytest.approx((value, gradient, clipped), abs=1e-5)


@given(
    ratio=st.floats(1e-3, 1e3),
    advantage=st.floats(-1, 1).filter(lambda advantage: abs(advantage) > 1e-3),
    cap=st.floats(1.0, 5.0),
)
@settings(max_examples=200, deadline=None)
def test_the_importance_weight_in_a_gradient_never_exceeds_the_cap(ratio: float, advantage: float, cap: float) -> None:
    _, gradient, clipped = one_token(ratio, advantage, cap)
    assert abs(gradient) <= cap * abs(advantage) * (1 + 1e-4)
    if clipped:
        assert gradient == 0.0


def test_an_enormous_mismatch_stays_finite() -> None:
    logprobs = torch.tensor([0.0, -1e4], requires_grad=True)
    reference = torch.tensor([-1e4, 0.0])
    terms = seele_loss(
        logprobs,
        reference,
        tokens_of([1.0, 1.0], [0.0, 0.0], [-1.0, 1.0], [-1e4, 0.0]),
        COEFFICIENTS,
        Denominators(2.0, 0.0, 0.0),
    )
    terms.total.backward()
    assert all(torch.isfinite(value) for value in vars(terms).values())
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()


def test_kl_is_zero_at_the_initial_model_and_its_mean_is_the_true_divergence() -> None:
    policy = torch.tensor([0.5, 0.3, 0.2]).log()
    initial = torch.tensor([0.2, 0.3, 0.5]).log()
    assert loss.k3(policy - policy).abs().max() == 0
    expected = (policy.exp() * (policy - initial)).sum()
    estimate = (policy.exp() * loss.k3(initial - policy)).sum()
    torch.testing.assert_close(estimate, expected)


def test_the_mismatch_kl_measures_the_sampler_against_the_policy() -> None:
    engine, policy = torch.tensor([0.6, 0.4]).log(), torch.tensor([0.5, 0.5]).log()
    # Each token as often as the engine samples it.
    terms = seele_loss(
        policy,
        None,
        tokens_of([0.6, 0.4], [0.0, 0.0], [0.0, 0.0], engine.tolist()),
        COEFFICIENTS,
        Denominators(1.0, 0.0, 0.0),
    )
    torch.testing.assert_close(terms.mismatch_kl, (engine.exp() * (engine - policy)).sum())


def test_hint_tokens_get_no_advantage_and_generated_tokens_no_supervision() -> None:
    logprobs = torch.tensor([-0.3, -0.7], requires_grad=True)
    # Token 0 is a hint that carries, wrongly, an advantage; token 1 is generated.
    batch = tokens_of([0.0, 1.0], [1.0, 0.0], [5.0, 0.5], [0.0, -0.7])
    terms = seele_loss(logprobs, logprobs.detach(), batch, COEFFICIENTS, Denominators(1.0, 0.0, 1.0))
    terms.total.backward()
    assert logprobs.grad is not None
    assert terms.supervised.item() == pytest.approx(0.3)
    assert terms.policy.item() == pytest.approx(-0.5)
    assert logprobs.grad.tolist() == pytest.approx([-GAMMA, -0.5])


def test_the_total_is_the_sum_of_the_terms_with_their_coefficients() -> None:
    logprobs = torch.tensor([-0.3, -0.7, -1.4])
    batch = tokens_of([0.0, 1.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.5, -0.3], [0.0, -0.6, -1.5])
    terms = seele_loss(logprobs, torch.tensor([-0.4, -0.9, -1.0]), batch, COEFFICIENTS, Denominators(3.0, 0.0, 1.0))
    assert terms.kl.item() > 0
    torch.testing.assert_close(terms.total, terms.policy + GAMMA * terms.supervised + 0.1 * terms.kl)


@given(cut=st.integers(0, 12), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_micro_batches_add_up_to_the_whole_however_they_are_cut(cut: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logprobs, reference, behaviour, advantage = (-torch.rand(12, generator=generator) for _ in range(4))
    kinds = torch.randint(0, 3, (12,), generator=generator)
    generated, off_policy, supervised = ((kinds == kind).float() * 2.0 for kind in range(3))
    kept = torch.rand(12, generator=generator) < 0.7
    batch = replace(
        tokens_of(generated.tolist(), supervised.tolist(), [0.0] * 12, behaviour.tolist(), off_policy.tolist()),
        advantage=advantage + 0.5,
        shaping=0.1 * (advantage > -0.5),
        clipped=behaviour < -0.5,
    )
    denominators = Denominators(float(generated.sum()), float(off_policy.sum()), 5.0)

    def part(chosen: slice) -> LossTerms:
        return seele_loss(
            logprobs[chosen],
            reference[chosen],
            SampleFields(**{name: tensor[chosen] for name, tensor in vars(batch).items()}),
            COEFFICIENTS,
            denominators,
            kept[chosen],
        )

    whole, first, second = part(slice(None)), part(slice(cut)), part(slice(cut, None))
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(first, name) + getattr(second, name), value, msg=name)


def test_a_stream_without_any_token_has_no_loss() -> None:
    logprobs = torch.tensor([-0.3], requires_grad=True)
    terms = seele_loss(logprobs, None, tokens_of([0.0], [0.0], [0.0], [0.0]), COEFFICIENTS, Denominators(0.0, 0.0, 0.0))
    terms.total.backward()
    assert terms.total.item() == 0
    assert logprobs.grad is not None
    assert float(logprobs.grad[0]) == 0


@pytest.mark.parametrize(
    ("probability", "advantage", "value", "gradient"),
    [
        # f(w) = w / (w + 0.1); its derivative by log w is 0.1 w / (w + 0.1)^2.
        pytest.param(0.1, 0.5, -0.25, -0.125, id="an unlikely token of the solution: pulled up most"),
        pytest.param(0.9, 0.5, -0.45, -0.045, id="a likely one: hardly any more"),
        pytest.param(0.4, -0.5, 0.4, 0.08, id="in a group that does better without it: pushed down"),
    ],
)
def test_a_shaped_token_of_the_solution_is_weighted_by_its_probability(
    probability: float, advantage: float, value: float, gradient: float
) -> None:
    logprob = torch.tensor([math.log(probability)], requires_grad=True)
    batch = tokens_of([0.0], [0.0], [advantage], [0.0], off_policy=[1.0], shaping=0.1)
    terms = seele_loss(logprob, logprob.detach() - 1, batch, COEFFICIENTS, Denominators(0.0, 1.0, 0.0))
    terms.total.backward()
    assert logprob.grad is not None
    assert terms.policy.item() == pytest.approx(value)
    assert logprob.grad.item() == pytest.approx(gradient)
    # It was not sampled: neither the KL term nor the clip includes it.
    assert (terms.kl.item(), terms.clip_fraction.item(), terms.mismatch_kl.item()) == (0.0, 0.0, 0.0)


def test_an_off_policy_token_without_shaping_has_the_plain_policy_gradient_however_unlikely() -> None:
    logprobs = torch.tensor([-0.1, -50.0, -1e4], requires_grad=True)
    batch = tokens_of([0.0] * 3, [0.0] * 3, [0.75] * 3, [0.0] * 3, off_policy=[1.0, 2.0, 1.0])
    seele_loss(logprobs, None, batch, COEFFICIENTS, Denominators(0.0, 4.0, 0.0)).total.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.75 / 4, -1.5 / 4, -0.75 / 4])


def test_off_policy_and_generated_tokens_share_the_denominator_of_the_policy_term_but_not_that_of_the_kl() -> None:
    logprobs = torch.tensor([math.log(0.4), -0.7], requires_grad=True)
    batch = tokens_of([0.0, 1.0], [0.0, 0.0], [0.5, -0.5], [0.0, -0.7], off_policy=[1.0, 0.0], shaping=0.1)
    reference = torch.tensor([-3.0, -0.7 + math.log(2)])
    terms = seele_loss(logprobs, reference, batch, COEFFICIENTS, Denominators(1.0, 1.0, 0.0))
    assert terms.policy.item() == pytest.approx((-0.5 * 0.8 + 0.5) / 2)
    assert terms.kl.item() == pytest.approx(2 - math.log(2) - 1)


def test_the_most_uncertain_tokens_are_chosen_in_each_row_for_itself() -> None:
    entropy = torch.tensor([0.9, 0.1, 0.5, 0.7, 0.2, 0.3, 0.8])
    candidates = torch.tensor([False, True, True, True, True, True, True])
    rows = torch.tensor([0, 0, 0, 0, 2, 2, 2])
    chosen = most_uncertain(entropy, candidates, rows, torch.tensor([2, 5, 1])[rows])
    assert chosen.tolist() == [False, False, True, True, False, False, True]


def test_of_equally_uncertain_tokens_the_first_are_chosen() -> None:
    every, row = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.int64)
    chosen = most_uncertain(torch.zeros(5), every, row, torch.full((5,), 2))
    assert chosen.tolist() == [True, True, False, False, False]


def test_tokens_that_do_not_learn_have_no_gradient_and_still_count() -> None:
    logprobs = torch.tensor([-0.5, -0.5, -0.5, -0.5, -0.7], requires_grad=True)
    batch = tokens_of(
        [0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.5], [0.0] * 4 + [-0.7],
        off_policy=[0.0, 0.0, 1.0, 1.0, 0.0],
    )  # fmt: skip
    kept = torch.tensor([True, False, True, False, False])
    terms = seele_loss(logprobs, None, batch, COEFFICIENTS, Denominators(1.0, 2.0, 2.0), kept)
    terms.total.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-GAMMA / 2, 0.0, -0.5 / 3, 0.0, -0.5 / 3])
    assert terms.supervised.item() == pytest.approx(0.5)
