"""Archives: what is unpacked, and everything that is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from evalkit.data.archives import is_archive, split_parts, unpack
from evalkit.errors import DataError

FILES = {"a.txt": b"one", "sub/b.bin": b"\0" * 5000}


def tar(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in members:
            file.addfile(member)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tgz", "w:gz")]
)
def test_tar(tmp_path: Path, out: Path, suffix: str, mode: str) -> None:
    path = tar(tmp_path / f"x{suffix}", FILES, mode=mode)
    assert is_archive(path)
    assert unpack(path, out) == 2
    assert content(out) == FILES


@pytest.mark.parametrize("mode", [0, stat.S_IFREG | 0o644], ids=["no mode", "as Unix writes it"])
def test_zip(mode: int, tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.mkdir("empty")
        for name, data in FILES.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            file.writestr(member, data)
    assert unpack(tmp_path / "x.zip", out) == 2
    assert content(out) == FILES and (out / "empty").is_dir()


@pytest.mark.parametrize(
    "name",
    ["../evil", "sub/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\\\host\\share\\evil", "a/.."],
)
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, out: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(zipfile.ZipInfo("placeholder"), b"x")
        file.filelist[0].filename = name
    with pytest.raises(DataError, match="leaves the folder: refused"):
        unpack(tar(tmp_path / "x.tar", {name: b"x"}, mode="w"), out)
    assert not content(out) and not (tmp_path / "evil").exists()


def test_zip_members_that_leave_the_folder_are_refused(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("../evil", b"x")
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(tmp_path / "x.zip", out)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        link("evil", "/etc/passwd"),
        link("evil", "a.txt"),
        link("evil", "a.txt", tarfile.LNKTYPE),
        link("evil", "", tarfile.FIFOTYPE),
        link("evil", "", tarfile.CHRTYPE),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, out: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(DataError, match="link or device: refused"):
        unpack(tar(tmp_path / "x.tar.gz", FILES, member), out)
    assert not (out / "evil").exists()


def test_links_in_zip_are_refused(tmp_path: Path, out: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        member = zipfile.ZipInfo("evil")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        unpack(tmp_path / "x.zip", out)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bound_on_what_is_written(tmp_path: Path, out: Path, kind: str) -> None:
    bomb = b"\0" * 3_000_000
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("bomb", bomb)
        path = tmp_path / "x.zip"
    else:
        path = tar(tmp_path / "x.tar.gz", {"bomb": bomb})
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(path, out, size_limit=2_000_000)
    assert sum(len(data) for data in content(out).values()) <= 2_000_000


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar"])
def test_broken_archives(tmp_path: Path, out: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive at all" * 100)
    with pytest.raises(DataError, match="download it again"):
        unpack(tmp_path / name, out)


def test_a_truncated_archive(tmp_path: Path, out: Path) -> None:
    import random

    path = tar(tmp_path / "x.tar.gz", {"a": random.Random(0).randbytes(100_000)})
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(DataError, match="download it again"):
        unpack(path, out)


@pytest.mark.parametrize(
    "names", [("x.tar.gz.part_aa", "x.tar.gz.part_ab"), ("x.tar.aa", "x.tar.ab"), ("x.tgz.000", "x.tgz.001")]
)
def test_split_archives(tmp_path: Path, out: Path, names: tuple[str, str]) -> None:
    whole = tar(
        tmp_path / "whole", FILES, mode="w" if names[0].startswith("x.tar.a") else "w:gz"
    ).read_bytes()
    for name, part in zip(names, (whole[:100], whole[100:]), strict=True):
        (tmp_path / name).write_bytes(part)
    first, second = tmp_path / names[0], tmp_path / names[1]
    assert is_archive(first) and not is_archive(second)
    assert split_parts(first) == [first, second]
    assert unpack(first, out) == 2
    assert content(out) == FILES


@pytest.mark.parametrize("name", ["x.png", "x.json", "x.tar.md5", "readme.aa"])
def test_other_files_are_no_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert not is_archive(tmp_path / name)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_attributes_of_macos_are_left_out(suffix: str, tmp_path: Path, out: Path) -> None:
    path, more = tmp_path / f"x{suffix}", {"._a.txt": b"x", "sub/._b.bin": b"x", "__MACOSX/sub/b.bin": b"x"}
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in {**more, **FILES}.items():
                file.writestr(name, data)
    else:
        tar(path, {**more, **FILES})
    assert unpack(path, out) == 2
    assert content(out) == FILES


def packed(members: dict[str, bytes]) -> bytes:
    """A plain tar file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize("fault", ["cut between members", "damaged header", "no end mark"])
def test_a_tar_file_never_ends_early_without_a_word(tmp_path: Path, out: Path, fault: str) -> None:
    """Python's tarfile takes anything that is no header for the end."""
    data = packed({"a.txt": b"a" * 100, "b.txt": b"b" * 100})
    if fault == "cut between members":
        data = data[:1024]
    elif fault == "damaged header":
        data = data[:1024] + b"?" * 512 + data[1536:]
    else:
        data = data[:2048]
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tar: .*(cut short|damaged)"):
        unpack(tmp_path / "a.tar", out)


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
def test_what_follows_the_last_member_is_read_too(tmp_path: Path, out: Path, form: str) -> None:
    squeeze = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[form]
    plain = packed({"a.txt": b"a" * 100})
    path = tmp_path / f"a.tar.{form}"
    path.write_bytes(squeeze(plain))
    assert unpack(path, out) == 1
    path.write_bytes(squeeze(plain + plain))
    with pytest.raises(DataError, match="more behind its end mark"):
        unpack(path, out)
    data = bytearray(squeeze(plain))
    data[-8 if form == "gz" else -4] ^= 1  # a checksum at the very end
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=rf"a\.tar\.{form}: (cannot be unpacked|not a readable tar)"):
        unpack(path, out)


def test_a_zip_file_with_an_emptied_list_is_refused(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "1")
        place = archive.fp.tell() if archive.fp else 0
    end = b"PK\5\6" + b"\0" * 12 + place.to_bytes(4, "little") + b"\0\0"
    path.write_bytes(path.read_bytes()[:place] + end)
    with pytest.raises(DataError, match="begins with a member that it does not list"):
        unpack(path, out)


def test_zip_members_that_occur_twice_or_are_not_listed(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.txt", "2")
    with pytest.raises(DataError, match=r"member 'a\.txt' occurs twice"):
        unpack(path, out)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "1")
        archive.writestr("b.txt", "2")
    data = path.read_bytes()
    place = data.rfind(b"PK\5\6")
    path.write_bytes(data[: place + 8] + b"\3\0\3\0" + data[place + 12 :])
    with pytest.raises(DataError, match="fewer members"):
        unpack(path, out)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_contents_are_one_line(tmp_path: Path, out: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.txt", bytes(range(256)) * 20)
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked .*download it again"):
        unpack(path, out)
