"""The stages of questions: those of all worlds mixed, the dense loss kept on as a small extra."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit_tasks.miniatures import drawing
from mini_internvl.model import MiniInternVL
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.lessons import LESSONS, Lesson
from mini_internvl_train.log import Scores
from mini_internvl_train.loop import Loop
from tiny_model.align import word_loss
from tiny_model.dense import model_input
from tiny_model.guide import guide_loss, recorded_inputs
from tiny_model.labels import dense_loss, encode
from tiny_model.lesson_batch import LessonBatch, collate
from tiny_model.muon import optimizers
from tiny_model.stage import Stage, clipped

#: Worlds whose images only feed the language side: those of six cameras cost the vision encoder too much.
_NO_ENCODER = ("drivelm", "look-around")


@dataclass
class QuestionStage(Stage):
    """Trains the language model on lessons, and from a step on all that sees.

    Attributes:
        shares: lessons of each world in a step.
        start: number of the first step; `steps` and `stop` count from 0 all the same.
        warmup: steps of the learning rate's rise.
        decay: share of the steps at the end over which it falls to a twentieth.
        encoder_from: step from which the vision encoder learns too. encoder_lr: its learning rate, relative.
        dense_weight: of the dense loss. guide_weight: of the loss on guided heads' attention.
        evaluate_every: steps.
    """

    adam_lr: float = 4e-3
    shares: Mapping[str, int] = field(default_factory=dict)
    start: int = 0
    warmup: int = 50
    decay: float = 0.3
    encoder_from: int = 300
    encoder_lr: float = 0.2
    dense_weight: float = 0.05
    guide_weight: float = 0.0
    evaluate_every: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        self.total_steps -= self.start
        self._losses: dict[str, list[float]] = defaultdict(list)

    def learners(self) -> Sequence[nn.Module]:
        """All that sees; the language model has optimizers of its own."""
        return (self.network.model.vision_model, self.network.model.mlp1, self.network.head)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Those of the language model, then slower ones for all that sees."""
        language = optimizers((self.network.model.language_model,), self.muon_lr, self.adam_lr)
        slower = optimizers(self.learners(), self.muon_lr * self.encoder_lr, self.adam_lr * self.encoder_lr)
        return [*language, *slower]

    def scale(self, step: int) -> float:
        """Rise, plateau and fall."""
        left = (self.steps - self.start - step) / (self.steps * self.decay)
        return min(1.0, (step + 1) / self.warmup, max(0.05, left))

    def inputs(self) -> Iterator[dict[str, list[Lesson]]]:
        """Lessons of each world."""
        seed = self.seed + 1000 * self.start
        sources = {name: lessons(name, seed, training=True) for name in self.shares}
        while True:
            yield {name: [next(sources[name]) for _ in range(n)] for name, n in self.shares.items()}

    def loss(self, drawn: Mapping[str, Sequence[Lesson]], step: int) -> tuple[Tensor, int]:
        """Mean over worlds of the mean loss of a question."""
        sees = self.start + step >= self.encoder_from
        total, asked = torch.zeros(()), 0
        for name, part in drawn.items():
            batch = collate(part, self.tokenizer, self.network.model.config.num_image_token)
            loss = self._world(part, batch, sees and name not in _NO_ENCODER)
            self._losses[name].append(float(loss))
            total += loss / len(drawn)
            asked += len(batch.kinds)
        if not sees:
            for module in self.learners():
                module.zero_grad()
        return total, asked

    def _world(self, drawn: Sequence[Lesson], batch: LessonBatch, sees: bool) -> Tensor:
        """Adds the gradients of some lessons of one world; returns the mean loss of a question."""
        model, share = self.network.model, 1 / len(self.shares)
        views = [view for lesson in drawn for view in lesson.views]
        features = None
        if views:
            with torch.set_grad_enabled(sees):
                states = model.vision_model(model_input(views)).last_hidden_state
            features = model.project(states)
        with recorded_inputs(model) as inputs:
            logits = answer_logits(model, batch, features)
        losses = F.cross_entropy(logits, batch.targets, reduction="none") * batch.weights()
        loss = losses.sum() / len(batch.kinds)
        total = loss * share
        if self.guide_weight:
            total = total + self.guide_weight * share * guide_loss(model, inputs, batch)
        if sees and self.dense_weight and features is not None:
            labels = encode(views, self.network.side)
            table = model.language_model.get_input_embeddings().weight
            extra = dense_loss(self.network.head(features), labels)
            extra = extra + word_loss(features, labels, self.tokenizer, table)
            total = total + self.dense_weight * share * extra
        total.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def clip(self, loop: Loop) -> Tensor:
        """The parameters of each optimizer by themselves; the largest norm is returned."""
        norms = [
            clipped([p for group in optimizer.param_groups for p in group["params"]], 1.0)
            for optimizer in self.optimizers()
        ]
        return torch.stack(norms).max()

    def evaluates(self, step: int) -> bool:
        """Every `evaluate_every` steps, and the last."""
        every = (self.start + step) % self.evaluate_every == 0
        return step > 0 and (step == self.total_steps or every)

    def evaluate(self, folder: Path, details: Sequence[float]) -> Scores:
        """Mean losses since the last evaluation, and accuracies on held-out lessons."""
        losses = {name: sum(values) / len(values) for name, values in self._losses.items()}
        self._losses.clear()
        right = accuracies(self.network.model, self.tokenizer, tuple(self.shares), 24)
        return {"loss": losses, "accuracy": right}


def answer_logits(model: MiniInternVL, batch: LessonBatch, features: Tensor | None) -> Tensor:
    """Logits `[answer tokens, vocabulary]`; the head runs only where there are labels."""
    embeddings = model.embed(batch.ids, features)
    hidden = model.language_model.model(
        inputs_embeds=embeddings, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    rows, places = batch.where.unbind(1)
    logits: Tensor = model.language_model.lm_head(hidden[rows, places])
    return logits


def lessons(name: str, seed: int, training: bool) -> Iterator[Lesson]:
    """Endless lessons of one world."""
    rng = drawing.generator(f"lessons/{name}", seed, training)
    while True:
        yield LESSONS[name](rng, training)


@torch.no_grad()
def accuracies(
    model: MiniInternVL, tokenizer: Tokenizer, names: Sequence[str], count: int, blind: bool = False
) -> dict[str, float]:
    """Share of answers that greedy decoding would give word for word, by kind of question.

    Args:
        count: held-out lessons of each world.
        blind: show every lesson the images of another.
    """
    right: dict[str, list[float]] = defaultdict(list)
    for name in names:
        source = lessons(name, 12345, training=False)
        wanted = count if name not in _NO_ENCODER else max(4, count // 3)
        drawn = [next(source) for _ in range(wanted)]
        batch = collate(drawn, tokenizer, model.config.num_image_token)
        shown = drawn[1:] + drawn[:1] if blind else drawn
        views = [view for lesson in shown for view in lesson.views]
        features = None
        if views:
            features = model.project(model.vision_model(model_input(views)).last_hidden_state)
        hits = (answer_logits(model, batch, features).argmax(-1) == batch.targets).float()
        misses = torch.zeros(len(batch.kinds)).index_add_(0, batch.asks, 1 - hits)
        for kind, missed in zip(batch.kinds, misses.tolist(), strict=True):
            right[kind].append(float(missed == 0))
    return {kind: round(sum(v) / len(v), 3) for kind, v in right.items()}
