"""What a merged program loses when its own constants decide, and what it keeps."""

import ast
import textwrap

import pytest

from underpar.flatten.facts import fold_facts
from underpar.flatten.flatten import simplified
from underpar.flatten.rename import rename
from underpar.flatten.unchecked import Unchecked

FOREIGN = frozenset({"shape", "append"})


def tree_of(source: str) -> ast.Module:
    return ast.parse(textwrap.dedent(source))


def simple(source: str) -> str:
    return ast.unparse(simplified(tree_of(source), ["main"], FOREIGN))


def run(source: str) -> object:
    """What `main()` of a program gives."""
    found: dict[str, object] = {}
    exec(compile(source, "x.py", "exec"), found)
    return found["main"]()  # type: ignore[operator]


CHOICE = """
    class Config:
        def __init__(self, **fields):
            self.__dict__.update(fields)
    class Model(Config):
        def build(self):
            return Net(self)
    class Net:
        def __init__(self, config):
            self.bias = config.bias
            self.gate = make_gate() if config.gated else None
        def out(self, x):
            if self.gate is not None:
                x = self.gate(x)
            return x + (0 if self.bias is None else self.bias)
    def make_gate():
        return lambda x: -x
    def main():
        return Model({fields}).build().out(3)
"""


@pytest.mark.parametrize(("fields", "left_out"), [
    ("bias=None, gated=False", {"make_gate", "self.bias", "if "}),
    ("bias=2, gated=False", {"make_gate", "if "}),
    ("bias=None, gated=True", {"self.bias"}),
])  # fmt: skip
def test_what_a_configuration_decides_falls_away_and_gives_the_same(fields: str, left_out: set[str]) -> None:
    source = textwrap.dedent(CHOICE.replace("{fields}", fields))
    shorter = simple(source)
    body = shorter.partition("def out")[2].partition("def main")[0]
    assert not {text for text in left_out if text in (shorter if "make" in text else body)}
    assert run(shorter) == run(source)


@pytest.mark.parametrize("other", [
    "n = Net()\n    n.width = 2\n    return n.width",
    "n = Net()\n    setattr(n, 'width', 2)\n    return n.width",
    "import types\n    Net()\n    return types.SimpleNamespace(width=2).width if False else Net().twice().width",
])  # fmt: skip
def test_an_attribute_that_is_set_elsewhere_is_no_fact(other: str) -> None:
    twice = "  def twice(self):\n    self.width = self.width * 2\n    return self\n"
    source = f"class Net:\n  width = 1\n{twice}def main():\n    {other}\n"
    assert run(simple(source)) == run(source) == 2


def test_names_that_libraries_have_are_no_facts() -> None:
    folded = fold_facts(tree_of("class A:\n  shape = 1\ndef main(x):\n  A()\n  return x.shape"), FOREIGN)
    assert "x.shape" in ast.unparse(folded)


def test_a_parameter_goes_when_every_call_gives_the_same() -> None:
    source = """
        def scaled(x, factor=1, offset=None):
            if offset is not None:
                x = x + offset
            return x * factor
        def main():
            return scaled(2, factor=3) + scaled(5, 3)
    """
    shorter = simple(source)
    assert "def scaled(x):" in shorter
    assert run(shorter) == 21


def test_effects_stay() -> None:
    source = """
        def note(seen):
            seen.append(1)
            return 1
        def main():
            seen = []
            unread = note(seen)
            for _ in range(2):
                note(seen)
            return len(seen)
    """
    assert run(simple(source)) == 3


def test_tables_of_functions_lose_what_nothing_asks_for() -> None:
    source = """
        def a():
            return 1
        def b():
            return 2
        TABLE = {"first": a, "second": b}
        def main():
            return TABLE["first"]()
    """
    shorter = simple(source)
    assert "second" not in shorter
    assert "def b" not in shorter
    assert run(shorter) == 1


def test_checks_go_and_refusals_that_end_a_program_stay() -> None:
    source = """
        def main(size=3):
            assert size
            if size > 2:
                raise ConfigError("too large")
            try:
                found = open("/dev/null").read()
            except OSError as problem:
                raise DataError("unreadable") from problem
            if size > 1:
                return found
            raise ArtifactError("over the budget")
    """
    left = ast.unparse(Unchecked().visit(tree_of(source)))
    assert "ConfigError" not in left
    assert "DataError" not in left
    assert "assert" not in left
    assert "raise ArtifactError" in left
    assert "if size > 1" in left


def test_what_a_module_offers_is_no_field_of_that_name() -> None:
    source = simple("""
        import functools
        class Recipe:
            def __init__(self):
                self.cache = None
        @functools.cache
        def once(recipe):
            print("told")
            return 3 if recipe.cache is None else 4
        def main():
            return once(Recipe())
    """)
    assert "@functools.cache" in source
    assert "recipe.cache" not in source
    assert run(source) == 3


def test_short_names_are_the_same_everywhere_and_spare_what_others_know() -> None:
    source = """
        class Recipe:
            def __init__(self, **fields):
                self.__dict__.update(fields)
        class Walk:
            def __init__(self, shape):
                self.position, self.shape, self.told = 0, shape, 0
            def advance(self, steps):
                self.position += steps
                return self
            def tell(self):
                return getattr(self, "told") + self.position
        def main():
            return Walk((1,)).advance(steps=2).advance(3).tell() + Recipe(position_of=1).position_of
    """
    tree = tree_of(source)
    tree.body.append(ast.Expr(ast.parse("main(Recipe(position_of=1))", mode="eval").body))
    renamed = rename(tree, FOREIGN)
    renamed.body.pop()
    text = ast.unparse(renamed)
    assert "advance" not in text
    assert ".position " not in text
    assert all(name in text for name in ("shape", "told", "steps=", "position_of"))
    assert run(text) == 6
