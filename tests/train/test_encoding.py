"""Labels are the answers and their stop tokens, whatever the template; packs change no logit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import make_recipe, write_checkpoint

import mini_internvl
from mini_internvl.prompts import build_prompt
from mini_internvl_train.batches import collate
from mini_internvl_train.conversations import Conversation, Turn
from mini_internvl_train.encoding import IGNORED, Encoded
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.packing import sample_weight
from mini_internvl_train.start import Start, load_start
from mini_internvl_train.step import TrainingStep

FAMILIES = ("qwen2", "internlm2", "phi3", "qwen3")
TWO_TURNS = (
    Turn("user", "<image>\nWhat is the cat?"),
    Turn("assistant", "the cat is a cat."),
    Turn("user", "the 12?"),
    Turn("assistant", "你好, <ref>the cat</ref><box>[[1, 20, 300, 4]]</box>"),
)


def start_of(tmp_path: Path, family: str) -> Start:
    recipe = make_recipe(tmp_path, family=family)
    return load_start(recipe)


def runs(labels: tuple[int, ...]) -> list[list[int]]:
    """Stretches of labels."""
    found: list[list[int]] = []
    previous = IGNORED
    for label in labels:
        if label != IGNORED:
            if previous == IGNORED:
                found.append([])
            found[-1].append(label)
        previous = label
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_decode_to_exactly_the_answers(tmp_path: Path, family: str) -> None:
    start = start_of(tmp_path, family)
    encoder = start.encoder
    encoded = encoder.encode(Conversation("x", TWO_TURNS), [3])
    stop = encoder.tokenizer.token_id(encoder.template.stop)
    stretches = runs(encoded.labels)
    assert len(stretches) == 2
    markup = {
        i for t, i in encoder.tokenizer.special_ids.items() if t in ("<ref>", "</ref>", "<box>", "</box>")
    }
    for stretch, answer in zip(stretches, (TWO_TURNS[1].text, TWO_TURNS[3].text), strict=True):
        assert stretch[-1] == stop
        assert stretch.count(stop) == 1
        bare = answer
        for mark in ("<ref>", "</ref>", "<box>", "</box>"):
            bare = bare.replace(mark, "")
        text = encoder.tokenizer.decode([i for i in stretch[:-1] if i not in markup])
        assert text.replace(" ", "") == bare.replace(" ", "")
    assert sum(i in markup for i in stretches[1]) == 4
    assert all(
        label in (IGNORED, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_question_is_what_generation_is_given(tmp_path: Path, family: str) -> None:
    """Ids before the first answer are those of the prompt that the model meets when it is asked."""
    start = start_of(tmp_path, family)
    encoder = start.encoder
    encoded = encoder.encode(Conversation("x", TWO_TURNS[:2]), [3])
    prompt = build_prompt(
        encoder.template,
        TWO_TURNS[0].text,
        [3],
        tokens_per_tile=encoder.tokens_per_tile,
        system_message=encoder.system_message,
    )
    asked = encoder.tokenizer.encode(prompt)
    assert list(encoded.input_ids[: len(asked)]) == asked
    assert encoded.labels[len(asked)] != IGNORED
    assert encoded.labels[len(asked) - 1] == IGNORED


def test_wrong_samples_are_errors(tmp_path: Path) -> None:
    encoder = start_of(tmp_path, "qwen2").encoder
    with pytest.raises(TrainingDataError, match="fewer"):
        encoder.encode(Conversation("x", TWO_TURNS, where="a.jsonl:3"), [3, 1])
    with pytest.raises(TrainingDataError, match="more"):
        encoder.encode(Conversation("x", TWO_TURNS), [])
    with pytest.raises(TrainingDataError, match=r"a\.jsonl:3: \d+ tokens, more than max_tokens 20"):
        replace(encoder, max_tokens=20).encode(Conversation("x", TWO_TURNS, where="a.jsonl:3"), [3])
    stop = encoder.template.stop
    with pytest.raises(TrainingDataError, match="ends a turn"):
        encoder.encode(Conversation("x", (Turn("user", "Hi"), Turn("assistant", f"a{stop}b"))), [])
    with pytest.raises(TrainingDataError, match=r"a\.jsonl:4: no token would be trained"):
        encoder.encode(Conversation("x", (Turn("user", "Hi"),), where="a.jsonl:4"), [])
    half = (Turn("user", "Hi"), Turn("assistant", "a\udfffb"))
    with pytest.raises(TrainingDataError, match=r"a\.jsonl:5: .* half of a character \(U\+DFFF\)"):
        encoder.encode(Conversation("x", half, where="a.jsonl:5"), [])
    smuggled = (Turn("user", "<image> <IMG_CONTEXT>"), Turn("assistant", "no"))
    with pytest.raises(TrainingDataError, match="more"):
        encoder.encode(Conversation("x", smuggled), [1])


def samples_of(start: Start) -> list[Encoded]:
    text = (Turn("user", "the cat?"), Turn("assistant", "a"))
    return [
        start.encoder.encode(Conversation("a", TWO_TURNS), [1]),
        start.encoder.encode(Conversation("b", text), []),
        start.encoder.encode(Conversation("c", TWO_TURNS[:2]), [2]),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_equal_unpacked(tmp_path: Path, family: str) -> None:
    start = start_of(tmp_path, family)
    network, samples = start.network, samples_of(start)
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8, generator=generator)
    packed = collate([samples], tiles, "square", start.pad_id)
    together = network.language_model.lm_head(TrainingStep(network).hidden(packed))[0]
    place = 0
    for sample, own in zip(samples, (tiles[:1], None, tiles[1:]), strict=True):
        alone = network(input_ids=torch.tensor([sample.input_ids]), pixel_values=own)[0]
        length = len(sample.input_ids)
        assert torch.allclose(together[place : place + length], alone, atol=1e-5)
        place += length


@pytest.mark.parametrize("weighting", ["token", "sample", "square"])
def test_loss_is_the_weighted_mean_of_each_samples_cross_entropy(tmp_path: Path, weighting: Any) -> None:
    start = start_of(tmp_path, "qwen2")
    samples = samples_of(start)
    tiles = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)
    batch = collate([samples[:2], samples[2:]], tiles, weighting, start.pad_id)
    denominator = sum(sample_weight(sample.trained, weighting) for sample in samples)
    step = TrainingStep(start.network)
    total = step(batch, denominator)
    expected = torch.zeros(())
    for sample, own in zip(samples, (tiles[:1], None, tiles[1:]), strict=True):
        logits = start.network(input_ids=torch.tensor([sample.input_ids]), pixel_values=own)[0]
        labels = torch.tensor(sample.labels)
        summed = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
        expected += summed * sample_weight(sample.trained, weighting) / sample.trained
    assert torch.allclose(total, expected / denominator, atol=1e-5)


def test_a_text_only_batch_reaches_every_parameter(tmp_path: Path) -> None:
    start = start_of(tmp_path, "qwen2")
    start.network.requires_grad_(True)
    sample = samples_of(start)[1]
    batch = collate([[sample]], None, "token", start.pad_id)
    step = TrainingStep(start.network)
    step(batch, 1.0).backward()
    assert all(p.grad is not None for p in start.network.parameters())
    seeing = [*start.network.vision_model.parameters(), *start.network.mlp1.parameters()]
    assert not any(p.grad.any() for p in seeing if p.grad is not None)
    alone = start.network(input_ids=torch.tensor([sample.input_ids]))[0]
    logits = start.network.language_model.lm_head(step.hidden(batch))[0]
    assert torch.allclose(logits[: len(sample.input_ids)], alone, atol=1e-5)


def test_phi3_samples_of_different_rotary_tables_never_share_a_pack(tmp_path: Path) -> None:
    from mini_internvl_train.packing import Bounds, Length, plan_packs

    lengths = [Length(10, 1, 1, 0), Length(10, 1, 1, 1), Length(10, 1, 1, 0)]
    assert sorted(map(set, plan_packs(lengths, [0, 1, 2], Bounds(100, 10))), key=min) == [{0, 2}, {1}]


def test_tied_weights_train_and_save(tmp_path: Path) -> None:
    from mini_internvl_train.fine_tuning import train

    write_checkpoint(tmp_path / "model", tied=True)
    recipe = make_recipe(tmp_path, steps__max_steps=1)
    final = train(recipe, say=lambda line: None, quiet=True)
    start, trained = mini_internvl.load(tmp_path / "model"), mini_internvl.load(final)
    table = trained.language_model.get_input_embeddings().weight
    assert trained.language_model.lm_head.weight is table
    assert not torch.equal(table, start.language_model.get_input_embeddings().weight)
    train(recipe, say=lambda line: None, quiet=True)
    again = mini_internvl.load(final).language_model.get_input_embeddings().weight
    assert torch.equal(table, again), "the finished training is not trained further"
