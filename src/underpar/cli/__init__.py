"""The command line: one file per verb.

A verb's module has HELP (one line), configure(parser) and run(args) -> exit code, and imports what is heavy inside run:
`underpar --help` answers at once. Results go to stdout, progress to stderr; errors are one line.
"""

import argparse
import importlib
import os
import select
import sys
from collections.abc import Sequence

import underpar
from underpar.core.errors import Interrupted, UnderparError

VERBS = (
    "list",
    "show",
    "diff",
    "plan",
    "data",
    "run",
    "train",
    "pack",
    "score",
    "verify",
    "audit",
    "record",
    "flatten",
    "report",
    "compare",
    "target",
    "bench",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="underpar", description="Train the best language model a budget allows, and prove it."
    )
    parser.add_argument("--version", action="version", version=f"underpar {underpar.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        module = importlib.import_module(f"underpar.cli.{name}")
        child = verbs.add_parser(name, help=module.HELP, description=module.HELP)
        module.configure(child)
        child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 the answer is no, 2 a mistake of the user's, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except Interrupted as problem:
        print(problem, file=sys.stderr)
        return 130
    except UnderparError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # another pipe, such as a worker's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        if problem.filename is None:
            raise
        print(f"error: {problem.filename}: {problem.strerror}; name a place that can be used", file=sys.stderr)
        return 2


def _stdout_is_closed() -> bool:
    """Whether the reader of our output has gone, as in `underpar list | head`."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except OSError:  # captured: not a file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
