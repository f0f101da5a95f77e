"""A resolved recipe as one self-contained script."""

import argparse
import hashlib
import json
import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from torch import nn

from underpar.core.config import Config, field_types, from_dict, to_dict
from underpar.flatten.flatten import Script, flatten
from underpar.recipes import Recipe

ENTRY = "underpar.lab.script"
"""The module whose `main` is the program."""

SHORT = {
    "underpar.core.config": "underpar.lab.short.config",
    "underpar.compress.writer.build_artifact": "underpar.lab.short.artifact",
    "underpar.compress.writer.ArtifactInfo": "underpar.lab.short.artifact",
    "underpar.compress.encoded.decode": "underpar.lab.short.artifact",
    "underpar.data.shards": "underpar.lab.short.data",
    "underpar.data.tokenizers": "underpar.lab.short.data",
}
"""What a script has a short version of, and where."""


def flat_script(config: Recipe, name: str, *, readable: bool = False) -> Script:
    """The script of the recipe called `name`. The seed is an argument of the script, not a part of it.

    Raises FlattenError for a construct that one file cannot hold. Cost: seconds; the same configuration is made once a process.
    """
    data = to_dict(config) | {"seed": Recipe().seed}
    return _made(json.dumps(data), name, readable)


@lru_cache
def _made(data: str, name: str, readable: bool) -> Script:
    config = from_dict(json.loads(data), Recipe)
    return flatten(
        ENTRY,
        to_dict(config),
        _homes(config),
        name,
        short=SHORT,
        foreign=_foreign() | _named(config),
        readable=readable,
    )


def _named(config: Recipe) -> frozenset[str]:
    """Attributes that parameters are called by: an artifact has them."""
    with torch.device("meta"):
        model = config.model.build()
    return frozenset(part for name, _ in model.named_parameters() for part in name.split("."))


@lru_cache
def _foreign() -> frozenset[str]:
    """Names of attributes that objects of libraries have."""
    made: tuple[object, ...] = ("", b"", 0, 0.0, {}, [], set(), (), range(0))
    arrays = (torch.device("cpu"), torch.float32, torch.zeros(1), np.dtype("u1"), np.zeros(1))
    modules = (torch, nn, nn.functional, nn.init, torch.cuda, torch.distributed, np, math, os, json, hashlib)
    kinds = (
        *(nn.Module, torch.autograd.Function, argparse.Namespace, argparse.ArgumentParser, ThreadPoolExecutor, Path),
        *(Thread, Event, Queue, deque, BytesIO),
    )
    return frozenset(name for each in (*made, *arrays, *modules, *kinds) for name in dir(each))


def _homes(value: Any) -> dict[str, str]:
    """Config class -> its module, for every class in a tree."""
    if isinstance(value, tuple):
        return {name: home for item in value for name, home in _homes(item).items()}
    if not isinstance(value, Config):
        return {}
    found = {type(value).__name__: type(value).__module__}
    for name in field_types(type(value)):
        found |= _homes(getattr(value, name))
    return found
