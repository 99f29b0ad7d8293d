"""Answers: batches of unlike prompts, what is never emitted, stopping, counting, memory."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import small_tokenizers
import torch
from PIL import Image

import mini_internvl
from mini_internvl import GenerationSettings, generation
from mini_internvl.batching import is_out_of_memory
from mini_internvl.decode_step import Step
from mini_internvl.errors import ImageTokenMismatch, OutOfMemory, PromptError, TokenizerError

FAMILIES = {
    "qwen2": small_tokenizers.write_qwen2,
    "internlm2": small_tokenizers.write_internlm2,
    "phi3": small_tokenizers.write_phi3,
    "qwen3": small_tokenizers.write_qwen3,
}


def make(family: str, folder: Path) -> mini_internvl.ChatModel:
    """A released-layout checkpoint with tokenizer and random weights, loaded."""
    FAMILIES[family](folder / "tokenizer")
    networks.save_native(family, folder / "native")
    model = mini_internvl.load(folder / "native")
    mini_internvl.save_checkpoint(model, folder / "released", tokenizer_from=folder / "tokenizer")
    raw = (folder / "released" / "config.json").read_text(encoding="utf-8")
    (folder / "released" / "config.json").write_text(raw.replace('"eos_token_id": 2,', ""), encoding="utf-8")
    return mini_internvl.load(folder / "released")


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> mini_internvl.ChatModel:
    """A small model of each family."""
    return make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> mini_internvl.ChatModel:
    """A small model of one family, for what does not depend on it."""
    return make("qwen2", tmp_path_factory.mktemp("one"))


def picture(colour: str = "red", size: tuple[int, int] = (200, 100)) -> Image.Image:
    """A plain picture with a corner of another colour."""
    image = Image.new("RGB", size, colour)
    image.paste("blue", (0, 0, 30, 30))
    return image


def prompts(model: mini_internvl.ChatModel) -> list[mini_internvl.Prompt]:
    """Unlike conversations: with pictures, without, with several, with history."""
    return [
        model.prompt([picture()], "What is the cat?"),
        model.prompt([], "the cat is a"),
        model.prompt(
            [picture("green"), picture("white", (64, 64))], "Image <image> or <image>?", max_tiles=2
        ),
        model.prompt([picture()], "the 12", [("<image>\nWhat", "a cat")], max_tiles=1),
    ]


def force(monkeypatch: pytest.MonkeyPatch, model: Any, *tokens: int) -> None:
    """Makes these tokens the likeliest at every step, the first the most."""
    head = model.language_model.lm_head
    inner = head.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        logits = inner(x)
        for rank, token in enumerate(tokens):
            logits[..., token] = 1000.0 - rank
        return logits

    monkeypatch.setattr(head, "forward", forward)


def test_a_batch_answers_as_one_by_one(model: mini_internvl.ChatModel) -> None:
    settings = GenerationSettings(max_new_tokens=16)
    asked = prompts(model)
    together = model.answer(asked, settings)
    assert together == [model.answer([prompt], settings)[0] for prompt in asked]
    assert len({answer.text for answer in together}) > 1


def test_counts(model: mini_internvl.ChatModel) -> None:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    for prompt, answer in zip(prompts(model), model.answer(prompts(model)), strict=True):
        tiles = 0 if prompt.tiles is None else len(prompt.tiles)
        assert answer.visual_tokens == tiles * networks.TOKENS_PER_TILE
        assert answer.prompt_tokens == len(tokenizer.encode(prompt.text)) - answer.visual_tokens
        assert 1 <= answer.new_tokens <= 100


def test_control_tokens_are_never_emitted(
    model: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    stops = set(model.rules.stop)
    control = [i for token, i in tokenizer.special_ids.items() if i not in stops and "box" not in token]
    for token in ("<IMG_CONTEXT>", "<img>", "</img>"):
        assert tokenizer.token_id(token) in model.rules.forbidden
    for token in ("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"):
        markup = tokenizer.token_id(token)
        if markup is not None:  # a small tokenizer may lack some
            assert markup not in model.rules.forbidden, f"{token} belongs into answers"
    assert tokenizer.token_id("<box>") is not None
    banned = [i for i in control if i in model.rules.forbidden]
    force(monkeypatch, model, *banned, len(tokenizer))
    ids = torch.tensor([tokenizer.encode("the cat")])
    tokens = model.generate(input_ids=ids, max_new_tokens=5)
    assert not set(tokens.flatten().tolist()) & {*banned, len(tokenizer)}


def test_stops_at_the_separator(model: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    end = tokenizer.token_id(model.template.stop)
    assert end is not None
    force(monkeypatch, model, end)
    answer = model.answer(prompts(model)[:1])[0]
    assert (answer.text, answer.finish, answer.new_tokens) == ("", "stop", 1)
    later = model.answer(prompts(model)[:1], GenerationSettings(min_new_tokens=3))[0]
    assert later.finish == "stop" and later.new_tokens == 4


def test_rows_stop_for_their_own_reasons(
    one: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shorter rows end at different steps; what is left in the batch goes on unharmed."""
    settings = GenerationSettings(max_new_tokens=10)
    asked = prompts(one)
    free = one.answer(asked, settings)
    stop = one.rules.stop[0]
    lengths = [len(one.tokenizer.encode(p.text)) for p in asked]  # type: ignore[union-attr]

    class Ending(Step):
        def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, *rest: Any) -> torch.Tensor:
            logits = super().__call__(tokens, positions, *rest)
            for row, position in enumerate(positions.tolist()):
                if position in (lengths[0] + 2, lengths[1] + 5):
                    logits[row, stop] = 1000.0
            return logits

    monkeypatch.setattr(generation, "Step", Ending)
    answers = one.answer(asked, settings)
    assert [a.finish for a in answers[:2]] == ["stop", "stop"]
    assert [a.new_tokens for a in answers[:2]] == [4, 7]
    assert answers[2:] == free[2:]


def test_stop_texts(one: mini_internvl.ChatModel) -> None:
    free = one.answer(prompts(one)[:1], GenerationSettings(max_new_tokens=20))[0]
    assert free.finish == "length" and len(free.text) > 4
    mark = free.text[3:5]
    cut = one.answer(prompts(one)[:1], GenerationSettings(max_new_tokens=20, stop=("\0", mark)))[0]
    assert cut.text == free.text[: free.text.index(mark)].strip()
    assert cut.finish == "stop" and cut.new_tokens < free.new_tokens


def test_generate_fills_ended_rows_with_a_stop_token(
    one: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.tensor([[3, 4, 5]])
    stop = one.rules.stop[0]
    force(monkeypatch, one, stop)
    assert one.generate(input_ids=ids, max_new_tokens=4).tolist() == [[stop]]


def test_sampling_is_seeded_and_independent_of_the_batch(one: mini_internvl.ChatModel) -> None:
    asked = prompts(one)
    settings = GenerationSettings(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=7)
    first = one.answer(asked, settings)
    assert first == one.answer(asked, settings)
    assert first == [one.answer([prompt], settings)[0] for prompt in asked]
    other = GenerationSettings(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=8)
    assert first != one.answer(asked, other)
    cold = GenerationSettings(max_new_tokens=12, temperature=1.0, top_p=1e-6)
    assert one.answer(asked, cold) == one.answer(asked, GenerationSettings(max_new_tokens=12))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_the_temperature_and_top_p_say(temperature: float) -> None:
    logits, rows = torch.tensor([1.2, -0.3, 0.7, 2.0, -1.5]), 4000
    chances = (logits.double() / temperature).softmax(0)
    kept, total = [], 0.0
    for token in chances.argsort(descending=True).tolist():
        if total < 0.9:  # the fewest tokens that reach top_p
            kept.append(token)
            total += float(chances[token])
    settings = GenerationSettings(max_new_tokens=1, temperature=temperature, top_p=0.9)
    sampler = generation.Sampler(settings, generation.TokenRules(), torch.device("cpu"))
    sampler.join(range(rows))
    drawn = sampler(logits.repeat(rows, 1), torch.zeros(rows, dtype=torch.long)).bincount(minlength=5)
    assert set(drawn.nonzero()[:, 0].tolist()) == set(kept)
    for token in kept:
        share = float(chances[token]) / total
        assert abs(int(drawn[token]) / rows - share) < 4 * (share * (1 - share) / rows) ** 0.5


def test_each_prompt_may_draw_with_a_seed_of_its_own(one: mini_internvl.ChatModel) -> None:
    """Repeats of one question go together in one batch, and are as they would be alone."""
    prompt = prompts(one)[0]
    settings = GenerationSettings(max_new_tokens=12, temperature=1.0, top_p=0.9)
    asked = [dataclasses.replace(prompt, seed=seed) for seed in (1, 2, 3, 1)]
    found = one.answer(asked, settings)
    alone = [one.answer([prompt], dataclasses.replace(settings, seed=seed))[0] for seed in (1, 2, 3, 1)]
    assert found == alone
    assert found[0] == found[3] and len({answer.text for answer in found}) > 1


def test_beams_answer(one: mini_internvl.ChatModel) -> None:
    asked = prompts(one)
    settings = GenerationSettings(max_new_tokens=6, num_beams=3)
    together = one.answer(asked, settings)
    assert together == [one.answer([prompt], settings)[0] for prompt in asked]
    assert (
        one.image_token_id
        not in one.generate(input_ids=torch.tensor([[3, 4, 5]]), settings=settings).flatten()
    )


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"num_beams": 0}]
)
def test_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        GenerationSettings(**settings)


def test_a_wrong_number_of_image_tokens_raises(one: mini_internvl.ChatModel) -> None:
    image = one.image_token_id
    tiles = torch.zeros(1, 3, 56, 56)
    for count in (0, 3, 5, 8):
        ids = torch.tensor([[3, *[image] * count, 4]])
        with pytest.raises(ImageTokenMismatch):
            one(input_ids=ids, pixel_values=tiles)
        with pytest.raises(ImageTokenMismatch):
            one.generate(input_ids=ids, pixel_values=tiles)
    with pytest.raises(ImageTokenMismatch, match="4 image tokens in the text but 0"):
        one(input_ids=torch.tensor([[3, *[image] * 4]]))
    torn = torch.tensor([[3, image, image], [image, image, 3]])
    with pytest.raises(ImageTokenMismatch, match="row 0 holds 2 image tokens"):
        one(input_ids=torn, pixel_values=tiles)
    with pytest.raises(ImageTokenMismatch, match="tiles must be 56 pixels"):
        one(input_ids=torch.tensor([[3, *[image] * 4]]), pixel_values=torch.zeros(1, 3, 112, 112))


def test_an_unknown_image_token_raises(tmp_path: Path) -> None:
    networks.save_native("qwen2", tmp_path / "native")
    model = mini_internvl.load(tmp_path / "native")
    mini_internvl.save_checkpoint(model, tmp_path / "released")
    config = tmp_path / "released" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"image_token_id"', '"x"'), encoding="utf-8")
    bare = mini_internvl.load(tmp_path / "released")
    with pytest.raises(ImageTokenMismatch, match="image_token_id="):
        bare(input_ids=torch.tensor([[3, 4]]), pixel_values=torch.zeros(1, 3, 56, 56))
    with pytest.raises(TokenizerError, match="only tensors go in and out"):
        bare.chat(None, "the cat")


def test_padding_on_the_right_is_refused(one: mini_internvl.ChatModel) -> None:
    ids = torch.tensor([[3, 4, 5], [3, 4, 0]])
    with pytest.raises(ValueError, match="padding on the left only"):
        one.generate(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))


def test_chat(one: mini_internvl.ChatModel, tmp_path: Path) -> None:
    picture().save(tmp_path / "street.png")
    answer = one.chat([tmp_path / "street.png"], "What is ahead?", max_new_tokens=5)
    assert answer == one.chat(picture(), "<image>\nWhat is ahead?", history=None, max_new_tokens=5)
    assert isinstance(one.chat(None, "the cat", max_new_tokens=2), str)
    follow_up = one.chat(
        [picture()], "the", history=[("What is ahead?", answer)], max_tiles=1, max_new_tokens=5
    )
    assert isinstance(follow_up, str)
    with pytest.raises(PromptError):
        one.chat([picture()], "<image> <image>")


def test_exact_grid_and_thumbnail(one: mini_internvl.ChatModel) -> None:
    tiles = one.prompt([picture()], "the", grid=(3, 2)).tiles
    assert tiles is not None and len(tiles) == 7
    tiles = one.prompt([picture()], "the", grid=(3, 2), thumbnail=False).tiles
    assert tiles is not None and len(tiles) == 6 and tiles.dtype == torch.uint8


class Memory:
    """Fails every batch of more than so many rows, as a full device does."""

    def __init__(self, model: mini_internvl.ChatModel, most: int) -> None:
        self.inner = model.language_model.forward
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rows = kwargs["position_ids"].shape[0]
        self.sizes.append(rows)
        if rows > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return self.inner(*args, **kwargs)


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    one: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = GenerationSettings(max_new_tokens=4)
    asked = [one.prompt([], f"the cat {i}") for i in range(7)]
    expected = one.answer(asked, settings)
    memory = Memory(one, 2)
    monkeypatch.setattr(one.language_model, "forward", memory)
    with caplog.at_level(logging.WARNING):
        assert one.answer(asked, settings) == expected
    assert len([r for r in caplog.records if "out of memory" in r.message]) == 1
    memory.sizes.clear()
    with caplog.at_level(logging.WARNING):
        assert one.answer(asked, settings) == expected
    assert len([r for r in caplog.records if "out of memory" in r.message]) == 1
    assert max(memory.sizes) <= 2  # remembered
    one.__dict__.pop("_runner")


def test_one_prompt_too_large_is_named(one: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one.language_model, "forward", Memory(one, 0))
    with pytest.raises(OutOfMemory, match=r"one prompt of .* does not fit"):
        one.answer(prompts(one)[:1])


def test_what_is_wrong_with_one_prompt_costs_no_other(
    one: mini_internvl.ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two prompts too long for the memory and one with smuggled image tokens, among others."""
    settings = GenerationSettings(max_new_tokens=4)
    asked = [one.prompt([], f"the cat {i} " * (80 if i in (1, 4) else 1)) for i in range(6)]
    asked.insert(3, one.prompt([picture()], "the <IMG_CONTEXT> cat"))
    expected = [one.answer([asked[place]], settings)[0] for place in (0, 2, 4, 6)]
    inner = one.language_model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs["position_ids"].max() > 250:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(*args, **kwargs)

    monkeypatch.setattr(one.language_model, "forward", forward)
    found = one.answer_each(asked, settings)
    assert [found[place] for place in (0, 2, 4, 6)] == expected
    assert isinstance(found[3], ImageTokenMismatch)
    assert isinstance(found[1], OutOfMemory) and isinstance(found[5], OutOfMemory)
    one.__dict__.pop("_runner")


def test_other_errors_are_not_taken_for_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    )
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_embedded_model_answers() -> None:
    model = mini_internvl.load("mini-internvl-tiny", device="cpu")
    assert sum(p.numel() for p in model.parameters()) < 20_000_000
    assert model.untrained == (model.fingerprint == "untrained")
    answer = model.answer(
        [model.prompt([picture()], "What is ahead?")], GenerationSettings(max_new_tokens=4)
    )[0]
    assert answer.new_tokens >= 1 and answer.visual_tokens > 0
    assert model.tokenizer is not None
    assert model.tokenizer.decode(model.tokenizer.encode("What is ahead? 12")) == "What is ahead? 12"


def test_an_untrained_embedded_model_is_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_internvl import loading, releases

    for path in releases.TINY_FOLDER.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(loading, "TINY_FOLDER", tmp_path)
    monkeypatch.setattr(releases, "TINY_FOLDER", tmp_path)
    first, second = (mini_internvl.load("mini-internvl-tiny", device="cpu") for _ in range(2))
    assert first.untrained and first.fingerprint == "untrained"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_question_that_smuggles_image_tokens_raises(one: mini_internvl.ChatModel) -> None:
    prompt = one.prompt([picture()], "the <IMG_CONTEXT> cat")
    with pytest.raises(ImageTokenMismatch):
        one.answer([*prompts(one), prompt])
