"""The learner computes the model that its weights define: every family of models that has a way to go wrong, tiny."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from seele_trainer.config import Model
from seele_trainer.learner.comparison import DifferentComputation, check_computation
from seele_trainer.learner.model import TokenScorer, load_scorer
from seele_trainer.rollout.transformers_engine import attention_for

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    # Large enough for predictions that differ from chance.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.1,
    # Mixtures of experts.
    "moe_intermediate_size": 16,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    # GPT-2.
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    # Bloom.
    "n_layers": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
    "qwen3": {},
    "qwen3_moe": {},
    # Sliding windows and chunks, longer than the sequences that are compared.
    "mistral": {"sliding_window": 64},
    "llama4_text": {"attention_chunk_size": 64},
    "cohere2": {"sliding_window": 64},
    "exaone4": {"sliding_window": 64},
    # Caps on attention scores, which sdpa leaves out.
    "gemma2": {"attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "vaultgemma": {"attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    # Sinks, which sdpa cannot compute.
    "gpt_oss": {},
    "granite_swa": {},
    # Scaled and capped logits, after the head.
    "gemma": {},
    "gemma3_text": {"final_logit_softcapping": 5.0},
    "granite": {"logits_scaling": 3.0, "attention_multiplier": 0.5},
    "granitemoe": {},
    "cohere": {"logit_scale": 2.0},
    "nanochat": {},
    "minimax": {"router_jitter_noise": 0.1},
    # Noise in training mode.
    "mixtral": {"router_jitter_noise": 0.1},
    "phimoe": {"router_jitter_noise": 0.1, "input_jitter_noise": 0.1},
    # Dropout under other names.
    "gpt2": {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2},
    "gpt_neox": {"hidden_dropout": 0.2},
    "phi3": {"resid_pdrop": 0.2, "embd_pdrop": 0.2},
    "starcoder2": {"residual_dropout": 0.2, "embedding_dropout": 0.2},
    "stablelm": {"hidden_dropout": 0.2},
    "opt": {"dropout": 0.2, "layerdrop": 0.2, "ffn_dim": 48, "word_embed_proj_dim": 32},
    # Positions by a bias on attention scores, and other attention.
    "bloom": {"hidden_dropout": 0.2},
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "olmo2": {},
    "glm4": {},
    "smollm3": {},
    "mamba": {},
}


def configuration(family: str, **options: Any) -> PreTrainedConfig:
    kind = CONFIG_MAPPING[family]
    known = {name: value for name, value in TINY.items() if hasattr(kind(), name)}
    return kind(**{**known, **FAMILIES.get(family, {}), **options})


def saved(config: PreTrainedConfig, folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder)
    return Model(name=str(folder))


def gemma2() -> Gemma2Config:
    return configuration("gemma2")  # type: ignore[return-value]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_family_is_trained_as_its_weights_define_it(
    family: str, dtype: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_scorer(saved(configuration(family), tmp_path, dtype), dtype, gradient_checkpointing=family != "mamba")

    with caplog.at_level(logging.INFO):
        check_computation(scorer, family)

    assert "on average" in caplog.text, "it was not compared"


def test_the_logits_of_gemma_2_differ_under_sdpa_and_the_learner_does_not_use_it(tmp_path: Path) -> None:
    model = saved(gemma2(), tmp_path)
    tokens = torch.arange(3, 35)[None]

    def logits(implementation: str | None) -> torch.Tensor:
        loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=implementation)
        with torch.no_grad():
            return loaded.eval()(input_ids=tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]

    with torch.no_grad():
        learnt = load_scorer(model, torch.float32)(tokens, torch.arange(1, tokens.shape[1]), None)

    assert (logits("sdpa") - logits("eager")).abs().max() > 0.5
    torch.testing.assert_close(learnt, logits("eager"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_attention_that_leaves_something_out_is_an_error_that_names_model_and_implementations(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(gemma2(), attn_implementation="sdpa").to(dtype)

    with pytest.raises(DifferentComputation, match=r"'org/gemma' \(Gemma2ForCausalLM\).*'sdpa'.*'eager'"):
        check_computation(TokenScorer(model), "org/gemma")


def test_a_window_that_is_ignored_is_found_though_it_is_longer_than_what_is_compared() -> None:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(configuration("mistral"))
    forward = model.model.forward

    def ignoring(*args: Any, **options: Any) -> Any:
        if model.config._attn_implementation == "sdpa":
            model.config.sliding_window = 64
        return forward(*args, **options)

    model.model.forward = ignoring

    with pytest.raises(DifferentComputation):
        check_computation(TokenScorer(model), "windowed")


def test_noise_that_training_mode_adds_is_found() -> None:
    torch.manual_seed(0)
    noisy = AutoModelForCausalLM.from_config(GPT2Config(**{**TINY, "resid_pdrop": 0.1}))

    with pytest.raises(DifferentComputation, match="GPT2LMHeadModel"):
        check_computation(TokenScorer(noisy), "noisy")


def test_attention_to_the_padding_is_found() -> None:
    torch.manual_seed(0)
    both_ways = AutoModelForCausalLM.from_config(configuration("bert", hidden_dropout_prob=0.0))

    with pytest.raises(DifferentComputation, match="BertLMHeadModel"):
        check_computation(TokenScorer(both_ways.eval()), "both-ways")


def test_a_comparison_leaves_everything_as_it_was(tmp_path: Path) -> None:
    scorer = load_scorer(saved(configuration("mistral"), tmp_path, torch.bfloat16), torch.bfloat16)
    scorer.eval()
    weights = {name: weight.clone() for name, weight in scorer.state_dict().items()}
    config, random = scorer.model.config.to_dict(), torch.get_rng_state()

    check_computation(scorer, "mistral")

    assert not any(module.training for module in scorer.modules())
    assert scorer.model.config.to_dict() == config
    assert scorer.model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), random)
    for name, weight in scorer.state_dict().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, weights[name]), name


def test_a_model_that_cannot_be_computed_otherwise_is_not_compared_and_a_warning_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**{**TINY, "attention_dropout": 0.0}))
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda _: False))

    check_computation(TokenScorer(model), "org/custom")

    assert "org/custom was not compared" in caplog.text
    assert "LlamaForCausalLM does not allow another attention implementation" in caplog.text


def test_dropout_is_removed_from_nested_configurations_and_from_modules(tmp_path: Path) -> None:
    loaded = load_scorer(saved(configuration("gpt2"), tmp_path / "gpt2"), torch.float32)
    dropouts = [module.p for module in loaded.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts
    assert set(dropouts) == {0.0}

    text = {name: value for name, value in TINY.items() if hasattr(CONFIG_MAPPING["gemma3_text"](), name)}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CONFIG_MAPPING["gemma3"](
        text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    assert config.text_config.attention_dropout == 0.1
    seeing = load_scorer(saved(config, tmp_path / "gemma3"), torch.float32)
    assert seeing.model.config.text_config.attention_dropout == 0.0
    check_computation(seeing, "gemma3")


def test_the_cap_of_a_nested_configuration_counts() -> None:
    class Seeing(PreTrainedConfig):
        sub_configs = {"text_config": Gemma2Config}  # noqa: RUF012

    seeing = Seeing()
    seeing.text_config = gemma2()

    assert attention_for(seeing) == "eager"
    assert attention_for(CohereConfig()) is None
    assert attention_for(configuration("gemma2", attn_logit_softcapping=None)) is None
