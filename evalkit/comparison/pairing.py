"""Two runs as pairs of records of the same samples, or why they are not comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evalkit.comparison.runs import Side
from evalkit.contracts import Record
from evalkit.errors import NotComparableError

#: Fields without which there is nothing in common to compare.
_FIXED = ("task", "split", "protocol")
#: Signature fields that change the request itself, and so its hash.
_REQUEST_FIELDS = frozenset({"tiles", "prompt", "gen", "nonstandard", "request"})
#: Signature fields that say which samples were asked.
_SAMPLE_FIELDS = frozenset({"n", "subset", "data"})

#: Name of the score that holds a sample's model time.
SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Records of both sides, in the same order.

    Attributes:
        base, new: all paired samples. notes: what the reader must know of the pairing.
    """

    base: Sequence[Record]
    new: Sequence[Record]
    notes: tuple[str, ...] = ()

    def answered(self) -> Pairs:
        """Only samples that both sides answered."""
        kept = [(a, b) for a, b in zip(self.base, self.new, strict=True) if not (a.failed or b.failed)]
        return Pairs([a for a, _ in kept], [b for _, b in kept], self.notes)


def pair(base: Side, new: Side, allow: Collection[str] = ()) -> Pairs:
    """Pair two runs by sample id, after checking that they measure the same thing.

    Args:
        allow: signature fields that may differ (`dtype`, `evalkit`, `tiles` ...), `request` for request
            hashes, `n` or `subset` for different samples, of which the common ones are then compared.

    Raises:
        NotComparableError: naming the fields or samples that differ.
    """
    where = f"{base.path} and {new.path}"
    _check_signatures(base, new, allow, where)
    mine, theirs = {r.id: r for r in base.records}, {r.id: r for r in new.records}
    notes = _check_samples(mine.keys(), theirs.keys(), allow, where)
    common = [name for name in mine if name in theirs]
    if not _REQUEST_FIELDS & set(allow):
        differing = [name for name in common if base.request_keys[name] != new.request_keys[name]]
        if differing:
            raise NotComparableError(
                f"{where}: {len(differing)} requests differ (first: {differing[0]}): prompt, pictures or "
                "settings are not the same; --allow request compares them knowingly"
            )
    return Pairs([mine[name] for name in common], [theirs[name] for name in common], notes)


def _check_signatures(base: Side, new: Side, allow: Collection[str], where: str) -> None:
    names = list(dict.fromkeys([*_FIXED, *base.signature, *new.signature]))
    differing = [name for name in names if base.signature.get(name) != new.signature.get(name)]
    fixed = [name for name in differing if name in _FIXED]
    refused = fixed or [name for name in differing if name not in allow]
    if not refused:
        return
    listed = ", ".join(
        f"{name} ({base.signature.get(name, 'none')} | {new.signature.get(name, 'none')})" for name in refused
    )
    mend = (
        "score or run one of them again under the other's"
        if fixed
        else "to compare them knowingly: " + " ".join(f"--allow {name}" for name in refused)
    )
    raise NotComparableError(f"{where}: {listed} differ{'s' if len(refused) == 1 else ''}; {mend}")


def _check_samples(
    mine: Collection[str], theirs: Collection[str], allow: Collection[str], where: str
) -> tuple[str, ...]:
    only_base = [name for name in mine if name not in theirs]
    only_new = [name for name in theirs if name not in mine]
    if not only_base and not only_new:
        return ()
    first = (only_base or only_new)[0]
    what = f"{len(only_base)} samples only in BASE, {len(only_new)} only in NEW (first: {first})"
    if len(only_base) == len(mine):
        raise NotComparableError(f"{where}: no sample in common: {what}")
    if not _SAMPLE_FIELDS & set(allow):
        raise NotComparableError(f"{where}: {what}; --allow subset compares the common ones")
    return (f"compared on the {len(mine) - len(only_base)} common samples: {what}",)


def timed(pairs: Pairs, base: Side, new: Side) -> Pairs:
    """The same pairs, each record with its model time as a score."""
    return Pairs(
        [_timed(record, base) for record in pairs.base],
        [_timed(record, new) for record in pairs.new],
        pairs.notes,
    )


def _timed(record: Record, side: Side) -> Record:
    if record.failed or record.id not in side.seconds:
        return record
    return dataclasses.replace(record, scores={**record.scores, SECONDS: side.seconds[record.id]})
