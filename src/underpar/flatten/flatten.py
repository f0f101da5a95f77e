"""A recipe's configuration and an entry to one script."""

import ast
from collections.abc import Mapping
from typing import Any

from underpar.flatten.merge import merge
from underpar.flatten.modules import Own, read_module
from underpar.flatten.reach import Search

REPLACED = {"underpar.core.config": "underpar.flatten.runtime.config"}
"""Modules that a script has another version of."""


def config_expression(data: Any) -> ast.expr:
    """The constructor call that makes a config again, from what `to_dict` wrote."""
    if isinstance(data, Mapping):
        keywords = [ast.keyword(key, config_expression(value)) for key, value in data.items() if key != "type"]
        return ast.Call(ast.Name(data["type"], ast.Load()), [], keywords)
    if isinstance(data, list):
        return ast.Tuple([config_expression(item) for item in data], ast.Load())
    return ast.Constant(data)


def config_classes(data: Any) -> frozenset[str]:
    """Names of the config classes in what `to_dict` wrote."""
    if isinstance(data, Mapping):
        return frozenset({data["type"]}).union(*(config_classes(v) for v in data.values()))
    if isinstance(data, list):
        return frozenset().union(*(config_classes(v) for v in data))
    return frozenset()


def script_tree(entry: str, data: Mapping[str, Any], homes: Mapping[str, str], name: str, *, texts: bool) -> ast.Module:
    """The whole script as a tree.

    Args:
        entry: the module whose `main(config, name)` is the program. data: the configuration, from `to_dict`. homes: module of
        every config class in it. name: of the recipe. texts: keep what errors say, and where they come from.
    """
    given = config_classes(data)
    search = Search(lambda module: read_module(module, texts), given, REPLACED)
    reached = search.run([Own(entry, "main"), *(Own(homes[each], each) for each in sorted(given))])
    script = merge(reached, entry)
    start = ast.Call(ast.Name("main", ast.Load()), [config_expression(data), ast.Constant(name)], [])
    script.body.append(ast.Expr(start))
    return ast.fix_missing_locations(script)
