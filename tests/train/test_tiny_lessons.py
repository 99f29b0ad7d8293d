"""Lessons of the embedded model ask as the benchmarks' protocols do, and questions do not see each other."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from evalkit import registry
from evalkit.task import MINIATURE
from evalkit_tasks.miniatures import drawing, pages, scenes, tiles
from evalkit_tasks.miniatures.cameras import BEHAVIOURS, CAMERAS, STATUSES
from mini_internvl.tokenizers import Tokenizer, read_tokenizer
from mini_internvl_train.tiny import batch, labels, lessons, vocabulary
from mini_internvl_train.tiny.optimizer import orthogonalise

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


@pytest.mark.parametrize("name", [name for name in lessons.LESSONS if name != "repeat"])
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


def test_a_lesson_in_pieces_is_the_text_as_a_whole(tokenizer: Tokenizer) -> None:
    for name, draw in lessons.LESSONS.items():
        lesson = draw(drawing.generator(name, 1, training=True), True)
        made = batch.collate([lesson], tokenizer, 4)
        whole = batch.prefix(lesson, 4) + "".join(
            f"{ask.text}<|im_end|><|im_start|>assistant\n{ask.answer}<|im_end|>" for ask in lesson.asks
        )
        assert made.ids[0].tolist() == tokenizer.encode(whole)
        first = lesson.asks[0]
        answer = tokenizer.encode(f"{first.answer}<|im_end|>")
        assert made.targets[: len(answer)].tolist() == answer


def test_a_question_sees_the_pictures_and_itself_only(tokenizer: Tokenizer) -> None:
    lesson = lessons.chartqa(drawing.generator("chart", 1, training=True), True)
    made = batch.collate([lesson], tokenizer, 4)
    start = len(tokenizer.encode(batch.prefix(lesson, 4)))
    second = start + next(i for i, p in enumerate(made.positions[0, start + 1 :].tolist(), 1) if p == start)
    mask = made.mask[0, 0]
    assert mask[second, :start].all()
    assert not mask[second, start:second].any()
    assert not torch.triu(mask, 1).any()
    assert int(made.positions[0, second]) == start


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
