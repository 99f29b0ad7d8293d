"""Unpacks downloaded archives without trusting them: no path escapes, links or devices, a bound on size."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from evalkit import macos
from evalkit.data.strict_json import twice
from evalkit.doors import cause
from evalkit.errors import DataError

#: Bytes that an archive may unpack to, and members that it may have.
SIZE_LIMIT = 500 * 10**9
MEMBER_LIMIT = 5_000_000

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOCK = 1 << 20
#: The record at a zip file's end, with the longest comment.
_END_SEARCHED = 22 + 0xFFFF


def is_archive(path: Path) -> bool:
    """Whether the file's name is that of an archive that `unpack` reads, or of the first part of one."""
    whole = path.name.lower().endswith(_SUFFIXES)
    return whole or (_stem(path) is not None and split_parts(path)[0] == path)


def unpack(archive: Path, folder: Path, size_limit: int = SIZE_LIMIT) -> int:
    """Unpack a zip or tar archive into an empty `folder`; returns the number of files.

    A tar split into parts (`x.tar.gz.part_aa`, `x.tar.gz.aa` ...) is read from its first part on. Nothing is
    written outside `folder`: a member that would is an error, as are links and devices. What is written is
    counted, whatever the archive claims. Attributes of macOS are left out.

    Raises:
        DataError: not an archive, broken, or refused; files written by then are left in `folder`.
    """
    members = _zip(archive) if archive.suffix.lower() == ".zip" else _tar(archive)
    budget = min(size_limit, shutil.disk_usage(folder).free)
    files = 0
    try:
        for number, (name, content) in enumerate(members):
            if number >= MEMBER_LIMIT:
                raise DataError(f"{archive}: more than {MEMBER_LIMIT} members: refused")
            place = _inside(archive, name)
            if macos.is_attribute(place):
                continue
            target = folder / place
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            budget -= _write(archive, content, target, budget)
            files += 1
    except DataError:
        raise
    except Exception as error:  # each compression has errors of its own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{archive}: the disk is full ({error.strerror}): free some space") from None
        raise DataError(f"{archive}: cannot be unpacked ({cause(error)}): download it again") from None
    return files


def _inside(archive: Path, name: str) -> Path:
    """The member's path below the target folder.

    Raises:
        DataError: it would leave the folder.
    """
    unified = name.replace("\\", "/")
    path = PurePosixPath(unified)
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        raise DataError(f"{archive}: member {name[:80]!r} leaves the folder: refused")
    return Path(*path.parts)


def _write(archive: Path, content: IO[bytes], target: Path, budget: int) -> int:
    written = 0
    with target.open("wb") as file:
        while block := content.read(_BLOCK):
            written += len(block)
            if written > budget:
                raise DataError(f"{archive}: unpacks to more than the disk or the limit allows: refused")
            file.write(block)
    return written


def _zip(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    try:
        file = zipfile.ZipFile(archive)
    except Exception as error:
        raise DataError(f"{archive}: not a readable zip file ({cause(error)}): download it again") from None
    with file:
        if name := twice(file.namelist()):
            raise DataError(f"{archive}: member {name[:80]!r} occurs twice: refused")
        if len(file.infolist()) != _declared(archive, len(file.infolist())):
            raise DataError(f"{archive}: lists fewer members than it says it has: download it again")
        if _unlisted(archive, file):
            raise DataError(f"{archive}: begins with a member that it does not list: download it again")
        for member in file.infolist():
            kind = member.external_attr >> 28
            if kind not in (0, 0o10, 0o4):  # regular files and folders, or a system without kinds
                raise DataError(f"{archive}: member {member.filename[:80]!r} is a link or device: refused")
            if member.flag_bits & 1:
                raise DataError(f"{archive}: member {member.filename[:80]!r} is encrypted: refused")
            if member.is_dir():
                yield member.filename, None
            else:
                with file.open(member) as content:
                    yield member.filename, content


def _declared(archive: Path, found: int) -> int:
    """Members by the record at the archive's end; `found` where it has no room for the number."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - _END_SEARCHED))
        end = file.read()
    place = end.rfind(b"PK\5\6")
    count = int.from_bytes(end[place + 10 : place + 12], "little")
    return found if place < 0 or count == 0xFFFF else count


def _unlisted(archive: Path, file: zipfile.ZipFile) -> bool:
    """Whether the archive begins with a member that its list leaves out."""
    with archive.open("rb") as start:
        member = start.read(4) == b"PK\3\4"
    return member and min((each.header_offset for each in file.infolist()), default=1) > 0


class _Header(tarfile.TarInfo):
    """A member's header.

    A damaged one is an error, as is an archive without its end mark: tarfile alone takes either for the end.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.count(b"\0") == tarfile.BLOCKSIZE:  # the end mark
                raise
            raise tarfile.ReadError(f"cut short, or damaged: {error}") from None


def _tar(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with _opened_tar(archive) as file:
        for member in file:
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                content = file.extractfile(member)
                assert content is not None
                yield member.name, content
            else:
                raise DataError(f"{archive}: member {member.name[:80]!r} is a link or device: refused")
        _check_end(archive, file.fileobj)


def _check_end(archive: Path, rest: Any) -> None:
    """Reads what follows the last member, which a compression's checksum covers too. Raises DataError."""
    while block := rest.read(_BLOCK):
        if block.strip(b"\0"):
            raise DataError(
                f"{archive}: holds more behind its end mark: cut short or joined, download it again"
            )


@contextmanager
def _opened_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        stream = stack.enter_context(io.BufferedReader(_Joined(split_parts(archive)), _BLOCK))
        try:
            opened = stack.enter_context(_decompressed(stream))
            file = stack.enter_context(tarfile.open(fileobj=opened, mode="r|", tarinfo=_Header))
        except Exception as error:
            raise DataError(
                f"{archive}: not a readable tar file ({cause(error)}): download it again"
            ) from None
        yield file


def _decompressed(stream: io.BufferedReader[Any]) -> IO[bytes]:
    """What is in a stream. Unlike tarfile's own reading, checksums are looked at."""
    start = stream.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.BZ2File(stream)
    if start.startswith((b"\xfd7zXZ", b"]\0\0")):
        return lzma.LZMAFile(stream)
    return stream


# Split archives -----------------------------------------------------------------------------------------


_PART = re.compile(r"(.+)\.(?:part)?_?(?:[a-z]{2}|\d{1,3})", re.IGNORECASE)


def _stem(path: Path) -> str | None:
    """The name without a part's suffix (`.part_aa`, `.aa`, `.001`), where the rest is that of a tar."""
    found = _PART.fullmatch(path.name)
    return found[1] if found and found[1].lower().endswith(_SUFFIXES[1:]) else None


def split_parts(path: Path) -> list[Path]:
    """All parts of a split tar in the order of their names; the file itself where it is whole."""
    if path.name.lower().endswith(_SUFFIXES) or (stem := _stem(path)) is None:
        return [path]
    return sorted(other for other in path.parent.iterdir() if _stem(other) == stem)


class _Joined(io.RawIOBase):
    """Files read one after the other as one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._files = [part.open("rb") for part in parts]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while self._files:
            if count := self._files[0].readinto(buffer):
                return count
            self._files.pop(0).close()
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
