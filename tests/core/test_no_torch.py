"""The rooms that must answer at once do not import torch."""

import subprocess
import sys

import pytest

CODE = """
import importlib, pkgutil, sys
package = importlib.import_module({name!r})
for found in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
    importlib.import_module(found.name)
print(" ".join(sorted(sys.modules.keys() & {{"torch", "scipy.stats"}})))
"""


@pytest.mark.parametrize("name", ["underpar.core", "underpar.stats", "underpar.records", "underpar.cli"])
def test_importing_the_whole_room_leaves_torch_out(name: str) -> None:
    found = subprocess.run([sys.executable, "-c", CODE.format(name=name)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "torch" not in found.stdout.split()
