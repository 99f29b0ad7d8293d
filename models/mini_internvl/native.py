"""Writing transformers' native InternVL layout, which other programs open without code of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mini_internvl.chat_template import ChatTemplate
from mini_internvl.errors import CheckpointError
from mini_internvl.fast_tokenizer import PROBES, write_fast_tokenizer
from mini_internvl.layout import native_recipe
from mini_internvl.model import IMAGENET_MEAN, IMAGENET_STD
from mini_internvl.prompts import IMAGE_CONTEXT, Template, build_prompt
from mini_internvl.weights import replacing, write_weights

if TYPE_CHECKING:
    from mini_internvl.chat import ChatModel
    from mini_internvl.config import VisionConfig


def write_native(
    network: ChatModel,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = 5_000_000_000,
) -> list[Path]:
    """Writes config, weights, tokenizer, processor settings and chat template in transformers' layout.

    Args:
        network: with its tokenizer, loaded from a folder.
        folder: is made if need be.
        dtype: of the stored weights; None keeps theirs.
        shard_bytes: most bytes of one weight file.

    Returns:
        The weight files.

    Raises:
        CheckpointError: the network has a setting that transformers' InternVL has not, or no tokenizer.
        TokenizerError: its tokenizer has no equal `tokenizer.json`.
    """
    if network.tokenizer is None or network.folder is None:
        raise CheckpointError("only a checkpoint with its tokenizer files can be written for transformers")
    _check(network)
    folder.mkdir(parents=True, exist_ok=True)
    turns = [
        (build_prompt(network.template, text, history=[(text, text)], system_message=system), text)
        for system, text in product(dict.fromkeys((None, network.system_message)), PROBES)
    ]
    video = write_fast_tokenizer(network.tokenizer, network.folder, folder, turns)
    state = native_state(network.state_dict(), tied=_tied(network))
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    kind = str(next(iter(state.values())).dtype).removeprefix("torch.")
    prompt = network.template
    if isinstance(prompt, ChatTemplate):
        template = prompt.source
    else:
        template = chat_template(prompt, network.system_message, video)
    contents: dict[str, Mapping[str, Any]] = {
        "config.json": native_config(network, kind),
        "generation_config.json": _generation(network),
        "preprocessor_config.json": _images(network),
        "processor_config.json": {
            "processor_class": "InternVLProcessor",
            "image_seq_length": network.config.num_image_token,
        },
    }
    for name, content in contents.items():
        with replacing(folder / name) as path:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with replacing(folder / "chat_template.jinja") as path:
        path.write_text(template, encoding="utf-8")
    return write_weights(state, folder, shard_bytes)


def native_state(state: Mapping[str, Tensor], *, tied: bool = False) -> dict[str, Tensor]:
    """The module's state under transformers' names, the encoder's q, k and v apart.

    Args:
        state: `MiniInternVL.state_dict()`.
        tied: whether the head is the embedding, which is then stored once.
    """
    native: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tied and name == "language_model.lm_head.weight":
            continue
        sources = native_recipe(name).sources
        parts = tensor.chunk(len(sources)) if len(sources) > 1 else (tensor,)
        native.update(zip(sources, parts, strict=True))
    return native


def native_config(network: ChatModel, dtype: str) -> dict[str, Any]:
    """`config.json` of `InternVLForConditionalGeneration`."""
    import transformers

    text = network.language_model.config.to_dict()
    stop = network.rules.stop
    text.update(eos_token_id=stop[0], dtype=dtype, tie_word_embeddings=_tied(network))
    text.pop("torch_dtype", None)
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "dtype": dtype,
        "vision_config": _vision(network.config.vision),
        "text_config": text,
        "image_token_id": network.image_token_id,
        "image_seq_length": network.config.num_image_token,
        "downsample_ratio": network.config.downsample_ratio,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": network.config.select_layer,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": _tied(network),
        "transformers_version": transformers.__version__,
    }


def _vision(vision: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "internvl_vision",
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_hidden_layers,
        "num_attention_heads": vision.num_attention_heads,
        "num_channels": vision.num_channels,
        "image_size": [vision.image_size, vision.image_size],
        "patch_size": [vision.patch_size, vision.patch_size],
        "layer_norm_eps": vision.layer_norm_eps,
        "hidden_act": vision.hidden_act,
        "norm_type": vision.norm_type,
        "attention_bias": vision.qkv_bias,
        "use_qk_norm": vision.qk_normalization,
        "use_mean_pooling": True,
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
    }


def _generation(network: ChatModel) -> dict[str, Any]:
    tokenizer = network.tokenizer
    assert tokenizer is not None
    stop = list(network.rules.stop)
    pad = getattr(tokenizer, "pad_id", None)
    bos = network.language_model.config.bos_token_id
    ids = {"bos_token_id": bos, "eos_token_id": stop, "pad_token_id": stop[0] if pad is None else pad}
    return {"do_sample": False, **{name: value for name, value in ids.items() if value is not None}}


def _images(network: ChatModel) -> dict[str, Any]:
    """Settings of `GotOcr2ImageProcessor`, which cuts tiles as the released code does."""
    config = network.config
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "processor_class": "InternVLProcessor",
        "crop_to_patches": config.dynamic_image_size,
        "min_patches": config.min_dynamic_patch,
        "max_patches": config.max_dynamic_patch,
        "size": {"height": config.image_size, "width": config.image_size},
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _check(network: ChatModel) -> None:
    """Refuses what transformers' classes do not have."""
    config = network.config
    found = []
    if config.ps_version != "v2":
        found.append(f"ps_version {config.ps_version}")
    if config.dynamic_image_size and not config.use_thumbnail:
        found.append("use_thumbnail false")
    if network.int8:
        found.append("int8 weights")
    if found:
        raise CheckpointError(
            f"{network.folder}: transformers' InternVL has no {', '.join(found)}; such a checkpoint stays in "
            "the released layout"
        )


def _tied(network: ChatModel) -> bool:
    return bool(network.language_model.config.tie_word_embeddings)


def chat_template(template: Template, system_message: str | None, video_token: str) -> str:
    """The conversation template in Jinja, with the system message the weights were trained with.

    A line break follows an image unless the text behind it begins with a space or a line break: messages with
    parts of their own carry none.

    Args:
        template: of the checkpoint. system_message: of a conversation without a system turn.
        video_token: stands for a video.
    """

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    marks = {"system": template.system, "user": template.user, "assistant": template.assistant}
    roles = ", ".join(f"{text(role)}: {text(mark)}" for role, mark in marks.items())
    opening = template.opening(system_message)
    lines = [
        f"{{%- set marks = {{{roles}}} -%}}",
        "{%- if not messages or messages[0]['role'] != 'system' -%}",
        f"{{{{- {text(opening)} -}}}}" if opening else "",
        "{%- endif -%}",
        "{%- for message in messages -%}",
        "{{- marks[message['role']] -}}",
        "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}",
        "{%- for part in message['content'] -%}",
        "{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- else -%}",
        f"{{{{- {text(video_token)} if part['type'] == 'video' else {text(IMAGE_CONTEXT)} -}}}}",
        "{%- if not loop.last and (loop.nextitem['type'] != 'text' or "
        "loop.nextitem['text'][:1] not in (' ', '\\n')) -%}{{- '\\n' -}}{%- endif -%}",
        "{%- endif -%}",
        "{%- endfor -%}",
        "{%- endif -%}",
        f"{{{{- {text(template.separator)} -}}}}",
        "{%- endfor -%}",
        f"{{%- if add_generation_prompt -%}}{{{{- {text(template.assistant)} -}}}}{{%- endif -%}}",
    ]
    return "\n".join(line for line in lines if line) + "\n"
