"""Runs the tests that launch kernels under Triton's interpreter: a machine without a GPU checks their arithmetic."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from underpar.kernels.dispatch import HAS_TRITON


@pytest.mark.skipif(not HAS_TRITON, reason="the triton package is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is the interpreter's own process")
def test_every_kernel_agrees_with_float64_under_the_interpreter() -> None:
    here = Path(__file__).parent
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", str(here)]
    done = subprocess.run(command, env=environment, cwd=here.parents[1], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout[-2000:]
    assert int(passed[1]) >= 20, f"only {passed[1]} interpreted tests ran"
