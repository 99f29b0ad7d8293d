"""Shapes of the embedded model."""

from __future__ import annotations

from mini_internvl.config import MiniInternVLConfig, VisionConfig

#: Short, so that little time goes into a text that never changes.
SYSTEM_MESSAGE = "InternVL"


def configuration(vocabulary: int, end: int, image_token: int) -> MiniInternVLConfig:
    """The settings: a 128 px tile becomes 16 visual tokens.

    Args:
        vocabulary: number of tokens. end: id of `<|im_end|>`. image_token: id of `<IMG_CONTEXT>`.
    """
    vision = VisionConfig(
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=5,
        patch_size=16,
        image_size=128,
    )
    llm = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    return MiniInternVLConfig(
        vision=vision,
        llm=llm,
        system_message=SYSTEM_MESSAGE,
        max_dynamic_patch=12,
        image_token_id=image_token,
    )
