"""A script that unpacks itself: one line of Brotli-coded source in a Latin-1 string, and four that run it.

Python reads a source file in the encoding that its first line names, and in Latin-1 every byte is a character: the coded source
stands in the string as it is, but for the few bytes that the grammar claims. Base 85 would add a quarter. The source is
registered under the script's own name, so that tracebacks, Triton and `inspect` find its lines. What it needs: brotli.
"""

import ast
import re

import brotli
import python_minifier

HEAD = b"#coding:l1\nimport brotli,linecache as l\ns=brotli.decompress('''"
TAIL = b"""'''.encode('l1')).decode()
l.cache[__file__]=len(s),None,s.splitlines(1),__file__
exec(compile(s,__file__,'exec'))
"""


def minify(script: ast.Module, keep: frozenset[str]) -> str:
    """The shortest text of the same program. `keep`: names at the top that something outside refers to."""
    text = python_minifier.minify(
        ast.unparse(script),
        remove_annotations=False,
        remove_asserts=True,
        hoist_literals=False,
        rename_globals=True,
        preserve_globals=sorted(keep),
    )
    text = re.sub(r",/(?=[,):])", "", text)  # the mark of parameters that have no name
    for node in ast.walk(ast.parse(text)):
        if (
            not node._attributes
        ):  # Python shares these among all trees, and the minifier leaves links to its own on them
            vars(node).clear()
    return text


def wrap(source: str) -> bytes:
    """The script that runs `source`."""
    return HEAD + escape(brotli.compress(source.encode(), quality=11, lgwin=24)) + TAIL


def escape(data: bytes) -> bytes:
    """What to write between three apostrophes of a Latin-1 file for `data`."""
    data = data.replace(b"\\", b"\\\\").replace(b"\r", b"\\r")
    data = re.sub(rb"\0(?=[0-7])", rb"\\000", data).replace(b"\0", rb"\0")
    return re.sub(rb"'(?=''|\Z)", rb"\'", data)
