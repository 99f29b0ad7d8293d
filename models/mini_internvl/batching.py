"""Generating for unlike prompts in batches that the memory takes, sharing what they have in common.

The only place that reacts to memory running out: a batch is run again in halves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mini_internvl.batch_config import NETWORK_BATCHING, NetworkBatchConfig
from mini_internvl.errors import NotFiniteError, OutOfMemory, first_error_raised
from mini_internvl.finite import where_it_began
from mini_internvl.generation import (
    Decoder,
    Generated,
    GenerationSettings,
    StopText,
    TokenRules,
    beam_search,
    pad_left,
)
from mini_internvl.linear_layers import order_for_decoding
from mini_internvl.model import MiniInternVL
from mini_internvl.prefill import PromptTail, encode_tiles, prefill, prefill_prefix
from mini_internvl.prefix_cache import SharedPrefix
from mini_internvl.prompt_groups import (
    BatchLimits,
    PromptGroup,
    RequestQueue,
    TokenSequence,
    group_sequences,
)

logger = logging.getLogger(__name__)


class BatchRunner:
    """Generates for batches, and remembers how much the memory takes.

    Args:
        network: the model.
        config: how much is done together.

    Attributes:
        share: whether sequences about the same images are decoded after their shared prefix.
        most_sequences: decoded together, at most.
        most_tokens: bound on the tokens whose keys and values are held; found at the first run, halved when
            memory ran out.
    """

    def __init__(self, network: MiniInternVL, config: NetworkBatchConfig = NETWORK_BATCHING) -> None:
        self._network = network
        self._config = config
        self._warned = False
        self.share = True
        self.most_sequences = config.sequences(network.device.type)
        self.most_tokens: int | None = None
        order_for_decoding(network.language_model)

    def run(
        self,
        sequences: Sequence[TokenSequence],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None = None,
    ) -> list[Generated]:
        """Answers in the order of the sequences.

        Raises:
            ImageTokenMismatch: image tokens and visual features differ in number.
            OutOfMemory: one sequence alone is too much.
        """
        return first_error_raised(self.run_each(sequences, settings, rules, stop_text))

    def run_each(
        self,
        sequences: Sequence[TokenSequence],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None = None,
    ) -> list[Generated | OutOfMemory]:
        """As `run`, but a sequence that alone does not fit into the memory has its error as its answer.

        A batch that does not fit is run in halves, each again in halves if need be; this is logged once, and
        later batches are made no larger.
        """
        rotary = self._network.language_model.model.rotary_emb
        groups = group_sequences(sequences, rotary.regime, self.share and settings.num_beams == 1)
        if self.most_tokens is None:
            self.most_tokens = most_tokens(self._network, self._config)
        queue = RequestQueue(groups, sequences, settings.max_new_tokens)
        session = _Session(self._network, sequences, settings, rules, stop_text, self._config)
        while queue or session.running:
            try:
                if session.takes_more:
                    limits = BatchLimits(self.most_sequences, self.most_tokens)
                    session.begin(queue.take(limits, session.running))
                session.advance()
                continue
            except NotFiniteError as error:
                raise session.traced(error) from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            # outside the handler: its traceback would keep the failed batch's tensors alive
            self._shrink(session, queue, cause)
        return [session.answers[place] for place in range(len(sequences))]

    def _shrink(self, session: _Session, queue: RequestQueue, cause: str) -> None:
        """After memory ran out: what was running is begun again, half as much at a time."""
        groups = session.running
        session.drop()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count = sum(len(group.members) for group in groups)
        if count == 1:
            session.fail(groups[0], cause)
            return
        if not self._warned:
            logger.warning(
                "out of memory with %d prompts at once; going on with half of them at a time", count
            )
        self._warned = True
        self.most_tokens = queue.tokens(groups) // 2
        queue.put_back(groups)


class _Session:
    """One call: its sequences, those running, and what they share while it is needed.

    Attributes:
        answers: of sequences that have ended, by place.
        running: groups that are begun, with their sequences that have not ended.
    """

    def __init__(
        self,
        network: MiniInternVL,
        sequences: Sequence[TokenSequence],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
        config: NetworkBatchConfig,
    ) -> None:
        self._network = network
        self._sequences = sequences
        self._settings = settings
        self._rules = rules
        self._stop_text = stop_text
        self._config = config
        self.answers: dict[int, Generated | OutOfMemory] = {}
        self.running: list[PromptGroup]
        self.drop()

    @property
    def takes_more(self) -> bool:
        """Whether enough sequences have left for others to join."""
        return not self._full and self._decoder.rows <= self._config.join_below * self._largest

    @torch.inference_mode()
    def begin(self, batch: Sequence[PromptGroup]) -> None:
        """Prefill groups, which then go on together with those already running."""
        self._full = not batch
        if not batch:
            return
        self.running += batch
        if self._settings.num_beams > 1:
            return
        runs: list[tuple[SharedPrefix | None, list[PromptTail]]] = []
        for group in batch:
            tails = self._tails(group)
            if runs and runs[-1][0] is group.prefix:
                runs[-1][1].extend(tails)
            else:
                runs.append((group.prefix, tails))
        room = min(self._settings.max_new_tokens, self._config.cache_growth)
        prefilled = prefill(self._network, runs, self._config, room)
        places = [place for group in batch for place in group.members]
        own = [self._sequences[place].seed for place in places]
        seeds = [self._settings.seed if seed is None else seed for seed in own]
        self._decoder.join(prefilled, places, seeds)
        self._largest = self._decoder.rows

    @torch.inference_mode()
    def advance(self) -> None:
        """A token more of every sequence, or all of them by beams."""
        ended = self._beams() if self._settings.num_beams > 1 else self._decoder.advance()
        if not ended:
            return
        self._full = False
        self.answers.update(ended)
        left = []
        for group in self.running:
            stay = [place for place in group.members if place not in ended]
            group.release(len(group.members) - len(stay))
            if stay:
                left.append(replace(group, members=stay))
        self.running = left

    def drop(self) -> None:
        """Forget how far the running sequences have come: none is running, as at the beginning."""
        self._decoder = Decoder(self._network, self._settings, self._rules, self._stop_text, self._config)
        self._largest = 0
        self._full = False
        self.running = []

    def traced(self, error: NotFiniteError) -> NotFiniteError:
        """The error with the part of the network where it began."""
        for group in self.running:
            if error.place in group.members:
                images = group.images
                tiles = None if images is None else images.tiles
                return NotFiniteError(error.place, where_it_began(self._network, tiles))
        return error

    def fail(self, group: PromptGroup, cause: str) -> None:
        """The one sequence of a group does not fit into the memory."""
        (place,) = group.members
        self.answers[place] = OutOfMemory(
            f"one prompt of {len(self._sequences[place].ids)} tokens does not fit into the memory of "
            f"{self._network.device} ({cause}); use fewer tiles, a smaller model or a smaller dtype"
        )
        group.release(1)

    def _tails(self, group: PromptGroup) -> list[PromptTail]:
        features = self._features(group)
        prefix = group.prefix
        if prefix is None:
            return [PromptTail(self._embed(place, features)) for place in group.members]
        if prefix.layers is None:
            embeddings = self._embed(group.members[0], features)[: prefix.length]
            prefill_prefix(self._network, embeddings, prefix)
        return [
            PromptTail(
                self._embed(place, features, prefix.length), self._sequences[place].ids[prefix.length :]
            )
            for place in group.members
        ]

    def _embed(self, place: int, features: Tensor | None, start: int = 0) -> Tensor:
        """Embeddings of a sequence from a token on, `[length, width]`."""
        ids = self._sequences[place].ids
        left = torch.tensor([ids[start:]], device=self._network.device)
        if start and self._network.image_token_id not in ids[start:]:
            embeddings: Tensor = self._network.language_model.get_input_embeddings()(left)[0]
            return embeddings
        return self._network.embed(torch.tensor([ids]), features)[0, start:]

    def _features(self, group: PromptGroup) -> Tensor | None:
        images = group.images
        if images is None:
            return None
        if images.features is None:
            images.features = encode_tiles(self._network, images.tiles, self._config)
        return images.features

    def _beams(self) -> dict[int, Generated]:
        network = self._network
        places = [place for group in self.running for place in group.members]
        ids, mask = pad_left([self._sequences[place].ids for place in places], self._rules.pad)
        features = [f for group in self.running for f in [self._features(group)] if f is not None]
        embeddings = network.embed(ids, torch.cat(features) if features else None)
        try:
            found = beam_search(network, embeddings, mask.to(network.device), self._settings, self._rules)
        except NotFiniteError as error:
            raise NotFiniteError(places[error.place]) from None
        return dict(zip(places, found, strict=True))


def most_tokens(network: MiniInternVL, config: NetworkBatchConfig = NETWORK_BATCHING) -> int | None:
    """Tokens whose keys and values a batch may hold; None where the free memory is not known."""
    free = free_bytes(network.device)
    return None if free is None else max(1, int(free * config.memory_share) // bytes_per_token(network))


def bytes_per_token(network: MiniInternVL) -> int:
    """Of the keys and values of one token in all layers."""
    config = network.language_model.config
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return (
        2 * int(config.num_hidden_layers) * int(config.num_key_value_heads) * width * network.dtype.itemsize
    )


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in words or "not enough memory" in words or "can't allocate memory" in words)
    )
