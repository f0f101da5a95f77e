"""The counted source: complete, deterministic, and it runs alone."""

import io
import lzma
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from underpar.compress import source
from underpar.compress.codecs import Zlib
from underpar.compress.quantise import RoundToNearest, dequantise, quantise
from underpar.compress.source import module_path, pack_source, source_closure, strip
from underpar.compress.writer import build_artifact, raw_bytes
from underpar.core.errors import ArtifactError

ENTRY = "underpar.compress.container"


def test_the_closure_of_the_reader() -> None:
    """Reading needs no quantiser, no writer and nothing of training."""
    names = source_closure([ENTRY])
    assert names == sorted(names)
    for needed in ("underpar", "underpar.compress", "underpar.compress.codecs", "underpar.core.errors"):
        assert needed in names
    for absent in ("underpar.compress.writer", "underpar.compress.quantise", "underpar.train", "underpar.records"):
        assert absent not in names


def test_every_form_of_import_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__.py": "",
        "a.py": "import os\nimport underpar.b.c as c\ndef f():\n    from underpar import d\n    return d",
        "b/__init__.py": "from . import e",
        "b/c.py": "from ..f import thing\nfrom .g import other",
        **{f"{name}.py": "" for name in ("d", "f", "h", "unused", "b/e", "b/g")},
    }
    files["d.py"] = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import underpar.unused\nelse:\n    import underpar.h"
    )
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(source, "ROOT", tmp_path)
    found = [name.removeprefix("underpar").removeprefix(".") for name in source_closure(["underpar.a"])]
    assert found == ["", "a", "b", "b.c", "b.e", "b.g", "d", "f", "h"]


def test_missing_modules_are_named() -> None:
    with pytest.raises(ArtifactError, match=r"underpar\.compress\.contaner.*did you mean"):
        source_closure(["underpar.compress.contaner"])
    with pytest.raises(ArtifactError, match=r"no module 'torch' to pack"):
        pack_source(["torch"])


def test_stripping_keeps_the_program() -> None:
    text = '"""Doc."""\nclass A:\n    """Only a docstring."""\ndef f(x):  # why\n    """Doc."""\n    return "kept", x\n'
    assert strip(text) == "class A:\n    pass\n\ndef f(x):\n    return ('kept', x)\n"
    assert strip('"""Nothing else."""\n') == "\n"


def test_packing_is_deterministic_and_small() -> None:
    names = source_closure([ENTRY])
    blob = pack_source(names)
    assert blob == pack_source(reversed(names))
    raw = sum(len(path.read_bytes()) for name in names if (path := module_path(name)))
    assert len(blob) < raw / 3
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(blob))) as archive:
        assert len(archive.getnames()) == len(names)
        assert all(member.mtime == 0 for member in archive)


LOADER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from underpar.compress import container
assert container.__file__.startswith(sys.argv[1]), container.__file__
artifact = container.read_artifact(sys.argv[2])
from hashlib import sha256
for name in artifact.names:
    print(name, sha256(artifact.tensor(name).contiguous().view(torch.uint8).numpy().tobytes()).hexdigest())
ours = [m for m in sys.modules.values() if (getattr(m, "__name__", "") or "").split(".")[0] == "underpar"]
assert all(m.__file__.startswith(sys.argv[1]) for m in ours), ours
"""


def test_the_packed_source_loads_an_artifact_alone(tmp_path: Path, trained_like) -> None:
    """In a process whose only underpar is the unpacked one, the weights are the same."""
    code = tmp_path / "code"
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(pack_source(source_closure([ENTRY]))))) as archive:
        archive.extractall(code, filter="data")
    encoded = quantise(trained_like, RoundToNearest(bits=7))
    (tmp_path / "model.upar").write_bytes(build_artifact({}, encoded, Zlib())[0])
    command = [sys.executable, "-I", "-c", LOADER, str(code), str(tmp_path / "model.upar")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = {name: sha256(raw_bytes(tensor)).hexdigest() for name, tensor in dequantise(encoded).items()}
    assert dict(line.split() for line in done.stdout.splitlines()) == expected
