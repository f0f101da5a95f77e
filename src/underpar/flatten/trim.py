"""What a program does not need to run: docstrings, annotations that nothing evaluates, abstract methods, texts of errors."""

import ast

TYPING_DECORATORS = {"dataclass_transform", "override", "final", "overload"}
HARMLESS_DECORATORS = {
    "property", "staticmethod", "classmethod", "contextmanager", "cached_property", "abstractmethod", "no_grad",
    "setter", "cache", "lru_cache", "wraps", "inference_mode",
}  # fmt: skip
"""Decorators that do not look at annotations. Others may: Triton reads `tl.constexpr` there, custom operators their schema."""


class Trim(ast.NodeTransformer):
    """Changes a tree in place. `texts`: keep what errors say."""

    def __init__(self, texts: bool) -> None:
        self.texts = texts
        self._keeps: list[bool] = [False]

    def body(self, nodes: list[ast.stmt], *, empty: bool = False) -> list[ast.stmt]:
        """A block without docstrings; `pass` stands in for nothing unless it may be empty."""
        found: list[ast.stmt] = []
        for node in nodes:
            kept = self.visit(node)
            if kept is not None:
                found.append(kept)
        return found or ([] if empty else [ast.Pass()])

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, name, self.body(value, empty=name in ("orelse", "finalbody")))
            elif isinstance(value, list):
                setattr(node, name, [self.visit(v) if isinstance(v, ast.AST) else v for v in value])
            elif isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(d) for d in node.decorator_list if last_name(d) not in TYPING_DECORATORS]
        keeps = any(last_name(d) not in HARMLESS_DECORATORS for d in node.decorator_list)
        arguments = node.args
        if not keeps:
            node.returns = None
            every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
            for argument in filter(None, every):
                argument.annotation = None
        arguments.defaults = [self.visit(d) for d in arguments.defaults]
        arguments.kw_defaults = [d and self.visit(d) for d in arguments.kw_defaults]
        self._keeps.append(keeps)
        node.body = self.body(node.body)
        self._keeps.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Outside of classes. In kernels the annotation is the point."""
        if self._keeps[-1]:
            return node
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        decorators = {last_name(d) for d in node.decorator_list}
        bases = {last_name(b) for b in node.bases}
        has_fields = bool(decorators & {"config", "abstract_config", "dataclass"}) or "NamedTuple" in bases
        node.bases = [b for b in node.bases if last_name(b) not in ("Generic", "ABC", "Protocol")]
        found: list[ast.stmt] = []
        for item in node.body:
            if isinstance(item, ast.AnnAssign):
                kept = self._field(item, has_fields)
            elif isinstance(item, ast.FunctionDef) and _is_abstract(item):
                kept = None
            else:
                kept = self.visit(item)
            if kept is not None:
                found.append(kept)
        node.body = found or [ast.Pass()]
        return node

    def _field(self, node: ast.AnnAssign, has_fields: bool) -> ast.stmt | None:
        """A field has an annotation, but nothing in a script reads which. A class variable is an assignment."""
        annotation = _unquoted(node.annotation)
        if not has_fields or last_name(annotation) == "ClassVar":
            if node.value is None:
                return None
            return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)
        node.annotation = ast.Constant(0)
        node.value = node.value and self.visit(node.value)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if self.texts or not isinstance(node.exc, ast.Call) or not last_name(node.exc.func).endswith("Error"):
            return self.generic_visit(node)
        node.exc, node.cause = node.exc.func, None
        return node


def last_name(node: ast.expr) -> str:
    """The last name of `a.b`, `a.b(...)` and `a.b[...]`."""
    match node:
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return last_name(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def _unquoted(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def _is_abstract(node: ast.FunctionDef) -> bool:
    """A method whose whole body says that another class has it."""
    rest = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    if not rest:
        return any(last_name(d) == "abstractmethod" for d in node.decorator_list)
    only = rest[0]
    return (
        len(rest) == 1
        and isinstance(only, ast.Raise)
        and isinstance(only.exc, ast.Name)
        and only.exc.id == "NotImplementedError"
    )
