"""The source that trains, as one text: what a speedrun log begins with."""

import hashlib
import json
from functools import cache

from underpar.compress.source import module_path, source_closure
from underpar.core.errors import RecordError
from underpar.records.run import Run

ENTRIES = ("underpar.lab.build", "underpar.recipes")
"""What training starts from; all that these import is printed."""


@cache
def training_source() -> str:
    """Every module that training runs, each behind its name. The order is that of the names."""
    parts = []
    for name in source_closure(ENTRIES):
        path = module_path(name)
        if path is not None:
            parts.append(f"# ---- {name}\n{path.read_text(encoding='utf-8').rstrip()}\n")
    return "\n".join(parts)


def source_digest() -> str:
    """16 hex digits of `training_source`."""
    return hashlib.sha256(training_source().encode()).hexdigest()[:16]


def source_of(run: Run) -> str:
    """The source that `run` ran, behind its settings. Raises RecordError when it was another than is installed now."""
    environment, source = run.require("environment.json"), training_source()
    ran, now = environment.get("source"), hashlib.sha256(source.encode()).hexdigest()[:16]
    if ran != now:
        raise RecordError(
            f"{run.folder} was trained by source {ran}, installed is {now}; write the record with the code that ran it"
        )
    tree = run.config["config"]
    first = (tree.get("evaluate") or {}).get("first_tokens")
    lines = [
        f'"""underpar {environment.get("underpar")}, commit {environment.get("commit")}: settings of the run, then all code."""'
    ]
    lines.append(f"SETTINGS = {json.dumps(json.dumps(tree, sort_keys=True))}")
    lines += [f"val_tokens = {first}"] if first else []
    return "\n".join(lines) + "\n\n" + source
