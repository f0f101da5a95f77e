"""What a run ran on."""

import hashlib
import os
import platform
import subprocess
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import underpar
from underpar.lab.sources import source_digest

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
        "gpus": _gpus() if on_cuda else None,
        "machine": hashlib.sha256(f"{platform.node()} {uuid.getnode()}".encode()).hexdigest()[:12],
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "host_memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "packages": {name: _version(name) for name in PACKAGES},
        "underpar": underpar.__version__,
        "commit": _commit(),
        "source": source_digest(),
        "attention_backend": attention_backend,
    }


def _gpus() -> list[str]:
    """Of every GPU of the machine what its speed depends on: name, memory, power limit, highest clock, driver."""
    query = "--query-gpu=name,memory.total,power.limit,clocks.max.sm,driver_version"
    return _output("nvidia-smi", query, "--format=csv,noheader").splitlines()


def gpu_table() -> str:
    """What `nvidia-smi` prints: the state of the GPUs at this moment. Empty without one."""
    return _output("nvidia-smi") if torch.cuda.is_available() else ""


def _output(*command: str) -> str:
    """What a program prints; nothing where it is absent or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


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
