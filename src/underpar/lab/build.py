"""The objects that a recipe stands for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.loaders import StepLoader
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.score import score
from underpar.lab.data import check_data
from underpar.model.compiled import compile_model
from underpar.model.gpt import GPT
from underpar.recipes import Recipe
from underpar.train.events import Sinks
from underpar.train.loop import Trainer


def build_model(config: Recipe, world: World) -> GPT:
    """The model of a recipe, initialised from its seed, equal on every process and whatever the number of cores."""
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(config.seed)
        model = config.model.build()
    model.fake_quantiser = config.fake_quantise
    model = model.to(world.device)
    with torch.no_grad():
        for param in model.parameters():
            world.broadcast_(param)
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices are drawn and orthogonalised by one thread: with 32, LAPACK's factors differ in the last bit, and on a virtual
    machine 44 small factorisations took half a minute instead of two seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def build_trainer(resolved: Resolved[Recipe], data: Path, world: World, checkpoints: Path) -> Trainer:
    """Everything that a recipe's training needs, at step 0. Raises DataError when the tokens do not fit the recipe."""
    check_data(resolved, data)
    config, bos_id = resolved.config, load_tokenizer(data).bos_id
    model = build_model(config, world)
    return Trainer(
        model=model,
        optimisers=config.optim.build(model, world),
        schedule=config.schedule,
        budget=config.budget.for_steps(),
        loader=StepLoader(data, config.data.loader, bos_id, world, micro_batch_tokens=config.train.micro_batch_tokens),
        training=config.train,
        world=world,
        folder=checkpoints,
        fingerprint=resolved.fingerprint,
        sinks=Sinks(),
        validate=validator(config, data, world),
        average=None if config.averaging is None else config.averaging.build(dict(model.named_parameters())),
    )


def validator(config: Recipe, data: Path, world: World) -> Callable[[GPT], tuple[float, float]]:
    """Scores a model as it is, with the recipe's own window: before quantisation, that is. Returns (loss in nats, bpb)."""
    stream, bos_id = load_validation(data).first(config.evaluate.first_tokens), load_tokenizer(data).bos_id
    window, size = config.evaluate.window, config.evaluate.batch_tokens

    def validate(model: GPT) -> tuple[float, float]:
        found = score(scorer(model, world), stream, window, bos_id=bos_id, world=world, batch_tokens=size)
        return found.loss_nats, found.bpb

    return validate


def scorer(model: GPT, world: World) -> Callable[..., torch.Tensor]:
    """What `score` calls: the model, compiled on CUDA."""
    return model if world.device == "cpu" else compile_model(model)
