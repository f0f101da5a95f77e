"""Every command that a document shows is one that the command line takes."""

import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest

from underpar.cli import build_parser
from underpar.recipes import registry

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"RECIPE", "A", "B"}
START = re.compile(r"^\s*(?:\$ )?(?:torchrun .*? -m )?underpar (?P<words>[a-z].*)")
INLINE = re.compile(r"`(?:torchrun [^`]*? -m )?underpar (?P<words>[a-z]+ [^`]+)`")


def commands(text: str) -> list[str]:
    """What follows `underpar` in blocks of code and between backticks, without comments and the dots of a list of verbs."""
    shown = [found["words"] for line in text.splitlines() if (found := START.match(line))]
    inline = [" ".join(found["words"].split()) for found in INLINE.finditer(text)]
    bare = [re.split(r"\s{2,}|\s#\s", words)[0] for words in (*shown, *inline)]
    named = re.compile(r"data \w+$")  # spoken of, not shown
    return [re.sub(r"\[(-[^\]]*)\]", r"\1", words) for words in bare if " | " not in words and not named.match(words)]


def parsed(command: str) -> Namespace:
    words = [word for word in shlex.split(command) if word != "..."]
    return build_parser().parse_args([re.sub(r"\.\.\.$", "", word) for word in words])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_are_taken(document: Path) -> None:
    for command in commands(document.read_text(encoding="utf-8")):
        try:
            args = parsed(command)
        except SystemExit:
            pytest.fail(f"{document.name}: underpar {command}")
        names = {getattr(args, name, None) for name in ("recipe", "a", "b", "baseline", "trained_as")} - {None}
        assert names - PLACEHOLDERS <= set(registry.recipes), command
        if args.verb != "audit" and getattr(args, "track", None):
            assert args.track in registry.tracks, command
        if hasattr(args, "recipe") and args.recipe not in PLACEHOLDERS:
            registry.resolve(args.recipe, track=args.track, overrides=args.overrides)


def test_the_reader_finds_commands_in_every_form() -> None:
    block = (
        "\n\n    $ underpar diff A B      # computed\n torchrun --x=2 -m underpar run RECIPE --json\n underpar a | b"
    )
    text = f"`underpar show A`{block}"
    assert commands(text) == ["diff A B", "run RECIPE --json", "show A"]
    assert sum(len(commands(path.read_text(encoding="utf-8"))) for path in DOCUMENTS) > 60
