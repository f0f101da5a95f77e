"""Runs inside the jail: loads somebody's predictor once and answers every question from a fork of that moment.

    python -I -B host.py FOLDER file.py:name          a function, or a class with charges(tokens) or step(token)

The process that loads never sees a token: each question is read by a fork of it, which answers and ends. What a
question leaves behind in memory is gone with its fork. Uses the standard library and numpy.

Questions on stdin, answers on stdout, integers little-endian:
    b"Q" count:u64 tokens:u16[count]                          -> answer
    b"A" count:u64 tokens:u16[count] and again                -> answer to the second, after warming up on the first
    b"S" then tokens:u32, each answered at once; 0xffffffff   -> answers: probabilities of the token that comes next
    answer: b"C" count:u64 values:f64[count]   or   b"E" bytes:u64 message:utf-8
"""

import importlib
import importlib.util
import inspect
import json
import os
import struct
import sys

import numpy as np

END_OF_STREAM = 0xFFFFFFFF


def main(folder: str, target: str) -> int:
    """Serve until stdin ends."""
    questions, answers = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what the predictor prints is not an answer
    sys.path.insert(0, folder)
    try:
        made = load(folder, target)
        about = {"form": form_of(made), "warms_up": hasattr(made, "warm_up")}
    except BaseException as problem:
        os.write(answers, json.dumps({"problem": f"{type(problem).__name__}: {problem}"}).encode() + b"\n")
        return 1
    os.write(answers, json.dumps(about).encode() + b"\n")
    while kind := os.read(questions, 1):
        child = os.fork()
        if child == 0:
            try:
                answer(made, kind, questions, answers)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    return 0


def load(folder, target):
    """The object that 'file.py:name' or 'module:name' names."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location("predictor", os.path.join(folder, where))
        if spec is None or spec.loader is None:
            raise ImportError(f"{where} is not Python")
        module = importlib.util.module_from_spec(spec)
        sys.modules["predictor"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    return getattr(module, name)


def form_of(made):
    """'stepwise' or 'whole'."""
    if inspect.isclass(made):
        if hasattr(made, "step"):
            return "stepwise"
        if hasattr(made, "charges"):
            return "whole"
        raise TypeError(f"class {made.__name__} has neither charges(tokens) nor step(token)")
    if not callable(made):
        raise TypeError(f"{made!r} is neither a function nor a class")
    return "whole"


def answer(made, kind, questions, answers):
    """One question, in a process of its own."""
    try:
        one = made() if inspect.isclass(made) else made
        if kind == b"S":
            steps(one, questions, answers)
            return
        if kind == b"A":
            before = read_tokens(questions)
            (one.warm_up if hasattr(one, "warm_up") else charging(one))(before)
        values = np.ascontiguousarray(charging(one)(read_tokens(questions)), dtype="<f8").reshape(-1)
        write(answers, b"C" + struct.pack("<Q", values.size) + values.tobytes())
    except BaseException as problem:
        message = f"{type(problem).__name__}: {problem}".encode()[:4000]
        write(answers, b"E" + struct.pack("<Q", len(message)) + message)


def charging(one):
    return one.charges if hasattr(one, "charges") else one


def steps(one, questions, answers):
    """Lockstep: the next token is not sent before the distribution of it has been received."""
    while True:
        (token,) = struct.unpack("<I", read(questions, 4))
        if token == END_OF_STREAM:
            return
        values = np.ascontiguousarray(one.step(token), dtype="<f8").reshape(-1)
        write(answers, b"C" + struct.pack("<Q", values.size) + values.tobytes())


def read_tokens(questions):
    (count,) = struct.unpack("<Q", read(questions, 8))
    return np.frombuffer(read(questions, 2 * count), dtype="<u2").copy()


def read(file, size):
    parts = []
    while size:
        part = os.read(file, min(size, 1 << 20))
        if not part:
            raise EOFError("the question was cut off")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write(file, data):
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
