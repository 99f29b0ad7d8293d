"""Hostile checkpoints: config.json, tokenizer files, weights and their index."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import mini_internvl
from campaign.mutations import Members, Token, difference, mutate_bytes, mutate_json, parse, write
from campaign.trial import Trial, Verdict, ask, judge, told

#: What may stand where a setting of a network stands.
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        "16",
        "qwen2",
        "silu",
        [],
        Members(),
        [1, 2],
        Members([("type", "linear")]),
    ),
    *(
        Token(text)
        for text in ("0", "-1", "1", "3", "0.5", "1e12", "1000000000000", "NaN", "Infinity", "1e999")
    ),
    *(
        Token("9" * 5000),
        Token("[" * 3000 + "]" * 3000),
        Token("65536"),
        Token("1e-30"),
        "\ud800",
        "a" * 5000,
    ),
)


class _Checkpoint(Trial):
    """A small checkpoint of one family; one of its files is changed."""

    family = "qwen2"
    seconds = 30.0

    def __init__(self, folder: Path) -> None:
        import torch
        from small_training import write_checkpoint

        super().__init__(folder)
        torch.set_num_threads(1)
        self.good = write_checkpoint(folder / "good", self.family)
        self.model = folder / "model"
        shutil.copytree(self.good, self.model)
        self.base = self.read()

    def read(self) -> Any:
        """What it answers, and its identity, which covers every byte of every file that decides answers."""
        import torch

        model = mini_internvl.load(self.model, device="cpu", dtype="float32")
        picture = torch.full((1, 3, model.config.image_size, model.config.image_size), 90, dtype=torch.uint8)
        assert model.image_token_id is not None
        ids = [1, 2, *[model.image_token_id] * model.config.num_image_token, 3, 4]
        mask = torch.ones((1, len(ids)), dtype=torch.int64)
        answer = model.generate(
            input_ids=torch.tensor([ids]), attention_mask=mask, pixel_values=picture, max_new_tokens=3
        )
        spoken = model.chat(None, "Which colour?", max_new_tokens=2)
        return answer.tolist(), spoken, model.fingerprint

    def changed(self, name: str, data: bytes) -> Verdict:
        """The verdict on the checkpoint with another content of one file, which is put back afterwards."""
        path, good = self.model / name, (self.good / name).read_bytes()
        path.write_bytes(data)
        try:
            said = ask(self.read)
        finally:
            path.write_bytes(good)
        if said.value is not None and said.value[2] == self.base[2] and data != good:
            return Verdict("silent", f"{name}: the same identity; {difference(good, data)}")
        verdict = judge(said, self.base, touched=lambda: False)
        return told(verdict, lambda: f"{name}: {difference(good, data)}")


class _Config(_Checkpoint):
    share = 1.5

    def once(self, rng: random.Random) -> Verdict:
        """Load with another config.json. It is read alone first, which is quick; most are refused there."""
        from mini_internvl.checkpoint import read_config

        good = (self.good / "config.json").read_bytes()
        changed = write(mutate_json(parse(good), rng, ODD)[0]).encode("utf-8", "surrogatepass")
        data = mutate_bytes(good, rng) if rng.random() < 0.15 else changed
        path = self.model / "config.json"
        path.write_bytes(data)
        said = ask(lambda: read_config(self.model))
        path.write_bytes(good)
        if said.raw is not None or said.refusal is not None:
            return told(judge(said, None, touched=lambda: False), lambda: difference(good, data))
        return self.changed("config.json", data)


class Qwen2Config(_Config):
    name = "checkpoint: config.json (1B)"


class InternLM2Config(_Config):
    name = "checkpoint: config.json (2B)"
    family = "internlm2"


class Phi3Config(_Config):
    name = "checkpoint: config.json (4B)"
    family = "phi3"


class _Tokenizer(_Checkpoint):
    """Tokenizer files: a vocabulary, merges, a SentencePiece model, added tokens, settings."""

    def once(self, rng: random.Random) -> Verdict:
        """Load with one of them changed."""
        names = [
            path.name
            for path in self.good.iterdir()
            if path.suffix in (".json", ".txt", ".model") and path.name != "config.json"
        ]
        name = rng.choice(sorted(names))
        good = (self.good / name).read_bytes()
        if name.endswith(".json") and rng.random() < 0.7:
            return self.changed(
                name, write(mutate_json(parse(good), rng)[0]).encode("utf-8", "surrogatepass")
            )
        return self.changed(name, mutate_bytes(good, rng))


class Qwen2Tokenizer(_Tokenizer):
    name = "checkpoint: tokenizer (1B)"


class SentencePiece(_Tokenizer):
    name = "checkpoint: tokenizer (2B)"
    family = "internlm2"


class Weights(_Checkpoint):
    """The header and the tensors of a safetensors file, and the index of several."""

    name = "checkpoint: weights"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from safetensors.torch import load_file

        from mini_internvl.weights import write_weights

        state = load_file(self.good / "model.safetensors")
        write_weights(state, self.good, 40_000)
        shutil.rmtree(self.model)
        shutil.copytree(self.good, self.model)
        self.base = self.read()

    def once(self, rng: random.Random) -> Verdict:
        """Load with one file changed, missing, doubled or in another's place."""
        files = sorted(path.name for path in self.good.glob("model*"))
        name = rng.choice(files)
        good = (self.good / name).read_bytes()
        if name.endswith(".json"):
            data = write(mutate_json(parse(good), rng)[0]).encode("utf-8", "surrogatepass")
            return self._index(name, data)
        if rng.random() < 0.2:
            return self.changed(name, (self.good / rng.choice(files)).read_bytes())
        if rng.random() < 0.4:
            return self.changed(name, self._header(good, rng))
        return self.changed(name, mutate_bytes(good, rng))

    def _header(self, good: bytes, rng: random.Random) -> bytes:
        """Another header of the right length."""
        size = int.from_bytes(good[:8], "little")
        text = write(mutate_json(parse(good[8 : 8 + size]), rng)[0]).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(8, "little") + text + good[8 + size :]

    def _index(self, name: str, data: bytes) -> Verdict:
        """The index says where weights are; the files themselves name what they hold."""
        path, good = self.model / name, (self.good / name).read_bytes()
        path.write_bytes(data)
        said = ask(self.read)
        path.write_bytes(good)
        # whatever the index says, the same weights under the same names answer: it touches nothing then
        return told(judge(said, self.base, touched=lambda: False), lambda: difference(good, data))


TRIALS = (Qwen2Config, InternLM2Config, Phi3Config, Qwen2Tokenizer, SentencePiece, Weights)
