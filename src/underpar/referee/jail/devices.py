"""What a GPU driver needs inside a jail: its device files, a few variables, and namespaces that it puts up with."""

from __future__ import annotations

import os
from glob import glob

DEVICE_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME")
"""Passed on for a GPU: where its driver is and which device is ours. None of them can change a number."""

OPENS_A_DEVICE = """
from ctypes import CDLL, byref, c_int, c_void_p
cuda, device, context = CDLL("libcuda.so.1"), c_int(), c_void_p()
failed = cuda.cuInit(0) or cuda.cuDeviceGet(byref(device), 0) or cuda.cuDevicePrimaryCtxRetain(byref(context), device)
raise SystemExit(failed != 0)
"""
"""A program that ends with 0 where the first GPU can be worked with."""


def device_files(device: str) -> list[str]:
    """The device files of the GPU driver."""
    if device == "cpu":
        return []
    return sorted(path for path in glob("/dev/nvidia*") + glob("/dev/nvidia-caps/*") if not os.path.isdir(path))


def device_environment(device: str) -> dict[str, str]:
    """What a clean process is told of its device; nothing of it can change a number.

    On a CPU: that threads which wait sleep. Spinning ones take, on a busy machine, the time that the working one needs.
    For a GPU: where its driver is and which device is ours.
    """
    if device == "cpu":
        return {"OMP_WAIT_POLICY": "PASSIVE"}
    return {name: os.environ[name] for name in DEVICE_VARIABLES if name in os.environ}
