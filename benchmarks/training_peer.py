"""A training beside transformers' Trainer: its own InternVL classes and PEFT, the same network, data, tokens.

Both read the same files with the same code and learn from the same ids, labels and tiles, in float32, with
AdamW, without recomputing activations. The Trainer pads batches, which it may group by length; `evalkit
train` packs as many samples into a step. Each side runs in a process of its own, in turns.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

import mini_internvl
from mini_internvl import MiniInternVLConfig, initialise
from mini_internvl.chat import ChatModel
from mini_internvl_train.batches import collate
from mini_internvl_train.encoding import IGNORED
from mini_internvl_train.export import export
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.log import TrainingLog, peak_memory
from mini_internvl_train.plan import plan_data
from mini_internvl_train.recipe import Lora, Recipe, read_recipe
from mini_internvl_train.sample_images import sample_tiles
from mini_internvl_train.samples import TrainingSet
from mini_internvl_train.start import LORA_TARGETS, Start, load_start
from mini_internvl_train.step import TrainingStep

PEER = "peer.json"
"""How the Trainer steps, for its process: samples, and in what order."""
SHAPES = ((0, 0), (1, 1), (1, 1), (2, 1), (2, 2), (3, 2))
"""Columns and rows of images; none is text alone."""
WORDS = ("red", "green", "blue", "a", "the", "square", "circle", "left", "large", "small", "of", "is", "what")


def compare(
    config: MiniInternVLConfig,
    trainable: str,
    order: str,
    *,
    samples: int,
    batch: int,
    most: int,
    rounds: int,
) -> None:
    """Prints samples a second and peak memory of both sides, medians of all rounds.

    Args:
        config: of the network. trainable: full or lora.
        order: of the Trainer's samples: group_by_length, or random, its default.
        samples: of the data, in one epoch.
        batch: samples of a step. most: tiles of an image, without its thumbnail.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, config)
        _write_data(folder, samples, config.image_size, most)
        _write_recipe(folder, trainable, batch)
        (folder / PEER).write_text(json.dumps({"batch": batch, "order": order}))
        print(_child(folder, "check")["said"], flush=True)
        found: dict[str, list[dict[str, Any]]] = {"evalkit": [], "Trainer": []}
        for number in range(rounds):
            for side in list(found)[:: 1 if number % 2 else -1]:
                found[side].append(_child(folder, side))
                print(f"round {number + 1}: {_row(side, found[side][-1])}", flush=True)
    medians = {
        side: {key: statistics.median(each[key] for each in all_rounds) for key in all_rounds[0]}
        for side, all_rounds in found.items()
    }
    for side, median in medians.items():
        print(f"median:  {_row(side, median)}")
    ours, theirs = medians["evalkit"], medians["Trainer"]
    print(
        f"{trainable}: {ours['rate'] / theirs['rate']:.2f} times the Trainer's samples a second, "
        f"{theirs['work'] / ours['work']:.2f} by processor seconds, with "
        f"{ours['memory'] / theirs['memory']:.2f} of its memory"
    )


def _row(side: str, found: dict[str, Any]) -> str:
    return (
        f"{side:<8} {found['rate']:7.2f} samples/s, {found['work']:7.3f} processor seconds a sample, "
        f"peak {found['memory'] / 1e9:.2f} GB beyond libraries"
    )


def _child(folder: Path, side: str) -> dict[str, Any]:
    command = [sys.executable, __file__, str(folder), side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _prepare(folder: Path, config: MiniInternVLConfig) -> None:
    """A checkpoint in both layouts."""
    base = mini_internvl.load("mini-internvl-tiny")
    assert base.folder is not None
    config = replace(config, template=base.config.template, image_token_id=base.image_token_id)
    network = initialise(config, ChatModel)
    mini_internvl.save_checkpoint(network, folder / "model", tokenizer_from=base.folder)
    export(folder / "model", folder / "hf", "hf")


def _write_recipe(folder: Path, trainable: str, batch: int) -> None:
    """A recipe whose packs hold as many samples on the average as a batch of the Trainer."""
    recipe = {
        "name": "peer", "model": str(folder / "model"), "output": str(folder / "out"),
        "data": {"meta": str(folder / "meta.json"), "max_tiles": 6, "max_tokens": 8192},
        "trainable": trainable, "precision": "float32", "gradient_checkpointing": False, "drop_path": 0.0,
        "weighting": "token", "optimizer": {"lr": 1e-5}, "checkpoints": {"every": 100_000, "keep": 1},
        "steps": {"packs_per_step": 1, "epochs": 1},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lengths = _data(read_recipe(folder / "recipe.yaml"))[0].lengths
    tokens = [length.tokens for length in lengths]
    most = max(round(batch * statistics.fmean(tokens)), *tokens)
    recipe["packing"] = {"max_tokens": most, "max_tiles": 1000}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _write_data(folder: Path, samples: int, side: int, most: int) -> None:
    """Mixed lengths: text alone or some tiles, answers of a word or of some sentences."""
    shapes = [shape for shape in SHAPES if shape[0] * shape[1] <= most]
    rng = random.Random(0)
    (folder / "images").mkdir()
    lines = []
    for number in range(samples):
        question = " ".join(rng.choices(WORDS, k=rng.randint(5, 60)))
        answer = " ".join(rng.choices(WORDS, k=rng.choice((1, 1, 2, 5, 40, 120))))
        line: dict[str, Any] = {"conversations": [{"from": "human", "value": question}]}
        line["conversations"].append({"from": "gpt", "value": answer})
        columns, rows = rng.choice(shapes)
        if columns:
            line["image"] = f"{number}.jpg"
            size = (columns * side, rows * side)
            Image.effect_noise(size, 60).convert("RGB").save(folder / "images" / line["image"])
        lines.append(line)
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "meta.json").write_text(json.dumps({"mixed": {"root": "images", "annotation": "lines.jsonl"}}))


def _data(recipe: Recipe) -> tuple[TrainingSet, Start]:
    start = load_start(recipe)
    return plan_data(recipe, start)[0], start


class _Clock:
    """Seconds and samples from the beginning of the first step on."""

    def __init__(self) -> None:
        self.libraries = peak_memory() or 0
        self.marks: list[tuple[float, float, int]] = []

    def mark(self, samples: int) -> None:
        """A step of so many samples has ended, or with none the first one begins."""
        own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        work = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
        self.marks.append((time.perf_counter(), work, samples))

    def result(self) -> dict[str, float]:
        """Samples a second, processor seconds a sample, bytes."""
        samples = sum(samples for _, _, samples in self.marks)
        seconds, work = (self.marks[-1][i] - self.marks[0][i] for i in (0, 1))
        return {
            "rate": samples / seconds,
            "work": work / samples,
            "memory": (peak_memory() or 0) - self.libraries,
        }


def _evalkit(folder: Path) -> dict[str, float]:
    clock, begin, step = _Clock(), TrainingLog.__init__, TrainingLog.step

    def begun(self: TrainingLog, *arguments: Any, **others: Any) -> None:
        begin(self, *arguments, **others)
        clock.mark(0)

    def timed(self: TrainingLog, line: Any) -> None:
        step(self, line)
        clock.mark(line.samples)

    TrainingLog.__init__ = begun  # type: ignore[method-assign]
    TrainingLog.step = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as output:
        train(read_recipe(folder / "recipe.yaml", {"output": output}), say=lambda line: None, quiet=True)
    return clock.result()


class _Items(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples as the Trainer takes them; `input_ids` tell the lengths by which it groups."""

    def __init__(self, data: TrainingSet, start: Start) -> None:
        self._data, self._tiling = data, start.tiling

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self._data.sample(index)
        tiles = sample_tiles(sample.conversation, sample.grids, self._tiling, sample.change.of)
        return {"input_ids": sample.encoded.input_ids, "labels": sample.encoded.labels, "tiles": tiles}


def _padded(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch: rows padded on the right, normalised tiles."""
    from mini_internvl.model import normalise

    def rows(name: str, fill: int) -> torch.Tensor:
        parts = [torch.tensor(item[name]) for item in items]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill)

    ids = rows("input_ids", -1)
    batch = {
        "input_ids": ids.clamp(min=0),
        "attention_mask": (ids >= 0).long(),
        "labels": rows("labels", IGNORED),
    }
    tiles = [tile for item in items for tile in item["tiles"]]
    return {**batch, "pixel_values": normalise(torch.cat(tiles))} if tiles else batch


def _native(folder: Path, trainable: str) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import InternVLForConditionalGeneration

    model: Any = InternVLForConditionalGeneration.from_pretrained(folder / "hf", dtype=torch.float32)
    if trainable != "lora":
        return model
    inside = rf".*language_model.*\.({'|'.join(LORA_TARGETS['qwen2'])})"
    return get_peft_model(model, LoraConfig(target_modules=inside, **Lora().peft_settings()))


def _trainer(folder: Path) -> dict[str, float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    recipe = read_recipe(folder / "recipe.yaml")
    data, start = _data(recipe)
    peer: dict[str, Any] = json.loads((folder / PEER).read_text())
    batch: int = peer["batch"]
    clock = _Clock()
    model = _native(folder, recipe.trainable)

    events = {
        "on_train_begin": lambda *_, **__: clock.mark(0),
        "on_step_end": lambda *_, **__: clock.mark(batch),
    }
    marks = type("Marks", (TrainerCallback,), events)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=batch, num_train_epochs=1,
        learning_rate=recipe.optimizer.lr, weight_decay=recipe.optimizer.weight_decay, max_grad_norm=1.0,
        lr_scheduler_type="cosine", save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, train_sampling_strategy=peer["order"], dataloader_num_workers=1,
        dataloader_drop_last=True, logging_steps=1000,
    )  # fmt: skip
    del start.network.language_model, start.network.vision_model
    Trainer(
        model=model, args=arguments, train_dataset=_Items(data, start), data_collator=_padded,
        callbacks=[marks()],
    ).train()  # fmt: skip
    return clock.result()


def _check(folder: Path) -> dict[str, str]:
    """Both networks give one loss for the same batch."""
    recipe = read_recipe(folder / "recipe.yaml", {"trainable": "full"})
    data, start = _data(recipe)
    rows = _Items(data, start)
    shortest = sorted(range(len(data)), key=lambda index: data.lengths[index].tokens)[:4]
    items = [rows[index] for index in shortest]
    theirs = float(_native(folder, "full")(**_padded(items)).loss)
    encoded = [data.sample(index).encoded for index in shortest]
    tiles = [tile for item in items for tile in item["tiles"]]
    batch = collate([encoded], torch.cat(tiles) if tiles else None, "token", 0)
    ours = float(TrainingStep(start.network)(batch, float(sum(sample.trained for sample in encoded))))
    if abs(ours - theirs) > 1e-4 * abs(theirs):
        sys.exit(f"the losses of one batch differ: {ours} and {theirs}")
    tokens = [length.tokens for length in data.lengths]
    parameters = sum(p.numel() for p in start.network.parameters())
    return {
        "said": f"{parameters:,} parameters, {len(tokens)} samples of {min(tokens)} to {max(tokens)} tokens, "
        f"{sum(length.tiles for length in data.lengths)} tiles; loss of one batch {ours:.5f} and {theirs:.5f}"
    }


SIDES = {"evalkit": _evalkit, "Trainer": _trainer, "check": _check}

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    print(json.dumps(SIDES[sys.argv[2]](Path(sys.argv[1]))))
