"""Writes a folder of InternVL2-1B's published layout, key names and shapes with random bfloat16 weights.

    python tests/models/make_released_layout.py FOLDER [LAYERS]

LAYERS of each stack, in place of all 24.

What the weights say is noise; what loading and answering cost is real.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from mini_internvl import MiniInternVL, MiniInternVLConfig

CONFIG: dict[str, Any] = {
    "_commit_hash": None,
    "architectures": ["InternVLChatModel"],
    "auto_map": {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
    },
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 448,
    "llm_config": {
        "_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "attn_implementation": "flash_attention_2",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 896,
        "initializer_range": 0.02,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 24,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_bfloat16": True,
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": 151655,
    },
    "max_dynamic_patch": 12,
    "min_dynamic_patch": 1,
    "model_type": "internvl_chat",
    "pad2square": False,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "Hermes-2",
    "torch_dtype": "bfloat16",
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "attention_dropout": 0.0,
        "drop_path_rate": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "image_size": 448,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-06,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "qk_normalization": False,
        "qkv_bias": True,
        "use_flash_attn": True,
    },
}
PARTS = ("llm_config", "vision_config")
BASE_TOKENS = 151643
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
MARKUP = ("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")


def make(folder: Path, layers: int = 24) -> int:
    """Writes config.json, model.safetensors and tokenizer files; returns the bytes of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, **{part: {**CONFIG[part], "num_hidden_layers": layers} for part in PARTS}}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_tokenizer(folder)
    with torch.device("meta"):
        network = MiniInternVL(MiniInternVLConfig.from_dict(config))
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    return _write_weights(folder / "model.safetensors", shapes)


def _write_weights(path: Path, shapes: dict[str, torch.Size]) -> int:
    """A safetensors file tensor by tensor, so that making it takes no memory to speak of."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = torch.empty(1 << 20, dtype=torch.bfloat16)
    noise.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            if "norm" in name and name.endswith("weight"):
                tensor = torch.ones(shape, dtype=torch.bfloat16)
            else:  # the same noise again and again: drawing a billion numbers takes longer than all else
                tensor = noise.repeat(shape.numel() // len(noise) + 1)[: shape.numel()]
            file.write(tensor.view(torch.uint8).numpy().data)
    return end


def _write_tokenizer(folder: Path) -> None:
    """Byte-level BPE with the published ids of the control tokens; the other words are fillers."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    pieces = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    pairs = [(left, right) for left in pieces for right in pieces]
    merges = [*pairs, *((left + right, pieces[0]) for left, right in pairs)]
    merges += [(left + right, pieces[1]) for left, right in pairs]
    merges = merges[: BASE_TOKENS - 256]
    pieces += ["".join(merge) for merge in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8"
    )
    added = {token: BASE_TOKENS + i for i, token in enumerate((*CONTROL, *MARKUP))}
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=2), encoding="utf-8")
    special = {
        "additional_special_tokens": list(added)[1:],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        **special,
        "added_tokens_decoder": {str(i): {"content": token, **flags} for token, i in added.items()},
        "tokenizer_class": "Qwen2Tokenizer",
        "errors": "replace",
        "model_max_length": 8192,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


if __name__ == "__main__":
    size = make(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
    sys.stdout.write(f"{sys.argv[1]}: {size / 1e9:.2f} GB of weights\n")
