"""`underpar plan RECIPE`."""

import argparse

from underpar.cli.options import add_device, add_json, add_recipe, print_json, resolve

HELP = "predict parameters, FLOPs, artifact bytes, memory and time before anything is trained"


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.world import World
    from underpar.lab.plan import make_plan

    resolved = resolve(args)
    plan = make_plan(resolved.config, World.join(args.device))
    if args.json:
        print_json({"recipe": resolved.name, "fingerprint": resolved.fingerprint} | plan.to_json())
    else:
        print("\n".join(plan.lines()))
    return 1 if plan.exceeded else 0
