"""A configuration and an entry to one script."""

import ast
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from underpar.flatten.facts import fold_facts
from underpar.flatten.merge import merge
from underpar.flatten.modules import Own, read_module
from underpar.flatten.reach import Search
from underpar.flatten.rename import positional, rename
from underpar.flatten.simplify import set_on_libraries, walk
from underpar.flatten.sweep import sweep
from underpar.flatten.wrapper import minify, wrap

LEAST_GAIN = 0.01
"""Share of a program that a round has to take away to be worth another."""


@dataclass(frozen=True)
class Script:
    """A self-contained script."""

    data: bytes
    """The file: its length is what counts."""
    source: str
    """The program that runs: `data` itself when readable, otherwise what is packed in it."""
    modules: int
    definitions: int


def flatten(
    entry: str,
    config: Mapping[str, Any],
    homes: Mapping[str, str],
    name: str,
    *,
    short: Mapping[str, str],
    foreign: frozenset[str],
    readable: bool,
) -> Script:
    """Everything that a configuration reaches from an entry, in one file that imports nothing of ours.

    Args:
        entry: the module whose `main(config, name)` is the program. config: what `to_dict` wrote. homes: module of every
        config class in it. name: of the recipe. short: module, or definition, of which a script has another version -> the
        module that has it. foreign: names of attributes that libraries have. readable: names, texts of errors and line breaks
        stay, nothing is packed.
    Raises FlattenError for a construct that one file cannot hold.
    """
    given = _config_classes(config)
    search = Search(lambda module: read_module(module, texts=readable), given, short)
    reached = search.run([Own(entry, "main"), *(Own(homes[each], each) for each in sorted(given))])
    tree = merge(reached, entry)
    tree.body.append(ast.Expr(ast.Call(ast.Name("main", ast.Load()), [_expression(config), ast.Constant(name)], [])))
    ast.fix_missing_locations(tree)
    if readable:
        source = ast.unparse(tree) + "\n"
        data = source.encode()
    else:
        known = foreign | set_on_libraries(tree)
        source = minify(positional(rename(simplified(tree, given, known), known)), given)
        data = wrap(source)
    return Script(data, source, len(reached.modules), len(reached.live))


def simplified(tree: ast.Module, keep: Iterable[str], foreign: frozenset[str]) -> ast.Module:
    """The same program without what its own constants decide."""
    kept, before, size = list(keep), math.inf, sum(1 for _ in walk(tree))
    while size < before * (1 - LEAST_GAIN):
        tree = fold_facts(sweep(tree, kept), foreign)
        before, size = size, sum(1 for _ in walk(tree))
    return ast.fix_missing_locations(sweep(tree, kept))


def _expression(data: Any) -> ast.expr:
    """The constructor call that makes a config again, from what `to_dict` wrote."""
    if isinstance(data, Mapping):
        keywords = [ast.keyword(key, _expression(value)) for key, value in data.items() if key != "type"]
        return ast.Call(ast.Name(data["type"], ast.Load()), [], keywords)
    if isinstance(data, list):
        return ast.Tuple([_expression(item) for item in data], ast.Load())
    return ast.Constant(data)


def _config_classes(data: Any) -> frozenset[str]:
    """Names of the config classes in what `to_dict` wrote."""
    if isinstance(data, Mapping):
        return frozenset({data["type"]}).union(*(_config_classes(v) for v in data.values()))
    if isinstance(data, list):
        return frozenset[str]().union(*(_config_classes(v) for v in data))
    return frozenset()
