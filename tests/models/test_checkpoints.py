"""Reading and writing checkpoint folders, and what is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import small_tokenizers
import torch
from safetensors.torch import load_file, save_file

import mini_internvl
from mini_internvl.errors import CheckpointError, ConfigError, TokenizerError
from mini_internvl.layout import fuse_wqkv, split_wqkv
from mini_internvl.weights import WeightReader, fingerprint, weight_files


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released checkpoint of the 2B's family, in one file."""
    folder = tmp_path_factory.mktemp("released")
    networks.save_native("internlm2", folder / "native")
    model = mini_internvl.load(folder / "native")
    mini_internvl.save_checkpoint(model, folder / "one")
    return folder / "one"


def copy(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with other entries in config.json."""
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.update(changes)
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (target / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return target


def rewrite(folder: Path, change: Any) -> None:
    """Changes the stored tensors in place."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_released_names_are_those_of_the_published_files(released: Path) -> None:
    names = set(load_file(released / "model.safetensors"))
    assert {
        "vision_model.embeddings.class_embedding",
        "vision_model.encoder.layers.0.attn.qkv.weight",
        "vision_model.encoder.layers.2.ls2",
        "mlp1.0.weight",
        "mlp1.3.bias",
        "language_model.model.tok_embeddings.weight",
        "language_model.model.layers.1.attention.wqkv.weight",
        "language_model.model.layers.1.attention.wo.weight",
        "language_model.model.layers.1.feed_forward.w2.weight",
        "language_model.model.layers.1.ffn_norm.weight",
        "language_model.output.weight",
    } <= names
    assert not any("q_proj" in name or "lm_head" in name for name in names)


def test_names_equal_the_oracles(shared_dir: Path, tmp_path: Path) -> None:
    for keys in sorted(shared_dir.glob("oracle/*/keys.txt")):
        model = mini_internvl.load(keys.parent, image_token_id=networks.IMAGE_TOKEN)
        mini_internvl.save_checkpoint(model, tmp_path / keys.parent.name)
        stored = load_file(tmp_path / keys.parent.name / "model.safetensors")
        original = load_file(keys.parent / "model.safetensors")
        assert stored.keys() == original.keys()
        assert all(torch.equal(stored[name], original[name]) for name in stored)


def test_wqkv_is_grouped_by_key_value_head(released: Path) -> None:
    config, _ = mini_internvl.read_config(released)
    rows = torch.arange(4 * 16 + 4 * 16)[:, None].float()
    q, k, v = split_wqkv(rows, config)
    assert q[:32, 0].tolist() == list(range(32)) and q[32:, 0].tolist() == list(range(64, 96))
    assert k[:, 0].tolist() == [*range(32, 48), *range(96, 112)]
    assert v[:, 0].tolist() == [*range(48, 64), *range(112, 128)]
    assert torch.equal(fuse_wqkv((q, k, v), config), rows)


def test_shards_with_an_index(released: Path, tmp_path: Path) -> None:
    model = mini_internvl.load(released)
    files = mini_internvl.save_checkpoint(model, tmp_path, shard_bytes=200_000)
    assert len(files) > 3 and (tmp_path / "model.safetensors.index.json").is_file()
    again = mini_internvl.load(tmp_path)
    batch = networks.inputs(((1, 6),))
    assert torch.equal(again(**batch), model(**batch))
    files[1].unlink()
    with pytest.raises(
        CheckpointError, match=rf"1 of {len(files)} weight files are missing: {files[1].name}"
    ):
        mini_internvl.load(tmp_path)
    mini_internvl.save_checkpoint(model, tmp_path)
    assert [p.name for p in sorted(tmp_path.glob("model*"))] == ["model.safetensors"]


def test_parts_without_an_index(released: Path, tmp_path: Path) -> None:
    state = load_file(released / "model.safetensors")
    folder = copy(released, tmp_path)
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    save_file({n: state[n] for n in names[:20]}, folder / "pytorch_model-1.safetensors")
    save_file({n: state[n] for n in names[20:]}, folder / "pytorch_model-2.safetensors")
    assert torch.equal(
        mini_internvl.load(folder)(**networks.inputs(((1, 6),))),
        mini_internvl.load(released)(**networks.inputs(((1, 6),))),
    )
    save_file({names[0]: state[names[0]]}, folder / "extra.safetensors")
    with pytest.raises(CheckpointError, match="holds as well"):
        mini_internvl.load(folder)


def test_missing_weights_are_named_and_counted(released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)
    rewrite(folder, lambda state: [state.pop(n) for n in sorted(state) if n.startswith("vision_model")])
    with pytest.raises(CheckpointError) as caught:
        mini_internvl.load(folder)
    text = str(caught.value)
    assert "46 weights missing: vision_model.embeddings.class_embedding, " in text
    assert text.count("vision_model.") == 10 and "\n" not in text


def test_unexpected_weights_are_named(released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)
    rewrite(folder, lambda state: state.update({"language_model.extra": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"1 weight unexpected: language_model\.extra"):
        mini_internvl.load(folder)


def test_buffers_of_old_versions_are_ignored(released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)
    name = "language_model.model.layers.0.attention.rotary_emb.inv_freq"
    rewrite(folder, lambda state: state.update({name: torch.zeros(8)}))
    assert mini_internvl.load(folder) is not None


def test_misshapen_weights_are_named(released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)

    def change(state: dict[str, torch.Tensor]) -> None:
        state["mlp1.1.weight"] = torch.zeros(64, 255)
        state["language_model.model.layers.0.attention.wqkv.weight"] = torch.zeros(100, 64)

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        mini_internvl.load(folder)
    text = str(caught.value)
    assert "mlp1.1.weight [64, 255], not [64, 256]" in text
    assert "4 weights of another shape" in text and "layers.0.attention.wqkv.weight" in text


def test_the_dtype_of_a_checkpoint_is_that_of_most_tensors(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(2, dtype=torch.bfloat16) for name in "abc"}
    tensors |= {name: torch.zeros(9) for name in "de"}
    save_file(tensors, tmp_path / "model.safetensors")
    assert WeightReader(weight_files(tmp_path)).stored_dtype() == torch.bfloat16


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickles_are_refused_with_the_way_to_convert(name: str, released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path / "pickled")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / name)
    with pytest.raises(CheckpointError, match=f"{name} is refused") as caught:
        mini_internvl.load(folder)
    if name != "pytorch_model.bin":
        return
    command = str(caught.value).split("in that folder: ", 1)[1]
    program = command.removeprefix('python -c "').removesuffix('"')
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=120)
    assert mini_internvl.load(folder).config.family == "internlm2"


def test_damaged_files_are_named(released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged or incomplete"):
        mini_internvl.load(folder)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        mini_internvl.load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"holds no \*\.safetensors"):
        mini_internvl.load(folder)


@pytest.mark.parametrize(
    "index", ["{", "{}", '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": 1}']
)
def test_a_broken_index_is_named(index: str, released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not an index"):
        mini_internvl.load(folder)


def test_an_adapter_alone_is_refused(tmp_path: Path, released: Path) -> None:
    folder = copy(released, tmp_path)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds an adapter"):
        mini_internvl.load(folder)


def test_models_that_need_code_are_refused(released: Path, tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "configuration_x.X"}
    folder = copy(released, tmp_path, model_type="other", auto_map=auto_map)
    (folder / "configuration_x.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    with pytest.raises(ConfigError, match="would need code from the checkpoint to be run, which is refused"):
        mini_internvl.load(folder)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"vision_config": None}, "no vision_config"),
        ({"llm_config": {"model_type": "llama"}}, "language model 'llama' is not one of"),
        ({"ps_version": "v3"}, "unknown ps_version"),
        ({"force_image_size": 60}, "is not a multiple of patch_size"),
        ({"downsample_ratio": 0.3}, "does not divide"),
    ],
)
def test_settings_that_make_no_sense(
    changes: dict[str, Any], message: str, released: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        mini_internvl.load(copy(released, tmp_path, **changes))


def test_unknown_rope_scaling_is_refused(released: Path, tmp_path: Path) -> None:
    config = json.loads((released / "config.json").read_text(encoding="utf-8"))
    config["llm_config"]["rope_scaling"] = {"type": "yarn", "factor": 2.0}
    with pytest.raises(ConfigError, match="rope_scaling 'yarn' is not supported for internlm2"):
        mini_internvl.load(copy(released, tmp_path, llm_config=config["llm_config"]))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_broken_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json"):
        mini_internvl.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        mini_internvl.load(tmp_path)


def test_config_round_trip(released: Path) -> None:
    config, native = mini_internvl.read_config(released)
    assert not native
    assert mini_internvl.MiniInternVLConfig.from_dict(config.to_dict()) == config


def test_old_junk_in_llm_config_is_harmless(released: Path, tmp_path: Path) -> None:
    config = json.loads((released / "config.json").read_text(encoding="utf-8"))["llm_config"]
    config.update(
        attn_implementation="eager", torch_dtype="bfloat16", auto_map={"x": "y"}, id2label={"0": "a"}
    )
    model = mini_internvl.load(copy(released, tmp_path, llm_config=config))
    assert model.language_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_half_precision_only_where_the_cpu_has_it(
    stored: torch.dtype, native: bool, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_internvl import checkpoint, loading

    monkeypatch.setattr(loading, "has_half_products", lambda dtype: native)
    monkeypatch.setattr(checkpoint, "RELEASE_AFTER", 100)
    model = mini_internvl.load(released, dtype="float32")
    mini_internvl.save_checkpoint(model, tmp_path, dtype=stored)
    again = mini_internvl.load(tmp_path, device="cpu")
    assert again.dtype == (stored if native else torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight.to(stored).to(again.dtype))


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_float16_on_a_gpu_without_bfloat16(
    native: bool, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_internvl import loading

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    mini_internvl.save_checkpoint(mini_internvl.load(released), tmp_path, dtype=torch.bfloat16)
    gpu = torch.device("cuda")
    wide = mini_internvl.load(released).config.family in ("qwen2", "qwen3")  # they overflow in float16
    half = torch.float32 if wide else torch.float16
    assert loading._auto_dtype(tmp_path, gpu) == (torch.bfloat16 if native else half)
    assert loading._auto_dtype(released, gpu) is None


def test_dtypes(released: Path, tmp_path: Path) -> None:
    model = mini_internvl.load(released)
    assert model.dtype == torch.float32
    mini_internvl.save_checkpoint(model, tmp_path, dtype=torch.bfloat16)
    assert mini_internvl.load(tmp_path, dtype="bfloat16").dtype == torch.bfloat16
    assert mini_internvl.load(tmp_path, dtype="float32").dtype == torch.float32
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["torch_dtype"] == "bfloat16"
    with pytest.raises(CheckpointError, match="unknown dtype"):
        mini_internvl.load(tmp_path, dtype="int3")
    with pytest.raises(CheckpointError, match="unknown device"):
        mini_internvl.load(tmp_path, device="abacus")


def test_fingerprint_is_of_the_contents(released: Path, tmp_path: Path) -> None:
    expected = hashlib.sha256((released / "model.safetensors").read_bytes()).hexdigest()
    assert mini_internvl.load(released).weights_fingerprint == expected
    folder = copy(released, tmp_path)
    assert fingerprint(weight_files(folder)) == expected
    rewrite(folder, lambda state: state["mlp1.1.bias"].add_(1))
    assert fingerprint(weight_files(folder)) != expected


def test_tokenizer_files_travel_with_the_weights(released: Path, tmp_path: Path) -> None:
    small_tokenizers.write_internlm2(tmp_path / "source")
    model = mini_internvl.load(released)
    mini_internvl.save_checkpoint(model, tmp_path / "target", tokenizer_from=tmp_path / "source")
    assert (tmp_path / "target" / "tokenizer.model").is_file()
    loaded = mini_internvl.load(tmp_path / "target")
    assert loaded.tokenizer is not None
    assert loaded.image_token_id == loaded.tokenizer.token_id("<IMG_CONTEXT>")


def test_the_base_is_named_as_for_loading(tmp_path: Path) -> None:
    tiny = mini_internvl.load(mini_internvl.TINY)
    mini_internvl.save_checkpoint(tiny, tmp_path / "again", tokenizer_from=mini_internvl.TINY)
    assert mini_internvl.load(tmp_path / "again").tokenizer is not None
    with pytest.raises(mini_internvl.CheckpointError, match="nowhere: no such folder or model"):
        mini_internvl.save_checkpoint(tiny, tmp_path / "other", tokenizer_from="nowhere")
    assert not (tmp_path / "other").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(released: Path, tmp_path: Path) -> None:
    folder = copy(released, tmp_path)
    small_tokenizers.write_internlm2(folder)
    path = folder / "tokenizer_config.json"
    text = path.read_text(encoding="utf-8")
    size = len(mini_internvl.read_tokenizer(folder) or "")
    path.write_text(text.replace(f'"{size - 1}": {{', '"600": {'), encoding="utf-8")
    with pytest.raises(TokenizerError, match="601 ids but the embedding only 512 rows"):
        mini_internvl.load(folder)


def test_system_messages(released: Path, tmp_path: Path) -> None:
    released = copy(released, tmp_path / "base", template="internlm2-chat")
    assert "InternVL" in mini_internvl.load(released).system_message
    v15 = copy(released, tmp_path / "Mini-InternVL-Chat-2B-V1-5")
    assert mini_internvl.load(v15).system_message.startswith("You are an AI assistant whose name is InternLM")
    (v15 / "conversation.py").write_text(
        "register(Conversation(name='internlm2-chat', system_message='published'))", encoding="utf-8"
    )
    assert mini_internvl.load(v15).system_message == "published"
    elsewhere = mini_internvl.load("mini-internvl-chat-2b-v1-5", folder=released)
    assert "InternLM" in elsewhere.system_message and elsewhere.name == "mini-internvl-chat-2b-v1-5"
    with pytest.raises(CheckpointError, match="no such folder"):
        mini_internvl.load("mini-internvl-2b", folder=tmp_path / "none")
    assert mini_internvl.load(copy(v15, v15, system_message=None)).system_message == "published"
    assert mini_internvl.load(copy(v15, v15, system_message="set")).system_message == "set"


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_an_absent_device_is_named_and_the_checkpoint_is_not_blamed(
    device: str, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(mini_internvl.DeviceError, match=rf"device {device}: .*this machine"):
        mini_internvl.load(released, device=device)


def test_a_full_device_is_named(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(torch.Tensor):
        def to(self, *_: Any, **__: Any) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    fetch = WeightReader.fetch
    monkeypatch.setattr(WeightReader, "fetch", lambda self, name: fetch(self, name).as_subclass(Full))
    with pytest.raises(mini_internvl.DeviceError, match=r"device cpu: the weights .* do not fit"):
        mini_internvl.read_network(released, mini_internvl.MiniInternVL, dtype=torch.bfloat16)


def test_apples_gpu_takes_float16_in_place_of_bfloat16(released: Path, tmp_path: Path) -> None:
    from mini_internvl import loading

    mini_internvl.save_checkpoint(mini_internvl.load(released), tmp_path, dtype=torch.bfloat16)
    wide = mini_internvl.load(released).config.family in ("qwen2", "qwen3")  # they overflow in float16
    half = torch.float32 if wide else torch.float16
    assert loading._auto_dtype(tmp_path, torch.device("mps")) == half
    assert loading._auto_dtype(released, torch.device("mps")) is None


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_what_stands_beside_the_weights_is_carried_over_unread(family: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path / "native")
    writer = getattr(small_tokenizers, f"write_{family}")
    base = tmp_path / "base"
    mini_internvl.save_checkpoint(
        mini_internvl.load(tmp_path / "native"), base, tokenizer_from=writer(tmp_path / "t")
    )
    path = base / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["auto_map"] = {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}
    raw["vision_config"]["auto_map"] = {"AutoConfig": "configuration_intern_vit.InternVisionConfig"}
    path.write_text(json.dumps(raw), encoding="utf-8")
    files = {
        "modeling_internvl_chat.py": b"raise SystemExit('was run')\r\n",
        "generation_config.json": b'{"eos_token_id": [2]}',
        "preprocessor_config.json": b'{"size": 448 }\n',
    }
    for name, content in files.items():
        (base / name).write_bytes(content)
    model = mini_internvl.load(base)
    mini_internvl.save_checkpoint(model, tmp_path / "final", tokenizer_from=base)
    assert {name: (tmp_path / "final" / name).read_bytes() for name in files} == files
    again = json.loads((tmp_path / "final" / "config.json").read_text(encoding="utf-8"))
    assert again["auto_map"] == raw["auto_map"]
    assert again["vision_config"]["auto_map"] == raw["vision_config"]["auto_map"]
    final = mini_internvl.load(tmp_path / "final").config
    assert final.llm == model.config.llm and final.vision == model.config.vision


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_an_unknown_template_is_refused_before_the_weights(family: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path / "native")
    folder = tmp_path / "released"
    mini_internvl.save_checkpoint(mini_internvl.load(tmp_path / "native"), folder)
    getattr(small_tokenizers, f"write_{family}")(folder)
    (folder / "model.safetensors").unlink()
    path = folder / "config.json"
    raw = {**json.loads(path.read_text(encoding="utf-8")), "template": "internvl9"}
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown conversation template 'internvl9'; known: Hermes-2"):
        mini_internvl.load(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_prefixes_of_wrappers_are_read(family: str, prefix: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path / "native")
    model = mini_internvl.load(tmp_path / "native")
    mini_internvl.save_checkpoint(model, tmp_path / "one")
    state = load_file(tmp_path / "one" / "model.safetensors")
    wrapped = {
        prefix + name.replace(".layers.1.", ".layers.1._checkpoint_wrapped_module."): tensor
        for name, tensor in state.items()
    }
    save_file(wrapped, tmp_path / "one" / "model.safetensors")
    batch = networks.inputs(((1, 6),))
    assert torch.equal(mini_internvl.load(tmp_path / "one")(**batch), model(**batch))
