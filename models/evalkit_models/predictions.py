"""Stored predictions as a model: `--model predictions:FILE`.

`prediction_files` reads the file row by row; here its rows become answers by sample id. Which fields hold id
and answer is recognised (docs/own-predictions.md); `--gen id_field=…` and `--gen text_field=…` name others.
Ids are compared as strings.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.contracts import GENERATION_FIELDS, Failure, Model, ModelInfo, ModelOptions, Request, Response
from evalkit.environment import many_objects
from evalkit.errors import DataError, UsageError
from evalkit.near_names import unknown_setting
from evalkit_models.numbered_rows import place
from evalkit_models.prediction_files import read
from evalkit_models.prediction_rows import Answer, Recogniser

log = logging.getLogger(__name__)

SCHEME = "predictions:"


@dataclass
class _Answers:
    """Answers of a file by id; those of rows that know their number alone, by that number."""

    by_id: dict[str, Response] = field(default_factory=dict)
    by_row: dict[int, Answer] = field(default_factory=dict)


class Predictions:
    """Answers by sample id from a file; needs neither images nor hardware."""

    @many_objects()
    def __init__(self, path: Path, id_field: str | None = None, text_field: str | None = None) -> None:
        """Read the whole file.

        Raises:
            DataError: missing, broken (with the place), or an id twice with different texts.
            UsageError: more than one field may be the answer.
        """
        self.path = path
        file = read(path)
        recogniser = Recogniser(id_field, text_field)
        self._answers = _collect(path, (recogniser.answer(row, where) for row, where in file.rows))
        self._texts = self._answers.by_id
        log.info(
            "%s: read as %s",
            path,
            recogniser.sentence(file.kind, max(len(self._texts), len(self._answers.by_row))),
        )
        digest = hashlib.sha256(file.data).hexdigest()[:32]
        self._info = ModelInfo(name=f"{SCHEME}{path.name}", fingerprint=digest, engine="stored")

    @property
    def info(self) -> ModelInfo:
        """Named after the file, fingerprinted by its content."""
        return self._info

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """Count and warn of predictions for samples that the split does not have.

        Rows that know their number alone (lmms-eval's `doc_id`) get the id of the sample that they asked.

        Raises:
            DataError: such a row asked something else than its sample does.
        """
        self._texts = self._placed(ids)
        unknown = [identifier for identifier in self._texts if identifier not in ids]
        if self._texts and len(unknown) == len(self._texts):
            split_of = getattr(ids, "split_of", None)
            if split := split_of(unknown) if split_of else None:
                log.warning(
                    "%s: all its %d ids are of the split %r; give --split %s, or the file of this split",
                    self.path, len(unknown), split, split,
                )  # fmt: skip
                return {"unknown": len(unknown)}
            log.warning(
                "%s: none of its %d ids is a sample id: it has %r, the split %r; --gen id_field=NAME names "
                "another field",
                self.path,
                len(unknown),
                unknown[0],
                next(iter(ids), ""),
            )
        elif unknown:
            log.warning(
                "%s: %d predictions belong to no sample of the split and are left out (first: %r)",
                self.path,
                len(unknown),
                unknown[0],
            )
        return {"unknown": len(unknown)}

    def _placed(self, ids: Collection[str]) -> dict[str, Response]:
        """The answers by id, with the ids of the split for those that have a number in its place."""
        rows = self._answers.by_row
        if not rows or any(name in ids for name in self._answers.by_id):
            return self._answers.by_id
        samples = getattr(ids, "asked_by", lambda _: ())("lmms-eval")
        evidence = {number: row.evidence for number, row in rows.items() if row.evidence is not None}
        try:
            names = place(evidence, samples, self.path)
        except DataError:
            if len(self._answers.by_id) == len(rows):
                return self._answers.by_id  # they have ids, of another split or task
            raise
        moved = sum(
            sample.id != names.get(number) for number, sample in enumerate(samples) if number in names
        )
        how = f"by their questions ({moved} are at another place)" if moved else "by doc_id"
        log.info("%s: rows are matched %s, and their questions are those of the split", self.path, how)
        return {names[number]: row.response for number, row in rows.items()}

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """The stored answer of each request's id; a missing one is an error, never an empty answer."""
        for request in requests:
            response = self._texts.get(request.id)
            if response is None:
                missing = Failure("missing", f"{self.path}: no prediction for sample {request.id!r}")
                response = Response(error=missing)
            yield request.id, response

    def close(self) -> None:
        """Nothing is held."""


class PredictionsFamily:
    """Finds `predictions:FILE`."""

    unused = ("base_url", "compile")

    def names(self) -> Sequence[str]:
        """The scheme."""
        return (f"{SCHEME}FILE",)

    def matches(self, spec: str) -> bool:
        """Whether `spec` begins with the scheme."""
        return spec.startswith(SCHEME)

    def load(self, spec: str, options: ModelOptions) -> Model:
        """Read the file.

        Raises:
            UsageError: a setting that stored texts cannot follow. DataError: see `Predictions`.
        """
        for flag in ("checkpoint", "revision", *self.unused):
            if getattr(options, flag):
                raise UsageError(f"--{flag.replace('_', '-')} has no meaning with {SCHEME}FILE")
        if options.template != "auto":
            raise UsageError(f"--template has no meaning with {SCHEME}FILE")
        extra = dict(options.extra)
        id_field, text_field = extra.pop("id_field", None), extra.pop("text_field", None)
        if extra:
            known = ("id_field", "text_field", *GENERATION_FIELDS)
            raise unknown_setting("--gen", next(iter(extra)), known, f"{SCHEME}FILE")
        name = spec.removeprefix(SCHEME)
        if not name:
            raise UsageError(f"--model {SCHEME}: name a file, {SCHEME}FILE")
        return Predictions(Path(name).expanduser(), id_field, text_field)


FAMILY = PredictionsFamily()


def _collect(path: Path, answers: Iterator[Answer | None]) -> _Answers:
    found = _Answers()
    for answer in answers:
        if answer is None:
            continue
        known = []
        if answer.row is not None:
            known.append(found.by_row.setdefault(answer.row, answer).response)
        if answer.id is not None:
            known.append(found.by_id.setdefault(answer.id, answer.response))
        if any(other.text != answer.response.text for other in known) and not answer.replaces:
            name = answer.row if answer.id is None else answer.id
            raise DataError(f"{answer.where}: id {name!r} occurs before with another text; keep one of them")
        if answer.id is not None:
            found.by_id[answer.id] = answer.response
    if not found.by_id and not found.by_row:
        raise DataError(f"{path}: holds no predictions")
    return found
