"""A conversation as token ids and labels: the loss is on assistant answers and their stop token only.

Each segment (system and user marks, or an answer) is tokenised separately and the ids are joined, so offsets
cannot drift. An answer is tokenised as the continuation of a control token, as in generation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mini_internvl.errors import PromptError
from mini_internvl.prompts import IMAGE, IMAGE_CONTEXT, Template, check_text, fill_images
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.conversations import Conversation
from mini_internvl_train.errors import TrainingDataError

IGNORED = -100
"""Label of a token without loss, as torch's cross entropy spells it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample as a sequence.

    Attributes:
        input_ids: the whole conversation, visual tokens included.
        labels: the id at positions with loss, `IGNORED` elsewhere; not shifted.
        tile_counts: tiles of each image, in order.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    tile_counts: tuple[int, ...]

    @property
    def trained(self) -> int:
        """Tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class ConversationEncoder:
    """Tokenises conversations as a checkpoint expects them.

    Attributes:
        tokenizer, template, system_message: the checkpoint's own; the template is never a free choice.
        image_token_id: id of the visual token.
        tokens_per_tile: visual tokens of one tile.
        max_tokens: a longer sample is an error; nothing is cut.
    """

    tokenizer: Tokenizer
    template: Template
    system_message: str | None
    image_token_id: int
    tokens_per_tile: int
    max_tokens: int

    def encode(self, conversation: Conversation, tile_counts: Sequence[int]) -> Encoded:
        """Ids and labels.

        Args:
            conversation: with one `<image>` in its user turns for each image (video frames expanded).
            tile_counts: tiles of each image, in order.

        Raises:
            TrainingDataError: nothing would be trained, the sample is too long, or a text holds what ends a
                turn; with file and line.
        """
        ids: list[int] = []
        labels: list[int] = []
        images = iter(tile_counts)
        for text, trained in self._segments(conversation):
            part = self._continuation(text) if ids else self.tokenizer.encode(text)
            part = self._with_visual_tokens(part, images, conversation.where)
            ids += part
            labels += part if trained else [IGNORED] * len(part)
        if next(images, None) is not None:
            raise TrainingDataError(f"{conversation.where}: fewer {IMAGE} marks than images")
        if all(label == IGNORED for label in labels):
            raise TrainingDataError(f"{conversation.where}: no token would be trained")
        if len(ids) > self.max_tokens:
            fewer = "max_tiles" if conversation.video is None else "frames"
            raise TrainingDataError(
                f"{conversation.where}: {len(ids)} tokens, more than max_tokens {self.max_tokens}: "
                f"lower {fewer} or raise max_tokens"
            )
        return Encoded(tuple(ids), tuple(labels), tuple(tile_counts))

    def _segments(self, conversation: Conversation) -> list[tuple[str, bool]]:
        """(text, whether it is trained), whose texts together are the rendered conversation.

        Each image is written as one visual token, which is repeated after tokenising: a control token has its
        own id whatever surrounds it, and tokenising thousands of them takes long.
        """
        template, turns = self.template, list(conversation.turns)
        system = turns.pop(0).text if turns[0].role == "system" else self.system_message
        segments: list[tuple[str, bool]] = []
        text, ended = template.opening(system), template.separator.removeprefix(template.stop)
        for turn in turns:
            try:
                check_text(turn.text)
            except PromptError as error:
                raise TrainingDataError(f"{conversation.where}: {error}") from None
            if template.stop in turn.text:
                raise TrainingDataError(
                    f"{conversation.where}: a turn holds {template.stop}, which ends a turn"
                )
            if turn.role == "user":
                question = fill_images(turn.text, [1] * turn.text.count(IMAGE), 1)
                text += f"{template.user}{question}{template.separator}{template.assistant}"
            else:
                segments += [(text, False), (turn.text.strip() + template.stop, True)]
                text = ended  # InternVL2.5's newline, which is not learned
        return [*segments, (text, False)] if text and text == ended else segments

    def _with_visual_tokens(self, ids: list[int], images: Iterator[int], where: str) -> list[int]:
        """Ids with each visual token repeated for the tiles of the next image."""
        if self.image_token_id not in ids:
            return ids
        expanded: list[int] = []
        for token in ids:
            if token != self.image_token_id:
                expanded.append(token)
                continue
            tiles = next(images, None)
            if tiles is None:
                raise TrainingDataError(f"{where}: more {IMAGE} or {IMAGE_CONTEXT} than images")
            expanded += [token] * (tiles * self.tokens_per_tile)
        return expanded

    def _continuation(self, text: str) -> list[int]:
        """Ids of a text that follows a control token."""
        anchor = self.tokenizer.encode(self.template.stop)
        return self.tokenizer.encode(self.template.stop + text)[len(anchor) :]
