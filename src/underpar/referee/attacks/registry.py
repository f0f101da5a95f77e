"""The list of examples: which file shows which class, and which checks refuse it."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.resources import files
from inspect import isclass, signature
from typing import Any

import numpy as np

from underpar.referee.attacks.base import BOS, VOCAB_SIZE
from underpar.referee.audit.examples import AUDIT_EXAMPLES
from underpar.referee.classes import Example
from underpar.referee.predictor import CallablePredictor, ObjectPredictor, Predictor

PACKAGE = "underpar.referee.attacks"


class Shape(StrEnum):
    """What an example is."""

    PREDICTOR = "predictor"
    """A function of the tokens, or a class with charges."""
    PROGRAM = "program"
    """A command that reads a shard and writes charges."""
    PREPARATION = "preparation"
    """A function that makes the data."""


@dataclass(frozen=True)
class Attack:
    """One example file."""

    class_id: str
    module: str
    """Below the package, such as 'v04_target_keyed_cache' or 'programs.v15_double_counted'."""
    caught_by: tuple[str, ...]
    """Ids of checks, any of which may refuse it; the first always does."""
    shape: Shape = Shape.PREDICTOR
    contested: bool = False
    """The twin keeps to one reading of a disputed rule, so that it is disputed and not valid."""

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2]

    def load(self, which: str) -> Any:
        """`forbidden` or `allowed`."""
        return getattr(importlib.import_module(f"{PACKAGE}.{self.module}"), which)

    def predictor(self, which: str, held_out: np.ndarray) -> Predictor:
        """A predictor of this process. held_out: the text that a forbidden one may have stored."""
        made = self.load(which)
        if isclass(made):
            return ObjectPredictor(made, VOCAB_SIZE, BOS)
        if "stored" in signature(made).parameters:
            made = partial(made, stored=held_out)
        return CallablePredictor(made, VOCAB_SIZE, BOS)

    def source(self) -> str:
        """The file."""
        return files(PACKAGE).joinpath(*f"{self.module.replace('.', '/')}.py".split("/")).read_text(encoding="utf-8")

    def example(self) -> Example:
        """For the handbook: the two definitions and what sets them apart."""
        text = self.source()
        tree = ast.parse(text)
        parts = {node.name.lower(): ast.get_source_segment(text, node) for node in tree.body if hasattr(node, "name")}
        doc = " ".join((ast.get_docstring(tree) or "").split())
        forbidden, allowed = parts["forbidden"], parts["allowed"]
        assert forbidden is not None
        assert allowed is not None
        return Example(self.class_id, self.name, forbidden, allowed, doc, self.caught_by, contested=self.contested)


FLIPS = ("causality.flip", "causality.whole", "causality.order")
CANARIES = ("canary.uniform", "canary.text", "canary.frequency")
SWEEP = "normalisation.sweep"

ATTACKS: tuple[Attack, ...] = (
    Attack("V01", "v01_train_then_score", FLIPS),
    Attack("V01", "v01_chunk_before_its_score", FLIPS),
    Attack("V01", "v01_longest_first", FLIPS, contested=True),
    Attack("V02", "v02_scored_window", FLIPS),
    Attack("V03", "v03_second_pass", FLIPS),
    Attack("V04", "v04_target_keyed_cache", (SWEEP, *CANARIES)),
    Attack("V05", "v05_target_gate", (SWEEP, *CANARIES)),
    Attack("V06", "v06_spread_over_symbols", (SWEEP,)),
    Attack("V07", "v07_hindsight_choice", (SWEEP, *CANARIES)),
    Attack("V08", "v08_part_of_the_text", ("coverage.charges",)),
    Attack("V09", "v09_other_split", ("data.overlap",), Shape.PREPARATION),
    Attack("V10", "v10_stored_text", ("data.memory", "data.unseen")),
    Attack("V11", "programs.v11_training_data", ("process.files",), Shape.PROGRAM),
    Attack("V12", "v12_calibration", FLIPS),
    Attack("V13", "v13_warm_up", ("process.warm_up",)),
    Attack("V14", "v14_look_back", ("causality.isolation",)),
    Attack("V15", "programs.v15_double_counted", ("bytes.invariant",), Shape.PROGRAM),
    Attack("V16", "programs.v16_fallback_bytes", ("bytes.invariant",), Shape.PROGRAM),
    Attack("V17", "v17_lossy_text", ("text.shard",), Shape.PREPARATION),
    Attack("V18", "programs.v18_mean_of_means", ("score.claim",), Shape.PROGRAM),
    Attack("V19", "programs.v19_uncounted_file", ("size.submission",), Shape.PROGRAM),
    Attack("V21", "programs.v21_outside_the_timer", ("time.evaluation",), Shape.PROGRAM),
    Attack("V25", "programs.v25_download", ("process.files",), Shape.PROGRAM),
    Attack("V28", "v28_floor", (SWEEP,)),
)
"""Every example, in the order of the classes."""

EXAMPLES: tuple[Example, ...] = (*(attack.example() for attack in ATTACKS), *AUDIT_EXAMPLES)
"""The same for the handbook, and what the audit of a record folder finds."""
