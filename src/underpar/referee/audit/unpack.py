"""Packed scripts, opened without running them.

Many published scripts are two lines: a literal in base 85 or base 64, a decompressor, `exec`. The syntax tree is read, the
chain of calls from the literal outwards is recognised, and our own decoders are applied with a bound on what comes out.
Anything else in the chain leaves the script packed, and says so.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Callable

import brotli
import zstandard

from underpar.referee.audit.syntax import NoPython, all_nodes, parse

MAX_PLAIN_BYTES = 4 << 20
MAX_LAYERS = 4
_MEMORY = 256 << 20


class Unpackable(Exception):
    """The script is packed in a way that is not decoded, or decodes to too much; the message says which."""


def unpack_layers(text: str, tree: ast.Module) -> list[str]:
    """The sources inside a self-extracting script, outermost first; [] for a script that is not one.

    Raises Unpackable for a script that executes a value which cannot be decoded.
    """
    layers: list[str] = []
    while len(layers) < MAX_LAYERS:
        call = _executed(tree) if "exec" in text else None
        if call is None:
            return layers
        data = _evaluate(call.args[0], _assignments(tree), depth=0)
        if data is None:
            if layers or _is_wrapper(tree):
                raise Unpackable(f"line {call.lineno} executes a value that is not a plain packed literal")
            return layers
        source = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        if not source.strip():
            raise Unpackable(f"line {call.lineno}: the packed literal is damaged: it holds nothing")
        try:
            tree = parse(source)
        except NoPython as problem:
            raise Unpackable(f"what line {call.lineno} executes is not Python ({problem})") from None
        layers.append(source)
        text = source
    raise Unpackable(f"packed more than {MAX_LAYERS} times over")


def _is_wrapper(tree: ast.Module) -> bool:
    """Few statements around a long literal: there is nothing else to read."""
    return len(tree.body) <= 12 and any(
        isinstance(n, ast.Constant) and isinstance(n.value, str | bytes) and len(n.value) > 2_000
        for n in ast.walk(tree)
    )


def _executed(tree: ast.Module) -> ast.Call | None:
    """The last exec(...) at module level whose argument is more than a file read."""
    calls = [
        node
        for statement in tree.body
        for node in all_nodes(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "exec" and node.args
    ]
    return calls[-1] if calls else None


def _assignments(tree: ast.Module) -> dict[str, ast.expr]:
    """Module-level names that are assigned once, aliases of imports included."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        for inner in ast.walk(node):
            if isinstance(inner, ast.ImportFrom):
                for alias in inner.names:
                    found[alias.asname or alias.name] = ast.Name(alias.name, ast.Load())
            elif isinstance(inner, ast.Import):
                for alias in inner.names:
                    if alias.asname:
                        found[alias.asname] = ast.Name(alias.name, ast.Load())
    return found


def _evaluate(node: ast.expr, names: dict[str, ast.expr], depth: int) -> bytes | str | None:
    """The value of a chain of known decoders around a literal, None for anything else."""
    if depth > 20:
        return None
    match node:
        case ast.Constant(value=bytes() | str() as value):
            return value
        case ast.Name(id=name) if name in names and not isinstance(names[name], ast.Name):
            return _evaluate(names[name], names, depth + 1)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            a, b = _evaluate(left, names, depth + 1), _evaluate(right, names, depth + 1)
            if isinstance(a, bytes) and isinstance(b, bytes):
                return a + b
            return a + b if isinstance(a, str) and isinstance(b, str) else None
        case ast.Call(func=func, args=args):
            return _apply(func, args, node, names, depth)
        case _:
            return None


def _apply(
    func: ast.expr, args: list[ast.expr], call: ast.Call, names: dict[str, ast.expr], depth: int
) -> bytes | str | None:
    name = _last_name(func, names)
    if name == "__import__":
        return None
    if isinstance(func, ast.Attribute) and name in ("decode", "encode", "strip", "replace") and not _is_module(func):
        inner = _evaluate(func.value, names, depth + 1)
        if name == "decode" and isinstance(inner, bytes):
            return inner.decode("utf-8", "replace")
        if name == "encode" and isinstance(inner, str):
            return inner.encode(_encoding(args), "replace")
        return inner.strip() if name == "strip" and inner is not None else None
    if name == "compile" and args:
        return _evaluate(args[0], names, depth + 1)
    if not args:
        return None
    inner = _evaluate(args[0], names, depth + 1)
    if inner is None:
        return None
    if name == "bytes" and isinstance(inner, str | bytes):
        return inner.encode() if isinstance(inner, str) else inner
    decoder = _DECODERS.get(name) or (_decompress if name in ("decompress", "decompressobj") else None)
    if decoder is None:
        return None
    try:
        return decoder(inner.encode("utf-8", "replace") if isinstance(inner, str) else inner)
    except (
        ValueError,
        binascii.Error,
        lzma.LZMAError,
        zlib.error,
        brotli.error,
        zstandard.ZstdError,
        OSError,
        EOFError,
    ) as p:
        raise Unpackable(f"line {call.lineno}: the packed literal is damaged ({str(p)[:80]})") from None


def _encoding(args: list[ast.expr]) -> str:
    """Latin-1 where a call names it: there every character is a byte of a packed literal."""
    match args:
        case [ast.Constant(value=str(name)), *_] if re.fullmatch("l1|latin[-_]?1|iso[-_]8859[-_]1", name, re.I):
            return "latin-1"
    return "utf-8"


def _is_module(func: ast.Attribute) -> bool:
    """base64.decode and the like: a function of a module, not a method of a value."""
    return isinstance(func.value, ast.Name) and func.value.id in ("base64", "codecs", "lzma", "zlib", "brotli", "bz2")


def _last_name(func: ast.expr, names: dict[str, ast.expr]) -> str:
    if isinstance(func, ast.Attribute):
        return func.attr
    if isinstance(func, ast.Name):
        target = names.get(func.id)
        if isinstance(target, ast.Name):
            return target.id.rpartition(".")[2]
        if isinstance(target, ast.Attribute):
            return target.attr
        return func.id
    return ""


def _decompress(data: bytes) -> bytes:
    """Whichever compressor it was: the magic bytes say, and our own bound holds."""
    if data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
        return _bounded_lzma(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor(max_window_size=_MEMORY).stream_reader(data)
        return _bounded(reader.read(MAX_PLAIN_BYTES + 1))
    if data[:3] == b"BZh":
        return _drain(bz2.BZ2Decompressor(), data)
    if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":
        return _inflate(data, 47)
    try:
        return _bounded_brotli(data)
    except brotli.error:
        return _raw(data)


def _raw(data: bytes) -> bytes:
    """Streams without magic bytes: raw LZMA as a few scripts use, raw deflate."""
    try:
        return _inflate(data, -15)
    except zlib.error:
        pass
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    return _drain(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), data)


def _bounded_lzma(data: bytes) -> bytes:
    return _drain(lzma.LZMADecompressor(memlimit=_MEMORY), data)


def _drain(decoder: lzma.LZMADecompressor | bz2.BZ2Decompressor, data: bytes) -> bytes:
    return _whole(_bounded(decoder.decompress(data, MAX_PLAIN_BYTES + 1)), decoder.eof)


def _inflate(data: bytes, wbits: int) -> bytes:
    decoder = zlib.decompressobj(wbits=wbits)
    return _whole(_bounded(decoder.decompress(data, MAX_PLAIN_BYTES + 1)), decoder.eof)


def _whole(plain: bytes, ended: bool) -> bytes:
    if not ended:
        raise Unpackable("a packed literal is damaged: it is cut off")
    return plain


def _bounded_brotli(data: bytes) -> bytes:
    decoder, plain = brotli.Decompressor(), bytearray()
    waiting = data
    while not decoder.is_finished():
        part = decoder.process(waiting, output_buffer_limit=1 << 16)
        if not part and not waiting:
            _whole(b"", ended=False)
        plain += part
        waiting = b""
        if len(plain) > MAX_PLAIN_BYTES:
            break
    return _bounded(bytes(plain))


def _bounded(plain: bytes) -> bytes:
    if len(plain) > MAX_PLAIN_BYTES:
        raise Unpackable(f"a packed literal decodes to over {MAX_PLAIN_BYTES:,} bytes, which no script needs")
    return plain


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "b85decode": base64.b85decode,
    "a85decode": base64.a85decode,
    "b64decode": base64.b64decode,
    "standard_b64decode": base64.b64decode,
    "urlsafe_b64decode": base64.urlsafe_b64decode,
    "b32decode": base64.b32decode,
    "b16decode": base64.b16decode,
    "unhexlify": binascii.unhexlify,
    "fromhex": lambda data: bytes.fromhex(data.decode("ascii")),
}
