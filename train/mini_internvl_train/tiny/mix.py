"""Stage two: questions of all worlds mixed, the dense loss kept on as a small extra."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit_tasks.miniatures import drawing
from mini_internvl.checkpoint import save_checkpoint
from mini_internvl.model import MiniInternVL
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.tiny.align import word_loss
from mini_internvl_train.tiny.batch import Batch, collate
from mini_internvl_train.tiny.dense import pixels
from mini_internvl_train.tiny.guide import guide_loss, watching
from mini_internvl_train.tiny.labels import DenseHead, dense_loss, encode
from mini_internvl_train.tiny.lessons import LESSONS, Lesson
from mini_internvl_train.tiny.optimizer import optimizers

#: Worlds whose pictures only feed the language side: those of six cameras cost the eye too much.
_NO_EYE = ("drivelm", "look-around")


@dataclass(frozen=True)
class Plan:
    """Settings of the stage.

    Attributes:
        steps: optimizer steps. warmup: of the learning rate.
        decay: share of the steps at the end over which it falls to a twentieth.
        start, stop: number of the first step, and of the one to end before where that is not `steps`.
        shares: lessons of each world in a step.
        eye_from: step from which the eye learns too. eye_lr: its learning rate, relative.
        dense_weight: of the dense loss. guide_weight: of the loss on guided heads' attention.
        evaluate_every, save_every: steps.
    """

    steps: int
    shares: Mapping[str, int]
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    warmup: int = 50
    decay: float = 0.3
    eye_from: int = 300
    eye_lr: float = 0.2
    dense_weight: float = 0.05
    guide_weight: float = 0.0
    evaluate_every: int = 200
    save_every: int = 200
    seed: int = 0
    start: int = 0
    stop: int | None = None


def train(
    model: MiniInternVL, head: DenseHead, tokenizer: Tokenizer, plan: Plan, folder: Path, tokenizer_from: Path
) -> None:
    """Trains in place; writes `mix.jsonl` and the checkpoint in the released layout into `folder`."""
    language = optimizers((model.language_model,), plan.muon_lr, plan.adam_lr)
    eye = optimizers(
        (model.vision_model, model.mlp1, head), plan.muon_lr * plan.eye_lr, plan.adam_lr * plan.eye_lr
    )
    groups = [group for solver in (*language, *eye) for group in solver.param_groups]
    base = [group["lr"] for group in groups]
    began = time.monotonic()
    sources = {name: lessons(name, plan.seed + 1000 * plan.start, training=True) for name in plan.shares}
    sums: dict[str, list[float]] = defaultdict(list)
    last = plan.steps if plan.stop is None else plan.stop
    for step in range(plan.start, last):
        left = (plan.steps - step) / (plan.steps * plan.decay)
        scale = min(1.0, (step - plan.start + 1) / plan.warmup, max(0.05, left))
        for group, lr in zip(groups, base, strict=True):
            group["lr"] = lr * scale
        looks = step >= plan.eye_from
        for name, count in plan.shares.items():
            drawn = [next(sources[name]) for _ in range(count)]
            batch = collate(drawn, tokenizer, model.config.num_image_token)
            loss = lesson_step(model, head, tokenizer, drawn, batch, plan, looks and name not in _NO_EYE)
            sums[name].append(loss)
        for solver in (*language, *eye) if looks else language:
            torch.nn.utils.clip_grad_norm_([p for g in solver.param_groups for p in g["params"]], 1.0)
            solver.step()
        for solver in (*language, *eye):
            solver.zero_grad()
        if (step + 1) % plan.evaluate_every == 0 or step + 1 == last:
            line = {"step": step + 1, "seconds": round(time.monotonic() - began)}
            losses = {f"loss/{name}": round(sum(v) / len(v), 4) for name, v in sums.items()}
            sums.clear()
            scores = accuracies(model, tokenizer, tuple(plan.shares), 24)
            with (folder / "mix.jsonl").open("a") as log:
                log.write(json.dumps(line | losses | scores) + "\n")
        if (step + 1) % plan.save_every == 0 or step + 1 == last:
            save(model, head, folder, tokenizer_from)


def lesson_step(
    model: MiniInternVL,
    head: DenseHead,
    tokenizer: Tokenizer,
    drawn: Sequence[Lesson],
    batch: Batch,
    plan: Plan,
    looks: bool,
) -> float:
    """Adds the gradient of some lessons of one world; returns the mean loss of a question."""
    views = [view for lesson in drawn for view in lesson.views]
    features = None
    if views:
        with torch.set_grad_enabled(looks):
            states = model.vision_model(model_input(views)).last_hidden_state
        features = model.project(states)
    with watching(model) as watch:
        logits = answer_logits(model, batch, features)
    losses = F.cross_entropy(logits, batch.targets, reduction="none") * batch.weights()
    loss = losses.sum() / len(batch.kinds)
    total = loss / len(plan.shares)
    if plan.guide_weight:
        total = total + plan.guide_weight / len(plan.shares) * guide_loss(model, watch, batch)
    if looks and plan.dense_weight and features is not None:
        side = round(model.config.num_image_token**0.5)
        labels = encode(views, side)
        table = model.language_model.get_input_embeddings().weight
        extra = dense_loss(head(features), labels) + word_loss(features, labels, tokenizer, table)
        total = total + plan.dense_weight / len(plan.shares) * extra
    total.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def model_input(views: Sequence[drawing.View]) -> Tensor:
    """Normalised tiles."""
    from mini_internvl.model import normalise

    return normalise(pixels(list(views)))


def answer_logits(model: MiniInternVL, batch: Batch, features: Tensor | None) -> Tensor:
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
        blind: show every lesson the pictures of another.
    """
    right: dict[str, list[float]] = defaultdict(list)
    for name in names:
        source = lessons(name, 12345, training=False)
        wanted = count if name not in _NO_EYE else max(4, count // 3)
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


def save(model: MiniInternVL, head: DenseHead, folder: Path, tokenizer_from: Path) -> None:
    """The checkpoint in the released layout, and the dense head beside it."""
    from safetensors.torch import save_file

    save_checkpoint(model, folder / "checkpoint", tokenizer_from=tokenizer_from)
    save_file(head.state_dict(), folder / "dense_head.tmp")
    (folder / "dense_head.tmp").rename(folder / "dense_head.safetensors")
