"""`underpar audit script.py`: unpacked, measured, read."""

import json
from pathlib import Path

import pytest

from underpar.cli import main

from . import forge
from .test_scan import INNER, pack


def write(folder: Path, text: str, name: str = "train_gpt.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_honest_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, forge.SCRIPT)
    assert main(["audit", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"train_gpt.py {len(forge.SCRIPT.encode()):,} = " in out
    assert "no known construct was recognised" in out
    assert "verdict      VALID" in out


def test_a_packed_script_with_a_suspicion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, pack(INNER, "lzma"))
    assert main(["audit", str(path)]) == 4
    out = capsys.readouterr().out
    assert "suspicion    V20 train_gpt.py (unpacked):2: FORCE_STOP_STEP" in out
    assert "| FORCED = int(os.environ.get('FORCE_STOP_STEP', '0'))" in out
    assert "verdict      UNVERIFIABLE" in out
    assert main(["audit", str(path), "--source"]) == 4
    assert capsys.readouterr().out == INNER + "\n"


def test_what_a_script_runs_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "from torch.utils.cpp_extension import load\nimport layers\nload('x', ['fast.cpp'])\n")
    write(tmp_path, "import more\n", "layers.py")
    write(tmp_path, "x = 1\n", "more.py")
    write(tmp_path, "int x;\n", "fast.cpp")
    write(tmp_path, "y = 2\n", "unused.py")
    assert main(["audit", str(path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in printed["runs"]] == ["fast.cpp", "layers.py", "more.py"]
    assert printed["verdict"] == "valid"


def test_a_script_that_cannot_be_opened_is_unverifiable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, pack("x = 1\n" * 900_000, "lzma"))
    assert main(["audit", str(path)]) == 4
    assert "decodes to over" in capsys.readouterr().out


def test_files_that_are_no_scripts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = write(tmp_path, "hello", "notes.md")
    link = tmp_path / "link.py"
    link.symlink_to("/etc/passwd")
    for path in (notes, link):
        assert main(["audit", str(path)]) == 2
        assert "neither a folder nor a .py file" in capsys.readouterr().err
