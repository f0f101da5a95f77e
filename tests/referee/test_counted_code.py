"""The archive of counted source is somebody else's file: opened in memory, bounded, and nothing of it touches the disk."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from underpar.compress.source import pack_source, source_closure
from underpar.core.errors import ArtifactError
from underpar.referee.counted_code import ENTRIES, MAX_ARCHIVE_BYTES, examine_code

LOAD = "underpar/evaluate/load.py"


@pytest.fixture(scope="module")
def honest() -> bytes:
    return pack_source(source_closure(ENTRIES))


def archive(folder: Path, honest: bytes, *more: tuple[str, bytes, bytes]) -> Path:
    """The honest members and some more: (name, content or what a link points at, kind)."""
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(lzma.decompress(honest))) as source,
        tarfile.open(fileobj=plain, mode="w") as made,
    ):
        for member in source:
            made.addfile(member, source.extractfile(member))
        for name, content, kind in more:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            made.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    path = folder / "code.tar.xz"
    path.write_bytes(lzma.compress(plain.getvalue(), preset=0))
    return path


def test_names_that_lead_outside_and_links_are_neither_written_nor_followed(tmp_path: Path, honest: bytes) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    outside = str(tmp_path / "absolute.py")
    path = archive(
        inside,
        honest,
        ("../../up.py", b"x = 1", tarfile.REGTYPE),
        (outside, b"x = 1", tarfile.REGTYPE),
        ("underpar/evaluate/linked.py", b"/etc/passwd", tarfile.SYMTYPE),
        ("underpar/evaluate/hard.py", b"../../../etc/passwd", tarfile.LNKTYPE),
        ("underpar/pipe.py", b"", tarfile.FIFOTYPE),
    )
    found = examine_code(path)
    assert found.missing == ()
    assert not found.same_as_installed
    assert [one.name for one in tmp_path.rglob("*")] == ["a", "b", "code.tar.xz"]


def test_a_link_does_not_stand_for_a_module(tmp_path: Path, honest: bytes) -> None:
    """A later member replaces an earlier one of its name only where it is a file."""
    assert examine_code(archive(tmp_path, honest, (LOAD, b"/etc/passwd", tarfile.SYMTYPE))).missing == ()
    path = archive(tmp_path, honest, (LOAD, b"import underpar.evaluate.not_there", tarfile.REGTYPE))
    assert examine_code(path).missing == ("underpar.evaluate.not_there",)


@pytest.mark.parametrize(
    "text",
    [b"(" * 50_000, b"x = " + b"-" * 50_000 + b"1", b"a" + b".b()" * 30_000, b"a" + b".b()" * 800, b"\0", b"\xff\xfe"],
    ids=["parentheses", "signs", "chain", "short chain", "nul", "no text"],
)
def test_sources_that_hurt_a_parser_cost_one_line(tmp_path: Path, honest: bytes, text: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^[^\n]*pack again$"):
        examine_code(archive(tmp_path, honest, (LOAD, text, tarfile.REGTYPE)))


def test_bombs_and_truncated_archives_are_refused(tmp_path: Path, honest: bytes) -> None:
    path = tmp_path / "code.tar.xz"
    path.write_bytes(lzma.compress(bytes(MAX_ARCHIVE_BYTES + 1), preset=0))
    assert path.stat().st_size < 100_000
    with pytest.raises(ArtifactError, match="decodes to over"):
        examine_code(path)
    path.write_bytes(honest[: len(honest) // 2])
    with pytest.raises(ArtifactError, match="is cut off"):
        examine_code(path)
