"""Which settings were really read: opt-in, and free where it is off.

    ledger = ReadLedger(config)
    with ledger.recording():
        ...            # product code
    ledger.reads       # {"model.mlp.ratio", ...}

Only reads of attributes count. Comparing, printing, hashing and writing a config go around the ledger. Not for code that
torch.compile traces: a config whose reads are recorded cannot be traced.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from underpar.core.config import Config, field_types


class ReadLedger:
    """Paths of the fields of one frozen config tree that were read while recording."""

    def __init__(self, root: Config) -> None:
        self.reads: set[str] = set()
        self._root = root  # nodes are known by identity, so they must live as long as their names
        self._fields: dict[int, dict[str, list[str]]] = {}
        self._register(root, "")

    def _register(self, node: Config, path: str) -> None:
        """A node that stands in several places, as one object may, is known by all its paths."""
        known = self._fields.setdefault(id(node), {})
        for name in field_types(type(node)):
            here = f"{path}.{name}" if path else name
            known.setdefault(name, []).append(here)
            value = object.__getattribute__(node, name)
            for index, child in enumerate(value if isinstance(value, tuple) else (value,)):
                if isinstance(child, Config):
                    self._register(child, f"{here}[{index}]" if isinstance(value, tuple) else here)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note every read inside the block, in all threads. Blocks of several ledgers may be nested."""
        before = Config.__dict__.get("__getattribute__")
        outer = object.__getattribute__ if before is None else before
        fields, reads = self._fields, self.reads

        def read(node: Config, name: str) -> Any:
            paths = fields.get(id(node), {}).get(name)
            if paths is not None:
                reads.update(paths)
            return outer(node, name)

        Config.__getattribute__ = read  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            if before is None:
                del Config.__getattribute__
            else:
                Config.__getattribute__ = before  # type: ignore[method-assign]
