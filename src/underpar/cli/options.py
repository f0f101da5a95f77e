"""Options that several verbs share, and the little that turns them into objects."""

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from underpar.core.recipe import Resolved
    from underpar.recipes import Recipe


TRACKS = ("golf-record", "golf-mini", "golf-cpu", "speedrun-small", "speedrun-mini", "speedrun-toy")
"""Those of recipes/tracks.py, which imports torch; a test keeps them equal."""

SINKS = ("tensorboard", "wandb", "trackio")
"""Those of train/sinks.py, likewise."""


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """RECIPE, --track and --set."""
    parser.add_argument("recipe", help="name of a recipe; 'underpar list' shows them")
    parser.add_argument("--track", help=f"run at the budget of this track: {', '.join(TRACKS)}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides",
        help="change one setting, typed, as in --set model.mlp.ratio=3; becomes part of the fingerprint; repeatable",
    )  # fmt: skip


def add_run(parser: argparse.ArgumentParser) -> None:
    """--data, --out, --device."""
    parser.add_argument(
        "--data", type=Path, help="folder of prepared tokens; recipes on the bundled text make their own"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go (default: runs)")
    add_device(parser)


def add_training(parser: argparse.ArgumentParser) -> None:
    """--fresh, --trained-as and --sink."""
    parser.add_argument("--fresh", action="store_true", help="ignore checkpoints and start from step 0")
    parser.add_argument(
        "--trained-as", metavar="RECIPE",
        help="take the training from this recipe's finished run of the same seed in --out; both must train alike",
    )  # fmt: skip
    parser.add_argument("--sink", action="append", default=[], choices=SINKS, help="also log there; repeatable")


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def finite(text: str) -> float:
    """A number that an option takes. Raises argparse's error for nan and infinity too."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is no finite number")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    if (value := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def resolve(args: argparse.Namespace, *extra: str) -> "Resolved[Recipe]":
    """The resolved recipe that the arguments name."""
    from underpar.recipes import registry

    return registry.resolve(args.recipe, track=args.track, overrides=[*args.overrides, *extra])


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=1))
