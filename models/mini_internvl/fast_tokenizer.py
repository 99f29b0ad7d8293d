"""The tokenizer of a checkpoint as `tokenizer.json`, which transformers' native layout is opened with.

The released 2B and 4B have slow tokenizers. Their pieces are written as a BPE of the `tokenizers` library,
which is used only if it gives the same ids and texts as the tokenizer of the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from mini_internvl.errors import TokenizerError
from mini_internvl.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from mini_internvl.sentencepieces import SPACE, SentencePieceTokenizer
from mini_internvl.tokenizers import FILES, MARKUP, Qwen2Tokenizer, Tokenizer, companion_files

#: Where a space may be put in front of a text; the first that gives the same ids is taken.
_PREFIXES = ("never", "first", "always")
#: Questions and answers with what tokenizers treat differently.
PROBES = (
    "What is in the image?",
    " two  spaces,\n\nnew lines\tand tabs \n",
    "你好，世界。 12,345.678 % <box>[[12, 3, 456, 789]]</box> don't (a) [b] {c}",
    "Ünïcödé Ωμέγα 😀 é ﬁ ½\u3000x",
    "",
)


def write_fast_tokenizer(
    tokenizer: Tokenizer, source: Path, target: Path, turns: Sequence[tuple[str, str]]
) -> str:
    """Writes tokenizer.json and tokenizer_config.json, and the published tokenizer files beside them.

    Args:
        tokenizer: of the checkpoint.
        source: folder of its files.
        target: folder to write to.
        turns: (prompt, answer) pairs, rendered from `PROBES`, that must get the same ids and texts.

    Returns:
        The token that stands for a video in a prompt: `<video>`, or a control token that no prompt uses, for
        the published vocabularies have none and every row of the embedding is taken.

    Raises:
        TokenizerError: no form of `tokenizer.json` gives the same ids and texts.
    """
    files = {name: data for name, data in companion_files(source).items() if name in FILES}
    for name, data in files.items():
        (target / name).write_bytes(data)
    settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    for candidate in _candidates(tokenizer):
        difference = _difference(tokenizer, candidate, turns)
        if difference is None:
            break
    else:
        raise TokenizerError(
            f"{source}: its tokenizer cannot be written as tokenizer.json: the ids of {difference!r} would "
            "differ"
        )
    text = candidate.to_str(pretty=True)
    (target / "tokenizer.json").write_text(text, encoding="utf-8")
    video = _video_token(tokenizer, settings)
    content = _settings(tokenizer, settings, json.loads(text), video)
    (target / "tokenizer_config.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return video


def _candidates(tokenizer: Tokenizer) -> Iterator[Any]:
    from tokenizers import Tokenizer as Fast

    if isinstance(tokenizer, Qwen2Tokenizer):
        yield Fast.from_str(tokenizer.native.backend_tokenizer.to_str())
        return
    assert isinstance(tokenizer, SentencePieceTokenizer)
    for prefix, lead in product(_PREFIXES, (False, True)):
        yield _pieces(tokenizer, prefix, lead)


def _pieces(tokenizer: SentencePieceTokenizer, prefix: str, lead: bool) -> Any:
    """Sentencepiece's pieces as a BPE with byte fallback.

    Args:
        prefix: where a space is put in front of a text. lead: one more stands alone after the beginning
            token, which Llama's slow tokenizer does before a control token that is not registered (the 4B).
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Fast

    pieces = tokenizer.pieces()
    added = dict(sorted(tokenizer.added.items()))
    # An added token on a piece's id replaces the piece, as InternLM2's control tokens do.
    names = {i: added[i].content if i in added else piece.text for i, piece in enumerate(pieces)}
    vocabulary = {name: i for i, name in names.items()}
    scores = {piece.text: piece.score for i, piece in enumerate(pieces) if piece.mergeable and i not in added}
    merges = sorted(
        (
            (-score, len(text[:cut]), text[:cut], text[cut:])
            for text, score in scores.items()
            for cut in range(1, len(text))
            if text[:cut] in scores and text[cut:] in scores
        ),
        key=lambda merge: merge[0],
    )
    fast = Fast(
        models.BPE(
            vocabulary,
            [(left, right) for _, _, left, right in merges],
            unk_token=tokenizer.unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prefix, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix != "never":
        steps.append(decoders.Strip(content=" ", left=1))
    fast.decoder = decoders.Sequence(steps)
    whole = {i: AddedToken(p.text, normalized=False) for i, p in enumerate(pieces) if p.user_defined}
    for i, token in added.items():
        whole[i] = AddedToken(
            token.content,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            single_word=token.single_word,
            normalized=False,
            special=token.content in tokenizer.special_ids,
        )
    for i in sorted(whole):
        fast.add_tokens([whole[i]])
        if fast.token_to_id(whole[i].content) != i:
            raise TokenizerError(f"the added token {whole[i].content!r} cannot keep its id {i}")
    if (bos := tokenizer.bos_id) is not None:
        opening = [(names[bos], bos), *([(SPACE, vocabulary[SPACE])] if lead else [])]
        start = " ".join(name for name, _ in opening)
        fast.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A $B", special_tokens=opening
        )
    return fast


def _difference(tokenizer: Tokenizer, fast: Any, turns: Sequence[tuple[str, str]]) -> str | None:
    """The first text with other ids, or whose ids give another text; None where all agree."""
    for prompt, answer in turns:
        whole = tokenizer.encode(prompt + answer)
        if list(fast.encode(prompt + answer).ids) != whole:
            return prompt + answer
        ids = whole[len(tokenizer.encode(prompt)) :]
        # Outer spaces are cut off every answer.
        if fast.decode(ids).strip() != tokenizer.decode(ids).strip():
            return answer
    return None


def _video_token(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> str:
    if tokenizer.token_id("<video>") is not None:
        return "<video>"
    used = {IMAGE_START, IMAGE_END, IMAGE_CONTEXT, *MARKUP, "<s>", "</s>", "<unk>"}
    turns = ("im_start", "im_end", "system", "user", "assistant", "<|end|>")
    ids = tokenizer.special_ids
    free = [token for token in ids if token not in used and not any(turn in token for turn in turns)]
    pad = settings.get("pad_token")
    free.sort(key=lambda token: (token == pad, ids[token]))
    if not free:
        raise TokenizerError("no control token is free to stand for a video, which the processor asks for")
    return free[0]


def _settings(
    tokenizer: Tokenizer, old: Mapping[str, Any], parsed: Mapping[str, Any], video: str
) -> dict[str, Any]:
    """tokenizer_config.json: the published one, with the marks of images as the processor names them."""
    left_out = ("auto_map", "chat_template", "extra_special_tokens", "processor_class")
    kept = {key: value for key, value in old.items() if key not in left_out}
    byte_level = isinstance(tokenizer, Qwen2Tokenizer)
    return {
        **kept,
        "tokenizer_class": "Qwen2Tokenizer" if byte_level else "PreTrainedTokenizerFast",
        "processor_class": "InternVLProcessor",
        "padding_side": "left",
        "start_image_token": IMAGE_START,
        "end_image_token": IMAGE_END,
        "context_image_token": IMAGE_CONTEXT,
        "video_token": video,
        "extra_special_tokens": {
            "start_image_token": IMAGE_START,
            "end_image_token": IMAGE_END,
            "context_image_token": IMAGE_CONTEXT,
            "video_token": video,
        },
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in parsed.get("added_tokens", ())
        },
    }
