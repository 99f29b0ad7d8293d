"""A loaded checkpoint: the network with its tokenizer and template, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mini_internvl.batching import BatchRunner
from mini_internvl.chat_template import ChatTemplate
from mini_internvl.errors import MiniInternVLError, NotFiniteError, TokenizerError, first_error_raised
from mini_internvl.generation import (
    Finish,
    Generated,
    GenerationSettings,
    StopText,
    TokenRules,
    cut_at_stop,
)
from mini_internvl.identity import Identified
from mini_internvl.images import Source, open_image, tile_images
from mini_internvl.model import MiniInternVL
from mini_internvl.prompt_groups import TokenSequence
from mini_internvl.prompts import INTERNVL_SYSTEM, Template, build_prompt, find_template
from mini_internvl.tokenizers import Tokenizer, control_ids


@dataclass(frozen=True)
class Tiled:
    """The images of a conversation, cut into tiles.

    Prompts that are rendered from one `Tiled` share the work on its images: `answer` goes by the identity of
    the object and never compares pixels.

    Attributes:
        tiles: uint8 `[tiles, 3, size, size]`, None without images.
        counts: tiles of each image.
    """

    tiles: Tensor | None
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """One conversation made ready on the CPU.

    Attributes:
        text: rendered, with visual tokens.
        tiles: uint8 `[tiles, 3, size, size]`, None without images; the object of the `Tiled`.
        seed: that its answer is drawn with; None: that of the settings.
    """

    text: str
    tiles: Tensor | None
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the model answered.

    Attributes:
        text: cut at the separator and at stop texts, outer space removed.
        finish: `stop`, or `length` where `max_new_tokens` cut it.
        prompt_tokens: text tokens of the prompt.
        visual_tokens: image tokens of the prompt.
        new_tokens: generated tokens, the stop token included.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    visual_tokens: int
    new_tokens: int


class ChatModel(Identified, MiniInternVL):
    """A Mini-InternVL that answers questions; made by `mini_internvl.load`.

    It is the network itself (`model(input_ids=…)` gives logits), so it can be trained and saved as well.

    Attributes:
        name: as it was asked for.
        revision: on the hub, if one was given.
        folder: where its files are.
        tokenizer: None where the folder has none; then only tensors go in and out.
        system_message: begins every conversation; None where its template has no system turn.
        untrained: whether the weights are random because there is no weights file.
        int8: whether the language model's weights were rounded to 8 bits.
    """

    name: str = ""
    revision: str | None = None
    tokenizer: Tokenizer | None = None
    system_message: str | None = INTERNVL_SYSTEM
    int8: bool = False

    @cached_property
    def template(self) -> Template | ChatTemplate:
        """How conversations are written; `load` sets it."""
        return find_template(self.config.template)

    @cached_property
    def rules(self) -> TokenRules:
        """Stop and forbidden tokens, from the tokenizer or else from config.json."""
        image = () if self.image_token_id is None else (self.image_token_id,)
        if self.tokenizer is None:
            eos = self.config.llm.get("eos_token_id")
            stop = tuple(eos) if isinstance(eos, (list, tuple)) else () if eos is None else (int(eos),)
            return TokenRules(stop, image, stop[0] if stop else 0)
        tokenizer = self.tokenizer
        mark = self.template.stop
        ends = (tokenizer.token_id(mark) if mark else None, tokenizer.eos_id)
        stop = tuple(dict.fromkeys(i for i in ends if i is not None))
        if not stop:
            raise TokenizerError(f"{self.folder}: neither {self.template.stop} nor an end of text is known")
        control = control_ids(tokenizer)
        control.update(image, range(len(tokenizer), int(self.config.llm["vocab_size"])))
        if tokenizer.pad_id is not None:
            control.add(tokenizer.pad_id)
        return TokenRules(stop, tuple(sorted(control.difference(stop))), stop[0])

    def chat(
        self,
        images: Source | Sequence[Source] | None,
        question: str,
        history: Sequence[tuple[str, str]] | None = None,
        max_tiles: int = 12,
        max_new_tokens: int = 100,
        settings: GenerationSettings | None = None,
    ) -> str:
        """Answers one question.

        Args:
            images: images of the whole conversation, in order: paths, encoded bytes or PIL images.
            question: may say where each image goes by `<image>`; else they go before the first question.
            history: earlier (question, answer) pairs.
            max_tiles: most tiles of each image, the thumbnail not counted.
            max_new_tokens: most tokens of the answer.
            settings: everything else about generation; its `max_new_tokens` then counts.

        Raises:
            ImageError: an image cannot be read.
            PromptError: the number of `<image>` differs from the number of images.
        """
        prompt = self.prompt(_as_list(images), question, history or (), max_tiles=max_tiles)
        chosen = settings or GenerationSettings(max_new_tokens=max_new_tokens)
        return self.answer([prompt], chosen)[0].text

    def prompt(
        self,
        images: Sequence[Source],
        question: str,
        history: Sequence[tuple[str, str]] = (),
        *,
        system_message: str | None = None,
        min_tiles: int = 1,
        max_tiles: int = 12,
        thumbnail: bool = True,
        grid: tuple[int, int] | None = None,
        total_tiles: int | None = None,
    ) -> Prompt:
        """Makes a conversation ready: `tile`, then `render`.

        Args:
            images: in the order of their `<image>` marks.
            question: the question to be answered.
            history: earlier (question, answer) pairs.
            system_message: in place of the checkpoint's own.
            min_tiles, max_tiles, thumbnail, grid, total_tiles: as for `images.tile_images`.
        """
        tiled = self.tile(
            images,
            min_tiles=min_tiles,
            max_tiles=max_tiles,
            thumbnail=thumbnail,
            grid=grid,
            total_tiles=total_tiles,
        )
        return self.render(tiled, question, history, system_message=system_message)

    def tile(
        self,
        images: Sequence[Source],
        *,
        min_tiles: int = 1,
        max_tiles: int = 12,
        thumbnail: bool = True,
        grid: tuple[int, int] | None = None,
        total_tiles: int | None = None,
    ) -> Tiled:
        """Opens images and cuts them into tiles, on the CPU alone; safe to call from many threads.

        Args:
            images: in the order of their `<image>` marks.
            min_tiles, max_tiles, thumbnail, grid, total_tiles: as for `images.tile_images`.

        Raises:
            ImageError: an image cannot be read.
        """
        if not self.config.dynamic_image_size:
            min_tiles, max_tiles, grid = 1, 1, None
        tiles, counts = tile_images(
            map(open_image, images),
            tile_size=self.config.image_size,
            min_tiles=min_tiles,
            max_tiles=max_tiles,
            thumbnail=thumbnail and self.config.use_thumbnail,
            grid=grid,
            total_tiles=total_tiles,
        )
        return Tiled(tiles, tuple(counts))

    def render(
        self,
        tiled: Tiled,
        question: str,
        history: Sequence[tuple[str, str]] = (),
        *,
        system_message: str | None = None,
    ) -> Prompt:
        """The text of a conversation about images that are tiled already.

        Args:
            tiled: the images.
            question: the question to be answered.
            history: earlier (question, answer) pairs.
            system_message: in place of the checkpoint's own.

        Raises:
            PromptError: the number of `<image>` differs from the number of images.
        """
        text = build_prompt(
            self.template,
            question,
            tiled.counts,
            tokens_per_tile=self.config.num_image_token,
            history=history,
            system_message=self.system_message if system_message is None else system_message,
        )
        return Prompt(text, tiled.tiles)

    def plan_batches(self, *, share: bool = True, most_rows: int | None = None) -> None:
        """How `answer` works from now on; its answers stay the same.

        Args:
            share: encode the images of a `Tiled` once and prefill what its prompts begin with once.
            most_rows: sequences decoded at a time, at most; None leaves it to the device.
        """
        self._runner.share = share
        if most_rows is not None:
            self._runner.most_sequences = most_rows

    def answer(self, prompts: Sequence[Prompt], settings: GenerationSettings | None = None) -> list[Answer]:
        """Answers a batch of unlike conversations, in their order.

        Raises:
            TokenizerError: the checkpoint came without tokenizer files.
            ImageTokenMismatch: a text holds another number of image tokens than its tiles give.
            OutOfMemory: one conversation alone is too much for the device.
        """
        return first_error_raised(self.answer_each(prompts, settings))

    def answer_each(
        self, prompts: Sequence[Prompt], settings: GenerationSettings | None = None
    ) -> list[Answer | MiniInternVLError]:
        """As `answer`, but an error of one conversation is returned in place of its answer."""
        settings = settings or GenerationSettings()
        results: dict[int, Answer | MiniInternVLError] = {}
        sequences: dict[int, TokenSequence] = {}
        for place, prompt in enumerate(prompts):
            sequence = self._sequence(prompt)
            if isinstance(sequence, MiniInternVLError):
                results[place] = sequence
            else:
                sequences[place] = sequence
        if sequences:
            stop_text = self._holds(settings.stop) if settings.stop else None
            try:
                found = self._runner.run_each([*sequences.values()], settings, self.rules, stop_text)
            except NotFiniteError as error:
                raise NotFiniteError([*sequences][error.place], error.part) from None
            for (place, sequence), result in zip(sequences.items(), found, strict=True):
                if isinstance(result, Generated):
                    results[place] = self._answer(sequence, result, settings)
                else:
                    results[place] = result
        return [results[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        max_new_tokens: int = 100,
        settings: GenerationSettings | None = None,
    ) -> Tensor:
        """Generates from tensors.

        Args:
            input_ids: int64 `[batch, length]`, padded on the left.
            attention_mask: int64 `[batch, length]`; without it nothing is padding.
            pixel_values: `[tiles of the whole batch in order, 3, size, size]`, float or uint8.
            max_new_tokens: most new tokens.
            settings: everything else about generation; its `max_new_tokens` then counts.

        Returns:
            int64 `[batch, new]`, the prompt left out; a row that ended earlier is filled with a stop token.

        Raises:
            ValueError: padding is not on the left.
            ImageTokenMismatch: image tokens and visual features differ in number.
        """
        settings = settings or GenerationSettings(max_new_tokens=max_new_tokens)
        sequences = self._split(input_ids, attention_mask, pixel_values)
        generated = self._runner.run(sequences, settings, self.rules)
        longest = max((len(each.tokens) for each in generated), default=0)
        padded = [each.tokens + [self.rules.pad] * (longest - len(each.tokens)) for each in generated]
        return torch.tensor(padded, dtype=torch.long, device=input_ids.device)

    @cached_property
    def _runner(self) -> BatchRunner:
        return BatchRunner(self)

    def _sequence(self, prompt: Prompt) -> TokenSequence | MiniInternVLError:
        """Tokens of a prompt, checked against its tiles."""
        try:
            ids = self._need_tokenizer().encode(prompt.text)
            self.check_image_tokens(torch.tensor([ids]), 0 if prompt.tiles is None else len(prompt.tiles))
        except MiniInternVLError as error:
            return error
        return TokenSequence(ids, prompt.tiles, prompt.seed)

    def _split(self, input_ids: Tensor, mask: Tensor | None, tiles: Tensor | None) -> list[TokenSequence]:
        """A padded batch as single sequences with their own tiles."""
        mask = torch.ones_like(input_ids) if mask is None else mask.long()
        if (
            mask.shape != input_ids.shape
            or bool((mask.diff(dim=1) < 0).any())
            or not bool(mask[:, -1:].all())
        ):
            raise ValueError("attention_mask must have the shape of input_ids, with padding on the left only")
        self.check_image_tokens(input_ids, 0 if tiles is None else len(tiles))
        sequences: list[TokenSequence] = []
        start = 0
        for ids, real in zip(input_ids.tolist(), mask.sum(dim=1).tolist(), strict=True):
            count = self._visual(ids) // self.config.num_image_token
            own = None if tiles is None or not count else tiles[start : start + count]
            sequences.append(TokenSequence(ids[len(ids) - real :], own))
            start += count
        return sequences

    def _answer(self, sequence: TokenSequence, result: Generated, settings: GenerationSettings) -> Answer:
        tokens = result.tokens
        ended = bool(tokens) and tokens[-1] in self.rules.stop
        text = self._need_tokenizer().decode(tokens[:-1] if ended else tokens)
        cut = cut_at_stop(text, settings.stop)
        visual = self._visual(sequence.ids)
        return Answer(
            text=self.template.trim(cut),
            finish="stop" if cut != text else result.finish,
            prompt_tokens=len(sequence.ids) - visual,
            visual_tokens=visual,
            new_tokens=len(tokens),
        )

    def _holds(self, stop: Sequence[str]) -> StopText:
        """Whether tokens spell one of the stop texts."""
        tokenizer = self._need_tokenizer()
        return lambda tokens: any(mark in tokenizer.decode(tokens) for mark in stop)

    def _visual(self, ids: Sequence[int]) -> int:
        """Image tokens among ids."""
        return 0 if self.image_token_id is None else list(ids).count(self.image_token_id)

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.folder}: has no tokenizer files, so only tensors go in and out; put tokenizer.model, "
                "or vocab.json and merges.txt, with tokenizer_config.json beside the weights"
            )
        return self.tokenizer


def _as_list(images: Source | Sequence[Source] | None) -> list[Source]:
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return list(images)
    return [images]  # type: ignore[list-item]
