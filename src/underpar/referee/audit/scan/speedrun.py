"""What the speedrun's rules forbid and a source shows: V27."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.referee.audit.scan.reading import Reading, Suspicion, called, dotted

_OPTIMISERS = re.compile(r"optim|muon|shampoo|soap|dion|heavyball|apex|bitsandbytes|schedulefree", re.IGNORECASE)
_OWN = re.compile(r"^torch(?:$|\.)|^__future__$")


def scan_speedrun(reading: Reading, *, medium: bool, steps: bool) -> Iterator[Suspicion]:
    """Compiler settings, and on the optimiser track imported optimisers. `medium` allows coordinate descent tuning."""
    for node in reading.source.of(ast.Assign, ast.Call, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                name = dotted(target)
                if "_inductor.config" in name and not (medium and name.endswith("coordinate_descent_tuning")):
                    yield Suspicion("V27", node.lineno, f"{name}: compiler settings move time into untimed compilation")
        elif isinstance(node, ast.Call) and called(node) == "compile" and dotted(node.func).startswith("torch"):
            extra = [k.arg for k in node.keywords if k.arg in ("mode", "options")]
            if extra:
                yield Suspicion(
                    "V27",
                    node.lineno,
                    f"torch.compile with {', '.join(extra)}: no further compiler settings are allowed",
                )
        elif steps and isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                if _OPTIMISERS.search(module) and not _OWN.match(module):
                    yield Suspicion("V27", node.lineno, f"imports {module}: this track wants all code in the log")
