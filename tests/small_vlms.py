"""Small random image-text models as folders that transformers loads: LLaVA, Qwen2-VL and its own InternVL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

KINDS = ("llava", "qwen2-vl", "internvl")

_SPECIAL = {
    "llava": ["<image>"],
    "qwen2-vl": ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "internvl": ["<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
}
_PICTURE = {
    "llava": "<image>\n",
    "qwen2-vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "internvl": "<IMG_CONTEXT>\n",
}
_TILE = {"size": 28, "patch": 7, "most": 4}
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 257,
}


def make_vlm(
    kind: str,
    folder: Path,
    seed: int = 0,
    spread: float = 0.15,
    tile: Mapping[str, int] = _TILE,
    vision: Mapping[str, int] | None = None,
    **text: int,
) -> Path:
    """Write model, processor and chat template of one of `KINDS` into `folder`.

    Args:
        spread: of the random weights; large, so that answers differ from picture to picture.
        tile: of InternVL, sides of tile and patch in pixels, and the most tiles of an image.
        vision: settings of InternVL's encoder in place of the small ones here. text: of the language model.
    """
    import torch

    tokenizer = _tokenizer(kind)
    torch.manual_seed(seed)
    model = _model(kind, tokenizer, text, tile, vision or {})
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "norm" not in name:
                weight.normal_(0, spread)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 256, 257
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _image_processor(kind, tile).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(_template(kind), encoding="utf-8")
    if kind != "qwen2-vl":
        _processor_config(kind, folder, _tokens_a_tile(tile))
    return folder


def _tokenizer(kind: str) -> Any:
    """Bytes, an end, padding, and the marks of the kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_end|>", "<pad>", *_SPECIAL[kind]])
    names: dict[str, str] = {}
    if kind == "internvl":
        keys = ("start_image_token", "end_image_token", "context_image_token", "video_token")
        names = dict(zip(keys, _SPECIAL[kind][1:], strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens=names,
        model_max_length=8192,
    )


def _template(kind: str) -> str:
    """In the manner of the published templates: each message in marks, pictures where they stand."""
    start, end = ("", "\n") if kind == "llava" else ("<|im_start|>", "<|im_end|>\n")
    return (
        "{% for message in messages %}"
        f"{start}{{{{ message.role }}}}\n"
        "{% if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}"
        "{% if part.type == 'image' %}"
        + _PICTURE[kind].replace("\n", "{{ '\\n' }}")
        + "{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endif %}"
        f"{end}"
        "{% endfor %}"
        "{% if add_generation_prompt %}" + f"{start}assistant\n" + "{% endif %}"
    )


def _tokens_a_tile(tile: Mapping[str, int]) -> int:
    return int((tile["size"] // tile["patch"] // 2) ** 2)


def _model(
    kind: str, tokenizer: Any, changes: Mapping[str, int], tile: Mapping[str, int], vision: Mapping[str, int]
) -> Any:
    import transformers

    text = {"vocab_size": len(tokenizer), **_TEXT, **changes}

    def number(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))

    if kind == "llava":
        clip = transformers.CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14, projection_dim=32,
        )  # fmt: skip
        config = transformers.LlavaConfig(
            vision_config=clip,
            text_config=transformers.LlamaConfig(**text),
            image_token_id=number("<image>"),
            image_seq_length=4,
            vision_feature_layer=-1,
        )
        return transformers.LlavaForConditionalGeneration(config)
    if kind == "qwen2-vl":
        config = transformers.Qwen2VLConfig(
            text_config={
                **text,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            },
            vision_config={
                "depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2,
                "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            },
            image_token_id=number("<|image_pad|>"),
            video_token_id=number("<|video_pad|>"),
            vision_start_token_id=number("<|vision_start|>"),
            vision_end_token_id=number("<|vision_end|>"),
        )  # fmt: skip
        return transformers.Qwen2VLForConditionalGeneration(config)
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [tile["size"]] * 2, "patch_size": [tile["patch"]] * 2, **vision,
        },
        text_config={**text, "model_type": "qwen2"},
        image_token_id=number("<IMG_CONTEXT>"),
        image_seq_length=_tokens_a_tile(tile),
        downsample_ratio=0.5,
    )  # fmt: skip
    return transformers.InternVLForConditionalGeneration(config)


def _image_processor(kind: str, tile: Mapping[str, int]) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    if kind == "llava":
        return CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    if kind == "qwen2-vl":
        return Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=8 * 28 * 28)
    size = {"height": tile["size"], "width": tile["size"]}
    return GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=tile["most"])


def _processor_config(kind: str, folder: Path, tokens: int) -> None:
    import json

    content: dict[str, Any] = {
        "llava": {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
            "image_token": "<image>",
        },
        "internvl": {"processor_class": "InternVLProcessor", "image_seq_length": tokens},
    }[kind]
    (folder / "processor_config.json").write_text(json.dumps(content), encoding="utf-8")
