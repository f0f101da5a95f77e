"""What a run ran on."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import underpar

PACKAGES = ("torch", "triton", "numpy", "sentencepiece", "zstandard", "brotli", "safetensors", "scipy")


def describe_environment(attention_backend: str) -> dict[str, Any]:
    """Hardware and versions, as plain JSON data."""
    on_cuda = torch.cuda.is_available()
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda if on_cuda else None,
        "gpu": torch.cuda.get_device_name() if on_cuda else None,
        "gpu_count": torch.cuda.device_count() if on_cuda else 0,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "host_memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "packages": {name: _version(name) for name in PACKAGES},
        "underpar": underpar.__version__,
        "commit": _commit(),
        "attention_backend": attention_backend,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that underpar is imported from; None for an installed package."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(underpar.__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
