"""A way to run a script where underpar cannot be imported."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder that holds nothing, and no way to underpar."""
    folder = tmp_path / "alone"
    (folder / "blocked").mkdir(parents=True)
    (folder / "blocked" / "underpar.py").write_text("raise ImportError('there is no underpar here')\n")
    return folder


@pytest.fixture
def python(alone: Path) -> Callable[..., str]:
    """What `python COMMAND` prints in that folder, in a process for which there is no underpar."""

    def run(*command: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(alone / "blocked"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command], cwd=alone, env=environment, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
