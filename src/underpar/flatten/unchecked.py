"""A program without its checks: what only refuses wrong input, or says something on standard error, is taken out."""

import ast

from underpar.core import errors

REFUSALS = frozenset(name for name, kind in vars(errors).items() if isinstance(kind, type)) - {"Exhausted"}
"""Errors that say that something was wrong from the start. Nothing in a script catches one."""

SAID = frozenset({"say", "say_once", "_say"})
"""Functions that only print for a person who waits."""


class Unchecked(ast.NodeTransformer):
    """Changes a tree in place. What is left runs the same on right input."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        self.generic_visit(node)
        if all(_refuses(each) for each in node.body) and not _binds(node.test):
            return node.orelse or None
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        node.handlers = [h for h in node.handlers if not _refuses(h.body[-1])]
        if node.handlers or node.finalbody:
            return node
        return [*node.body, *node.orelse]

    def visit_Match(self, node: ast.Match) -> ast.AST:
        self.generic_visit(node)
        node.cases = [case for case in node.cases if not (case.body and _refuses(case.body[0]))] or node.cases
        return node

    def visit_Assert(self, _: ast.Assert) -> None:
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """What says why not says so to a person."""
        if "why_not" in node.name:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value and _is_text(inner.value):
                    inner.value = ast.Constant("")
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        said = isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name) and node.value.func.id in SAID
        return None if said else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if hasattr(node, "body") and isinstance(node.body, list) and not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        return node


def _refuses(node: ast.stmt) -> bool:
    """Whether a statement raises an error of ours."""
    if not isinstance(node, ast.Raise) or node.exc is None:
        return False
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(raised, ast.Name) and raised.id in REFUSALS


def _binds(test: ast.expr) -> bool:
    return any(isinstance(node, ast.NamedExpr) for node in ast.walk(test))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
