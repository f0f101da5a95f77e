"""What each weight reads on calibration text: the Hessians that GPTQ and the byte-budget solver weigh errors by."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from underpar.compress.gptq import Hessian
from underpar.model.gpt import GPT
from underpar.nn.frame import Visit
from underpar.train.calibration import CalibrationText, Subject

BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}
"""Tokens of one forward and backward pass; no influence on the sums beyond rounding."""


def calibrate(subject: Subject, text: CalibrationText, tokens: int) -> tuple[dict[str, Hessian], float]:
    """Hessians of every hidden matrix and of the output projection, by parameter name, on the model's device.

    About `tokens` tokens of `text` are read in whole rows, with the context that the model trained on. Inputs are summed over
    all passes of recurrent layers. Beside x x^T the squared derivative of the loss by each output is summed, which makes errors
    of different layers comparable. One uncompiled forward and backward.

    Returns the Hessians and the seconds in which text was made and read: on CUDA a pass over made-up tokens builds the
    kernels before. Raises what the text raises.
    """
    model, loader = subject.model, subject.loader
    device = model.embedding.weight.device
    batch_tokens = BATCH_TOKENS[device.type]
    rows = max(1, batch_tokens // loader.seq_len)
    span = rows * loader.seq_len
    shape = (1, span) if loader.is_packed else (rows, loader.seq_len)

    def look(piece: Tensor, taps: Taps) -> None:
        inputs, targets = piece[:-1].reshape(shape), piece[1:].reshape(shape)
        inputs, context = subject.shaped(inputs)
        losses = model(inputs.to(device), targets.to(device), context.to(str(device)), visitor=taps)
        losses.sum().backward()
        model.zero_grad(set_to_none=True)

    taps = Taps(model)
    with _prepared(model):
        if device.type == "cuda":
            text.rehearse(subject, batch_tokens)
            made_up = torch.arange(span + 1) % model.embedding.weight.shape[0]
            look(made_up, Taps(model))
            torch.cuda.synchronize()
        began = time.perf_counter()
        for piece in text.spans(subject, tokens, span, batch_tokens):
            look(piece, taps)
        if device.type == "cuda":
            torch.cuda.synchronize()
    return taps.hessians(), round(time.perf_counter() - began, 3)


@contextmanager
def _prepared(model: GPT) -> Iterator[None]:
    """No fake quantisation, and no gradients but those that pass through: of the weights only the first needs one."""
    quantiser, model.fake_quantiser = model.fake_quantiser, None
    allows, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True  # exact for bfloat16
    for param in model.parameters():
        param.requires_grad_(param is model.embedding.weight)
    try:
        yield
    finally:
        model.fake_quantiser, torch.backends.cuda.matmul.allow_tf32 = quantiser, allows
        for param in model.parameters():
            param.requires_grad_(True)


class Taps:
    """A visitor that sums what every linear layer reads, and how much the loss minds what it computes."""

    def __init__(self, model: GPT) -> None:
        self.tied = "head.projection.weight" not in dict(model.named_parameters())
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.tokens: dict[str, int] = {}

    def at(self, execution: int, layer: int) -> Visit:
        names = {site: f"blocks.{layer}.attention.{site}.weight" for site in ("q", "k", "v", "out")}
        names |= {site: f"blocks.{layer}.mlp.{site}.weight" for site in ("up", "down")}
        return _Tap(self, names)

    def head(self) -> Visit:
        return _Tap(self, {"head": "embedding.weight" if self.tied else "head.projection.weight"})

    def add(self, name: str, x: Tensor, y: Tensor) -> None:
        """Sum x^T x now, and the squared gradient of y when the backward pass reaches it."""
        rows = x.detach().flatten(0, -2).float()
        if name not in self.sums:
            gram = torch.zeros(rows.shape[1], rows.shape[1], device=x.device)
            self.sums[name] = gram, torch.zeros(y.shape[-1], device=y.device)
            self.tokens[name] = 0
        gram, gradient = self.sums[name]
        gram.addmm_(rows.T, rows)
        self.tokens[name] += rows.shape[0]

        def square(grad: Tensor) -> None:
            gradient.add_(grad.detach().float().flatten(0, -2).square().sum(0))

        y.register_hook(square)

    def hessians(self) -> dict[str, Hessian]:
        return {name: Hessian(gram, self.tokens[name], gradient) for name, (gram, gradient) in self.sums.items()}


class _Tap(Visit):
    """Records at the sites that have a weight; branches as a whole have none."""

    needs_hidden = True

    def __init__(self, taps: Taps, names: dict[str, str]) -> None:
        self.taps, self.names = taps, names

    def __call__(self, site: str, x: Tensor, y: Tensor) -> Tensor:
        if site in self.names:
            self.taps.add(self.names[site], x, y)
        return y
