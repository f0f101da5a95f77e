"""Short names for attributes, methods and keywords, the same everywhere: the ones used most get one letter.

A name is left alone when a library may know it: attributes that libraries have, keywords that a library's function takes,
names in strings, fields of the configuration (they are in its fingerprint), and parameters that models declare.
"""

import ast
import keyword
from collections import Counter
from collections.abc import Iterator
from itertools import product
from string import ascii_letters, digits

from underpar.flatten.simplify import walk

KEYWORDS_OF_TORCH = frozenset({"ctx", "inputs", "output"})
"""Parameters that torch gives by name to what our operators are registered with."""


def rename(tree: ast.Module, foreign: frozenset[str]) -> ast.Module:
    """The same program. Changes the tree in place. `foreign`: names of attributes and parameters that are known outside."""
    uses = Counter(_spoken(tree))
    ours = set(_defined(tree))
    outside = foreign | KEYWORDS_OF_TORCH | set(_fixed(tree))
    chosen = [n for n, _ in uses.most_common() if n in ours - outside and len(n) > 2 and not n.startswith("__")]
    taken = set(uses) | outside | set(keyword.kwlist)
    taken |= {n.id for n in walk(tree) if isinstance(n, ast.Name)} | {
        n.arg for n in walk(tree) if isinstance(n, ast.arg)
    }
    free = (name for name in _short_names() if name not in taken)
    return _Rename(dict(zip(chosen, free, strict=False))).visit(tree)


def positional(tree: ast.Module) -> ast.Module:
    """Marks leading parameters that no call gives by name, so that they can be renamed. Changes the tree in place.

    Functions with decorators are left alone: triton, numba and torch read signatures.
    """
    named = set(KEYWORDS_OF_TORCH)
    for node in walk(tree):
        match node:
            case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                named.add(name)
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef) and all(_reads_no_signature(d) for d in node.decorator_list):
            arguments = node.args
            while arguments.args and arguments.args[0].arg not in named:
                arguments.posonlyargs.append(arguments.args.pop(0))
    return tree


def _reads_no_signature(decorator: ast.expr) -> bool:
    text = ast.unparse(decorator)
    return text in ("property", "staticmethod", "classmethod", "contextmanager") or text.endswith("no_grad()")


def _short_names() -> Iterator[str]:
    yield from ascii_letters
    yield from map("".join, product(ascii_letters, ascii_letters + digits))


def _spoken(tree: ast.Module) -> Iterator[str]:
    for node in walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Call(keywords=given):
                yield from (k.arg for k in given if k.arg)
            case ast.arguments():
                yield from (a.arg for a in (*node.args, *node.kwonlyargs))
            case ast.ClassDef(body=body):
                yield from (
                    i.target.id for i in body if isinstance(i, ast.AnnAssign) and isinstance(i.target, ast.Name)
                )


def _defined(tree: ast.Module) -> Iterator[str]:
    """Attributes that the program itself sets, methods, and fields."""
    for node in walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.ClassDef(body=body):
                for item in body:
                    match item:
                        case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                            yield name
                        case ast.Assign(targets=[ast.Name(id=name)]):
                            yield name


def _fixed(tree: ast.Module) -> Iterator[str]:
    """Names that mean more than a place in this program: in strings, of configurations, of parameters of functions."""
    ours = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
    for node in walk(tree):
        match node:
            case ast.Constant(value=str(name)):
                yield name
            case ast.Call(func=func, keywords=given):
                if not (isinstance(func, ast.Name) and func.id in ours) and not _replaces(func):
                    yield from (k.arg for k in given if k.arg)
            case ast.arguments():
                yield from (a.arg for a in (*node.args, *node.kwonlyargs))
    main = tree.body[-1]
    for node in walk(main):
        if isinstance(node, ast.Call):
            yield from (k.arg for k in node.keywords if k.arg)


def _replaces(func: ast.expr) -> bool:
    match func:
        case ast.Name(id="replace") | ast.Attribute(attr="_replace"):
            return True
    return False


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self.names.get(node.attr, node.attr)
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        node.arg = self.names.get(node.arg or "", node.arg or "") or None
        return self.generic_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> ast.AST:
        node.kwd_attrs = [self.names.get(name, name) for name in node.kwd_attrs]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for item in node.body:
            match item:
                case ast.FunctionDef():
                    item.name = self.names.get(item.name, item.name)
                case ast.AnnAssign(target=ast.Name() as target) | ast.Assign(targets=[ast.Name() as target]):
                    target.id = self.names.get(target.id, target.id)
        return self.generic_visit(node)
