"""A file is replaced at once, or stays what it was."""

from pathlib import Path

import pytest

from underpar.core.whole import write_whole


def test_it_replaces_and_makes_the_folder(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    for text in ("first", "second \N{EM DASH} \udc80"):
        assert write_whole(page, text) == page
    assert page.read_text(encoding="utf-8") == "second \N{EM DASH} ?"
    assert list(page.parent.iterdir()) == [page]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_whole(tmp_path / "page.html", "before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_whole(page, "after")
    assert page.read_text() == "before"
    assert list(tmp_path.iterdir()) == [page]
