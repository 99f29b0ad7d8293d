"""Which keys of `llm_config` and `vision_config` are read, are harmless, or would change the network.

A key that would change the network and is not honoured is refused by name, and so is one that is in no list:
a checkpoint is computed rightly or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mini_internvl.errors import ConfigError


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


HARMLESS = words(
    """
    architectures attn_implementation auto_map bad_words_ids begin_suppress_tokens
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label
    image_token_id image_token_index initializer_factor initializer_range is_decoder
    keys_to_ignore_at_inference label2id length_penalty max_length max_new_tokens min_length
    name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences
    output_attentions output_hidden_states output_router_logits output_scores pad_token_id prefix
    pretraining_tp problem_type remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16
    use_cache use_flash_attn use_flash_attention_2 use_liger_kernel vision_start_token_id
    vision_end_token_id vision_token_id
    """
)
"""Keys of any configuration that say how weights are stored or trained, or text is searched for."""

_LANGUAGE = words(
    """
    model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads hidden_act max_position_embeddings rms_norm_eps attention_dropout
    tie_word_embeddings bos_token_id eos_token_id rope_theta rope_scaling rope_parameters
    original_max_position_embeddings resid_pdrop embd_pdrop max_window_layers
    """
)
_VISION = words(
    """
    model_type hidden_size intermediate_size num_hidden_layers num_attention_heads num_channels
    patch_size image_size layer_norm_eps hidden_act norm_type qkv_bias qk_normalization dropout
    attention_dropout drop_path_rate bos_token_id eos_token_id attention_bias use_qk_norm
    hidden_dropout_prob projection_dropout layer_scale_init_value capacity_factor eval_capacity_factor
    ep_size laux_allreduce moe_coeff_ratio moe_intermediate_size moe_output_scale noisy_gate_policy
    num_experts num_routed_experts num_shared_experts shared_expert_intermediate_size use_rts
    use_residual use_weighted_residual
    """
)
"""Read, for training alone, or of the mixture of experts that `use_moe` would switch on."""

_ROPE = words("type rope_type rope_theta factor short_factor long_factor original_max_position_embeddings")


_OTHER_NETWORKS = {
    "flash_mode": "InternVL3.5-Flash, which chooses a resolution for each tile",
    "flash_relative_threshold": "InternVL3.5-Flash, which chooses a resolution for each tile",
    "flash_absolute_threshold": "InternVL3.5-Flash, which chooses a resolution for each tile",
    "quantization_config": "quantised weights; take the checkpoint that they were made of, with --dtype int8",
}


def check_whole(raw: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another network with the same `model_type`.

    Raises:
        ConfigError: names the key and what it belongs to.
    """
    for name, what in _OTHER_NETWORKS.items():
        if raw.get(name):
            raise ConfigError(f"config.json: {name} belongs to {what}; it is not supported")


def check_language(llm: Mapping[str, Any], family: str, part: str = "llm_config") -> None:
    """Refuses settings of the language model that would change it and are not honoured.

    Raises:
        ConfigError: names the key, its value and the only one that is supported.
    """
    heads = llm.get("num_attention_heads") or 1
    width = int(llm.get("hidden_size") or 0) // int(heads)
    fixed: dict[str, tuple[Any, ...]] = {
        "head_dim": (llm.get("head_dim") if family == "qwen3" else width,),  # Qwen3's is its own setting
        "mlp_bias": (False,),
        "partial_rotary_factor": (1.0,),
        "attention_bias": {"qwen2": (True,), "phi3": (False,)}.get(family, (True, False)),
        "qkv_bias": {"qwen2": (True,), "qwen3": (bool(llm.get("attention_bias")),)}.get(
            family, (bool(llm.get("bias")),)
        ),
        "bias": (True, False),
    }
    _check_fixed(llm, fixed, part)
    if family == "internlm2" and llm.get("attention_bias", llm.get("bias", False)) != llm.get(
        "bias", llm.get("attention_bias", False)
    ):
        raise ConfigError(f"{part}: bias {llm['bias']} and attention_bias {llm['attention_bias']} differ")
    _check_window(llm, family, part)
    for name in ("rope_scaling", "rope_parameters"):
        _check_rope(llm, name, part)
    _check_unknown(llm, (*_LANGUAGE, *fixed, "sliding_window", "use_sliding_window", "layer_types"), part)


def check_vision(vision: Mapping[str, Any]) -> None:
    """Refuses settings of the image encoder that would change it and are not honoured.

    Raises:
        ConfigError: names the key, its value and the only one that is supported.
    """
    fixed: dict[str, tuple[Any, ...]] = {
        "use_moe": (False,),
        "use_absolute_position_embeddings": (True,),
        "use_mask_token": (False,),
        "use_mean_pooling": (True,),
    }
    _check_fixed(vision, fixed, "vision_config")
    _check_unknown(vision, (*_VISION, *fixed), "vision_config")


def _check_fixed(raw: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], part: str) -> None:
    for name, allowed in fixed.items():
        value = raw.get(name)
        if value is not None and value not in allowed:
            raise ConfigError(
                f"config.json: {part}.{name} {value!r} is not supported, only "
                f"{' or '.join(str(each) for each in allowed)}"
            )


def _check_window(llm: Mapping[str, Any], family: str, part: str) -> None:
    """Sliding attention is accepted only where no layer slides."""
    layers = llm.get("layer_types") or ()
    window = llm.get("sliding_window")
    slides = any(layer != "full_attention" for layer in layers)
    if window is not None and not layers and family != "internlm2":
        most = int(llm.get("max_position_embeddings") or 0)
        used = family == "phi3" or bool(llm.get("use_sliding_window"))
        first = 0 if family == "phi3" else int(llm.get("max_window_layers") or 0)
        slides = used and int(window) < most and first < int(llm.get("num_hidden_layers") or 0)
    if slides:
        raise ConfigError(
            f"config.json: {part} asks for sliding attention (sliding_window {window}), "
            "which is not supported"
        )


def _check_rope(llm: Mapping[str, Any], name: str, part: str) -> None:
    rope = llm.get(name)
    if rope is None:
        return
    if not isinstance(rope, Mapping):
        raise ConfigError(f"config.json: {part}.{name} is not an object")
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ConfigError(
            f"config.json: {part}.{name}.partial_rotary_factor {rope['partial_rotary_factor']!r} is not "
            "supported, only 1.0"
        )
    _check_unknown(rope, (*_ROPE, "partial_rotary_factor"), f"{part}.{name}")
    theta, other = rope.get("rope_theta"), llm.get("rope_theta")
    if theta is not None and other is not None and float(theta) != float(other):
        raise ConfigError(
            f"config.json: {part}.{name}.rope_theta {theta} and {part}.rope_theta {other} differ; "
            "remove the one that the weights were not trained with"
        )


def _check_unknown(raw: Mapping[str, Any], known: Iterable[str], part: str) -> None:
    """Keys in no list; one that is empty or off says nothing, one with a leading `_` is transformers' own."""
    names = HARMLESS.union(known)
    unknown = sorted(
        name
        for name, value in raw.items()
        if name not in names and not name.startswith("_") and value not in (None, False, "", [], {}, ())
    )
    if unknown:
        shown = ", ".join(f"{name} {raw[name]!r}"[:80] for name in unknown[:10])
        raise ConfigError(
            f"config.json: {part} has {len(unknown)} unknown key{'' if len(unknown) == 1 else 's'}: {shown}; "
            "they may change the network: remove them if they do not"
        )
