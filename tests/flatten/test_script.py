"""What a script holds, what it leaves out, and that it can be read by others."""

import ast
import random
from pathlib import Path

import pytest

from underpar.cli import main
from underpar.flatten.flatten import Script
from underpar.flatten.wrapper import HEAD, TAIL, escape
from underpar.lab.flat import flat_script
from underpar.recipes import registry
from underpar.referee.audit.script import audit_script


def script(recipe: str, *overrides: str, readable: bool = False) -> Script:
    return flat_script(registry.resolve(recipe, overrides=overrides).config, recipe, readable=readable)


@pytest.fixture(scope="module")
def readable() -> Script:
    return script("golf/baseline", readable=True)


@pytest.fixture(scope="module")
def packed() -> Script:
    return script("golf/baseline")


def defined(source: str) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef | ast.FunctionDef)}


def test_it_imports_nothing_of_ours_and_says_nothing_twice(readable: Script) -> None:
    tree = ast.parse(readable.source)
    imported = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith("underpar")]
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    assert not strings, "a docstring is left"


def test_only_the_choices_of_the_recipe_are_in_it(readable: Script) -> None:
    names = defined(readable.source)
    assert {"GPT", "Muon", "SequentialRows", "Flat"} <= names
    assert not names & {"SmearGate", "DocumentPacking", "Sliding", "EMA", "Waterfill", "Registry", "ReadLedger"}
    other = defined(script("golf/baseline", "evaluate.window=Sliding", readable=True).source)
    assert "Sliding" in other
    assert "Flat" not in other


def test_the_seed_is_no_part_of_it(packed: Script) -> None:
    assert script("golf/baseline", "seed=99").data == packed.data


def test_a_setting_is_part_of_it(packed: Script) -> None:
    assert script("golf/baseline", "model.mlp.ratio=3").data != packed.data


def test_packing_makes_it_small(packed: Script, readable: Script) -> None:
    assert len(packed.data) < len(readable.data) / 3


def test_the_audit_opens_it(packed: Script, tmp_path: Path) -> None:
    path = tmp_path / "train_gpt.py"
    path.write_bytes(packed.data)
    report = audit_script(path)
    assert report.source.layers == 1
    assert report.source.text == packed.source
    assert not report.source.problem


@pytest.mark.parametrize("seed", range(20))
def test_python_reads_back_every_byte(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = bytes(rng.choices([*range(256), *(b"\0\r\n\\'" * 20), *b"0123"], k=2000)) + rng.choice(
        [b"'", b"\\", b"\0", b"''"]
    )
    source = b"#coding:l1\nx='''" + escape(data) + b"'''.encode('l1')\n"
    (tmp_path / "x.py").write_bytes(source)
    found: dict[str, bytes] = {}
    exec(compile(source, "x.py", "exec"), found)
    assert found["x"] == data
    assert HEAD.startswith(b"#coding:l1\n")
    assert TAIL.startswith(b"'''")


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: Script) -> None:
    path = tmp_path / "deep" / "train_gpt.py"
    assert main(["flatten", "golf/baseline", "--out", str(path)]) == 0
    assert path.read_bytes() == packed.data
    assert f"{len(packed.data):,} B" in capsys.readouterr().out
