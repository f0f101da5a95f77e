"""docs/referee.md, written from the registry of classes and the worked examples.

python -m underpar.referee.handbook > docs/referee.md
"""

from __future__ import annotations

from collections.abc import Iterator

from underpar.referee.attacks.registry import EXAMPLES
from underpar.referee.classes import AUDIT, CLASSES, VERIFY, Example, InvalidityClass
from underpar.referee.rules import RULES

MARKS = {"O": "official", "C": "convention", "D": "disputed"}
FINDERS = {VERIFY: "`underpar verify` runs it", AUDIT: "`underpar audit` reads its folder"}
SEVERITY = {1: "evidence defective", 2: "score nearly right", 3: "score wrong", 4: "score meaningless"}

HEAD = """\
# The referee's handbook

*Written by `python -m underpar.referee.handbook > docs/referee.md`; a test says when it is out of date.*

What makes a result something else than it claims to be: every class with its rule, what is forbidden and why, and,
where running the predictor shows it, a small cheat beside an honest twin that differs as little as possible. The
cheats are complete and are refused by tests, alone and in pairs; the twins pass, or are
disputed where the rule is. They are in
`src/underpar/referee/attacks`; lines of record folders are in `src/underpar/referee/audit/examples.py`, where
a `scan.` is a suspicion with file and line that a replay has to confirm.

A rule is marked **official** (the game's README or a maintainer), **convention**, or **disputed** (argued about, no
ruling). A broken official rule makes a result *invalid*, any other *disputed*, with both readings. Threads are those
of openai/parameter-golf; `NG#` is modded-nanogpt.

The two formal conditions behind most classes: before a token is looked at there is one distribution over all tokens,
computed from the artifact and earlier tokens alone; and its charge is final before anything learns from it. Whoever
keeps both is a code: on random text the expected cost is at least the entropy, and saving k bits has a chance of at
most 2^-k.
"""


def handbook() -> str:
    """The text of docs/referee.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield HEAD
    yield "## Rules\n"
    yield "| id | mark | rule | source |\n|---|---|---|---|"
    for rule in RULES:
        yield f"| {rule.id} | {MARKS[rule.mark]} | {rule.text} | {rule.source} |"
    yield "\n## Classes\n"
    yield "| id | class | rule | what is left | found by |\n|---|---|---|---|---|"
    for one in CLASSES.values():
        finders = ", ".join(one.found_by)
        yield f"| [{one.id}](#{_anchor(one)}) | {one.title} | {one.rule.id} | {SEVERITY[one.severity]} | {finders} |"
    for one in CLASSES.values():
        yield from _class(one)


def _class(one: InvalidityClass) -> Iterator[str]:
    yield f"\n## {one.id} {one.title}\n"
    yield f"**Forbidden.** {one.forbidden}\n"
    yield f"**Why.** {one.why}\n"
    finders = "; ".join(FINDERS[verb] for verb in one.found_by)
    yield f"**Rule.** {one.rule.id} ({MARKS[one.mark]}): {one.rule.text} **Found by.** {finders}. **Seen in.** {one.cases}."
    for example in EXAMPLES:
        if example.class_id == one.id:
            yield from _example(example)


def _example(example: Example) -> Iterator[str]:
    checks = ", ".join(f"`{id}`" for id in example.caught_by)
    found = "pointed at by" if example.caught_by[0].startswith("scan.") else "refused by"
    yield f"\n*Example `{example.name}`, {found} {checks}.* {example.difference}\n"
    twin = "disputed" if example.contested else "allowed"
    for title, code in (("forbidden", example.forbidden), (twin, example.allowed)):
        yield f"```{example.language}\n# {title}\n{code}\n```\n"


def _anchor(one: InvalidityClass) -> str:
    kept = "".join(c for c in f"{one.id} {one.title}".lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    print(handbook(), end="")
