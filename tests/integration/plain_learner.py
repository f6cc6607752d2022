"""The reference for the learner, in plain PyTorch and one process.

Without micro-batches: it takes one sample at a time, unpadded, and computes the loss as the papers write it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.integration.learner_cases import TOTAL_UPDATES, Case, config_of, model_folder, samples_of


@dataclass(frozen=True)
class Plain:
    """Norms of the gradients before clipping, total losses, and the last weights."""

    norms: list[float]
    losses: list[float]
    weights: dict[str, Tensor]


def plain_pytorch(case: Case, shared: Path) -> Plain:
    training = config_of(case, shared).training
    model, initial = (
        AutoModelForCausalLM.from_pretrained(model_folder(shared, tied=case.tied)).eval() for _ in range(2)
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=training.adam_betas, weight_decay=training.weight_decay
    )
    norms, losses = [], []
    for number, samples in enumerate(samples_of(shared, case.samples)):
        optimizer.zero_grad()
        generated = sum(int(sample.policy_mask.sum()) for sample in samples)
        with_advantage = generated + sum(int(sample.off_policy.sum()) for sample in samples)
        supervised = sum(int((sample.supervised > 0).sum()) for sample in samples)
        losses.append(0.0)
        for sample in samples:
            tokens = torch.tensor(sample.tokens)
            tempered = torch.tensor(sample.policy_mask | sample.off_policy)[1:]
            temperature = torch.where(tempered, case.temperature, 1.0)[:, None]
            chosen = tokens[1:, None]
            predicted = (model(input_ids=tokens[None]).logits[0, :-1] / temperature).log_softmax(-1)
            logprob = predicted.gather(-1, chosen)
            entropy = -(predicted.detach().exp() * predicted.detach()).sum(-1)
            given = [at for at in range(1, len(tokens)) if sample.supervised[at] or sample.off_policy[at]]
            given.sort(key=lambda at, entropy=entropy: -entropy[at - 1].item())
            learning = given[: sample.most_uncertain]
            with torch.no_grad():
                reference = initial(input_ids=tokens[None]).logits[0, :-1] / temperature
                reference = reference.log_softmax(-1).gather(-1, chosen)
            loss = torch.zeros(())
            for position in range(1, len(tokens)):
                now = logprob[position - 1, 0]
                advantage = float(sample.advantage[position])
                if sample.supervised[position] and position in learning:
                    loss = loss - float(sample.supervised[position]) * now / supervised
                if sample.off_policy[position] and position in learning:
                    weight = now.exp() / (now.exp() + sample.shaping) if sample.shaping else (now - now.detach()).exp()
                    loss = loss - advantage * weight / with_advantage
                if sample.policy_mask[position]:
                    ratio = torch.exp(now - float(sample.behaviour_logprobs[position]))
                    bounded = ratio.clamp(0.8, 1.2) if sample.clipped else ratio.clamp(max=training.importance_cap)
                    surrogate = torch.min(ratio * advantage, bounded * advantage)
                    if advantage < 0:
                        surrogate = torch.max(surrogate, torch.tensor(training.importance_cap * advantage))
                    gap = reference[position - 1, 0] - now
                    loss = loss - surrogate / with_advantage
                    loss = loss + training.kl_coefficient * (gap.exp() - gap - 1) / generated
            if loss.requires_grad:
                loss.backward()
            losses[-1] += loss.item()
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm).item())
        # Linear from the peak to a tenth of it at the last of all updates.
        optimizer.param_groups[0]["lr"] = training.learning_rate * (1.0 - 0.9 * number / (TOTAL_UPDATES - 1))
        optimizer.step()
    return Plain(norms, losses, {name: value.detach() for name, value in model.named_parameters()})
