"""Lessons of the embedded model ask as the benchmarks' protocols do, and questions do not see each other."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mini_internvl
from evalkit import registry
from evalkit.task import MINIATURE
from evalkit_tasks.miniatures import drawing, pages, scenes, tiles
from evalkit_tasks.miniatures.cameras import BEHAVIOURS, CAMERAS, STATUSES
from mini_internvl.model import MiniInternVL
from mini_internvl.tokenizers import Tokenizer, read_tokenizer
from mini_internvl_train import lessons
from mini_internvl_train.checkpoints import read_weights
from mini_internvl_train.errors import Stopped
from mini_internvl_train.loop import Loop
from tiny_model import guide, labels, lesson_batch, shapes, vocabulary
from tiny_model.__main__ import RECIPE, kinds, make
from tiny_model.muon import orthogonalise

_WORDS = (
    *drawing.COLOURS,
    *drawing.SHAPES,
    *scenes.PLACES,
    *pages.LABELS,
    *(name for names in tiles.NAMES.values() for name in names[::-1]),
    *CAMERAS[::2],
    *CAMERAS[1::2],
    *STATUSES,
    *BEHAVIOURS.values(),
)
_BENCHMARKS = [name for name in lessons.LESSONS if name not in ("repeat", "look", "look-around")]
_VARIABLE = re.compile("|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True)) + r"|\d+")


def _skeleton(text: str) -> str:
    return _VARIABLE.sub("*", text)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.write(folder)
    found = read_tokenizer(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("name", _BENCHMARKS)
def test_lessons_ask_in_the_words_of_the_protocol(name: str, tmp_path: Path) -> None:
    import_module(f"evalkit_tasks.miniatures.{name.replace('-', '_')}").draw(tmp_path)
    task = registry.task(name)
    rng = drawing.generator(name, 7, training=True)
    taught = set()
    for _ in range(40):
        lesson = lessons.LESSONS[name](rng, True)
        taught |= {_skeleton(lesson.opening + ask.text) for ask in lesson.asks}
    for sample in task.samples(MINIATURE, tmp_path):
        text = task.request(sample).messages[-1].text
        asked = text if "<image>" in text else f"<image>\n{text}"
        assert _skeleton(asked) in taught


@pytest.mark.parametrize("name", lessons.LESSONS)
def test_a_lesson_has_a_view_for_each_tile_and_a_mark_for_each_image(name: str) -> None:
    for training in (True, False):
        lesson = lessons.LESSONS[name](drawing.generator(name, 3, training=training), training)
        assert len(lesson.views) == sum(lesson.tiles)
        assert (lesson.opening + lesson.asks[0].text).count("<image>") == len(lesson.tiles)


def test_a_training_tile_is_asked_about_twice() -> None:
    def asked(training: bool) -> list[int]:
        return [
            len(lessons.rsvqa_lr(drawing.generator("lr", seed, training=training), training).asks)
            for seed in range(5)
        ]

    assert all(twice > once > 1 for once, twice in zip(asked(False), asked(True), strict=True))


def test_a_lesson_in_pieces_is_the_text_as_a_whole(tokenizer: Tokenizer) -> None:
    for name, draw in lessons.LESSONS.items():
        lesson = draw(drawing.generator(name, 1, training=True), True)
        made = lesson_batch.collate([lesson], tokenizer, 4)
        whole = lesson_batch.prefix(lesson, 4) + "".join(
            f"{ask.text}<|im_end|><|im_start|>assistant\n{ask.answer}<|im_end|>" for ask in lesson.asks
        )
        assert made.ids[0].tolist() == tokenizer.encode(whole)
        first = lesson.asks[0]
        answer = tokenizer.encode(f"{first.answer}<|im_end|>")
        assert made.targets[: len(answer)].tolist() == answer


def test_a_question_sees_the_pictures_and_itself_only(tokenizer: Tokenizer) -> None:
    lesson = lessons.chartqa(drawing.generator("chart", 1, training=True), True)
    made = lesson_batch.collate([lesson], tokenizer, 4)
    start = len(tokenizer.encode(lesson_batch.prefix(lesson, 4)))
    second = start + next(i for i, p in enumerate(made.positions[0, start + 1 :].tolist(), 1) if p == start)
    mask = made.mask[0, 0]
    assert mask[second, :start].all()
    assert not mask[second, start:second].any()
    assert not torch.triu(mask, 1).any()
    assert int(made.positions[0, second]) == start


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["mmbench", "chartqa", "docvqa", "dior-rsvg", "look", "look-around"])
def test_a_lesson_points_at_what_its_question_names(name: str, training: bool) -> None:
    rng = drawing.generator(name, 3, training=training)
    pointed = 0
    for _ in range(5):
        lesson = lessons.LESSONS[name](rng, training)
        for ask in lesson.asks:
            if ask.about is None:
                assert not ask.names
                continue
            view, (x1, y1, x2, y2) = ask.about
            pointed += 1
            assert 0 <= x1 < x2 <= drawing.SIDE and 0 <= y1 < y2 <= drawing.SIDE
            (shown,) = (region for region in lesson.views[view].regions if region.box == ask.about[1])
            named = {text.lower() for text in shown.labels.values()}
            assert any(name in ask.text.lower() for name in ask.names) or ask.kind == "around/thing"
            assert set(ask.names) & {word for text in named for word in (text, *text.split())}
    assert pointed >= 5


def test_what_a_question_names_is_marked_in_the_picture(tokenizer: Tokenizer) -> None:
    thing = scenes.Thing("star", "red", (64, 0, 112, 48), "top right")
    asked = lessons.Ask("c", "What is the color of the star?", "red", (0, thing.box), ("star", "red"))
    view = scenes.Scene((thing,), (230, 230, 230), 0).view()
    made = lesson_batch.collate([lessons.Lesson((view,), "<image>\n", (1,), (asked,))], tokenizer, 16)
    image_token = tokenizer.token_id("<IMG_CONTEXT>")
    image = torch.tensor([i for i, token in enumerate(made.ids[0].tolist()) if token == image_token])
    names, answers = made.look_targets["names"], made.look_targets["answers"]
    assert tokenizer.decode(made.ids[names.rows, names.positions].tolist()) == " star"
    assert names.target[0].nonzero()[:, 0].tolist() == image[[2, 3, 6, 7]].tolist()
    assert answers.positions.tolist() == made.where[:, 1].tolist()


def test_guided_heads_are_measured_as_the_model_attends(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    image_token = tokenizer.token_id("<IMG_CONTEXT>")
    assert tokenizer.eos_id is not None and image_token is not None
    model = MiniInternVL(shapes.configuration(len(tokenizer), tokenizer.eos_id, image_token))
    model.language_model.set_attn_implementation("eager")
    rng = drawing.generator("look", 1, training=True)
    made = lesson_batch.collate([lessons.look(rng, True) for _ in range(2)], tokenizer, 16)
    mask = torch.where(made.mask, 0.0, -torch.inf)
    with guide.recorded_inputs(model) as inputs:
        weights = model.language_model.model(
            inputs_embeds=model.embed(made.ids, torch.randn(2, 16, 128)),
            attention_mask=mask,
            position_ids=made.positions,
            output_attentions=True,
        ).attentions
    wanted = torch.zeros(())
    for name, (layer, head) in guide.HEADS.items():
        targets = made.look_targets[name]
        attended = weights[layer][targets.rows, head, targets.positions]
        wanted = wanted - (attended * targets.target).sum(-1).log().mean()
    torch.testing.assert_close(guide.guide_loss(model, inputs, made), wanted, rtol=1e-4, atol=1e-4)


def test_dense_labels_name_the_object_that_covers_a_token() -> None:
    scene = scenes.Scene((scenes.Thing("star", "red", (0, 0, 48, 48)),), (230, 230, 230), 0)
    encoded = labels.encode([scene.view()], 4)
    kind, colour = (list(labels.SLOTS).index(f"local/{name}") for name in ("kind", "colour"))
    kinds = [labels.LOCAL["kind"][i] for i in encoded[0, :, kind].tolist()]
    assert kinds[:8] == ["star", "star", "nothing", "nothing"] * 2
    assert kinds[8:] == ["nothing"] * 8
    assert encoded[0, 2, colour] == labels.IGNORED


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_the_recipe_is_of_known_stages_and_lessons_that_follow_each_other() -> None:
    stages = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["stages"]
    assert [stage["kind"] for stage in stages[:2]] == ["encoder", "align"]
    for stage in stages:
        known = {item.name for item in dataclasses.fields(kinds()[stage["kind"]])}
        assert set(stage) - {"name", "kind"} <= known
    for stage in stages[2:]:
        assert stage["kind"] == "questions" and set(stage["shares"]) <= set(lessons.LESSONS)
        assert stage.get("start", 0) < stage.get("stop", stage["steps"]) <= stage["steps"]


SHORT = {
    "seed": 3,
    "stages": [
        {"name": "encoder", "kind": "encoder", "steps": 2},
        {"name": "align", "kind": "align", "steps": 2, "strength": 1.5, "norm": 2.0},
        {
            "name": "questions",
            "kind": "questions",
            "start": 1,
            "steps": 4,
            "warmup": 2,
            "encoder_from": 2,
            "guide_weight": 0.5,
            "shares": {"chartqa": 1, "repeat": 1},
        },
    ],
}


#: Learning rate, loss and gradient norm of each step of `SHORT`.
CURVES = {
    "encoder": [(2e-4, 31.79758, 31.12398), (4e-4, 31.91773, 29.76068)],
    "align": [(0.01, 1.0, 3.841688), (0.01 * (0.05 + 1 / 1.4), 0.9341545, 3.712219)],
    "questions": [
        (0.01, 17.21345, 56.35855),
        (0.02, 14.40034, 42.96397),
        (0.02 * 2.5 / 3, 12.60910, 33.35317),
    ],
}


@pytest.mark.slow
def test_a_model_is_made_and_a_stopped_stage_continues_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    whole = make(SHORT, tmp_path / "whole", quiet=True)
    model = mini_internvl.load(whole)
    assert model.chat(None, "Repeat: red", max_new_tokens=2) is not None
    for name, curve in CURVES.items():
        lines = (tmp_path / f"whole/{name}/log.jsonl").read_text().splitlines()
        logged = [json.loads(line) for line in lines]
        steps = [(line["lr"], line["loss"], line["grad_norm"]) for line in logged if "loss" in line]
        assert steps == [pytest.approx(step, rel=1e-3) for step in curve], name
    losses, accuracy = logged[-1]["evaluation"]["loss"], logged[-1]["evaluation"]["accuracy"]
    assert losses == pytest.approx({"chartqa": 8.000022, "repeat": 21.48191}, rel=1e-3)
    assert set(accuracy) == {
        "repeat",
        *(f"chartqa/{kind}" for kind in ("value", "highest", "lowest", "count")),
    }
    before, after = (
        read_weights(tmp_path / f"whole/{stage}/latest/training/weights.safetensors")
        for stage in ("encoder", "align")
    )
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("model.mlp1.") for name in changed)
    step = Loop._step

    def told_in_every_first_step(self: Loop, *arguments: Any) -> bool:
        if self.done == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    monkeypatch.setattr(Loop, "_step", told_in_every_first_step)
    for _ in SHORT["stages"]:
        with pytest.raises(Stopped, match="after step 1"):
            make(SHORT, tmp_path / "parts", quiet=True)
    parts = make(SHORT, tmp_path / "parts", quiet=True)
    one, other = (read_weights(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
