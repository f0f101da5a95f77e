"""Takes dead parts out of live statements: branches for classes that nothing makes, methods nobody names, unused defaults."""

import ast

from underpar.flatten.modules import Own
from underpar.flatten.reach import Reached, alternatives, asked_classes, own_class, pattern_classes


class Fold(ast.NodeTransformer):
    """Mirrors `Search`: what it did not scan must go, and nothing else."""

    def __init__(self, reached: Reached) -> None:
        self.reached = reached
        self._own = Own("", "")

    def statement(self, node: ast.stmt, own: Own) -> ast.stmt:
        """A top-level statement of a live definition."""
        self._own = own
        if isinstance(node, ast.ClassDef):
            return self._class(node)
        return self.visit(node)

    def _class(self, node: ast.ClassDef) -> ast.stmt:
        found: list[ast.stmt] = []
        for item in node.body:
            if isinstance(item, ast.AnnAssign):
                if item.value and not self.reached.keeps_defaults(self._own):
                    item.value = None
                found.append(self.visit(item))
            elif self.reached.is_spoken(item, node):
                found.append(self.visit(item))
        node.body = found or [ast.Pass()]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        classes = asked_classes(node.test)
        if classes is not None and self.reached.is_dead(classes):
            return [kept for inner in node.orelse for kept in _listed(self.visit(inner))] or ast.Pass()
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant) and not node.test.value:
            return node.orelse or ast.Pass()
        node.body = node.body or [ast.Pass()]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        classes = asked_classes(node.test)
        if classes is not None and self.reached.is_dead(classes):
            return self.visit(node.orelse)
        return self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> ast.AST:
        kept = []
        for case in node.cases:
            classes = pattern_classes(case.pattern)
            if classes is None or not self.reached.is_dead(classes):
                kept.append(case)
        node.cases = kept
        if not kept:
            return ast.Pass()
        return self.generic_visit(node)

    def visit_MatchOr(self, node: ast.MatchOr) -> ast.AST:
        alive = [p for p in node.patterns if not ((c := pattern_classes(p)) and self.reached.is_dead(c))]
        node.patterns = alive
        self.generic_visit(node)
        return node if len(node.patterns) > 1 else node.patterns[0]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance" and len(node.args) == 2:
            every = alternatives(node.args[1])
            alive = [c for c in every if not self._is_dead_class(c)]
            if not alive:
                return ast.Constant(False)
            if len(alive) < len(every):
                node.args[1] = alive[0] if len(alive) == 1 else ast.Tuple(alive, ast.Load())
        return node

    def _is_dead_class(self, node: ast.expr) -> bool:
        own = own_class(self.reached, node)
        return own is not None and own not in self.reached.live

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Or):
            node.values = [v for v in node.values if not _is_false(v)] or [ast.Constant(False)]
        elif any(_is_false(v) for v in node.values[:1]):
            return ast.Constant(False)
        return node if len(node.values) > 1 else node.values[0]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and _is_false(node.operand):
            return ast.Constant(True)
        return node


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _listed(found: ast.AST | list[ast.stmt] | None) -> list[ast.stmt]:
    if found is None:
        return []
    return found if isinstance(found, list) else [found]  # type: ignore[list-item]
