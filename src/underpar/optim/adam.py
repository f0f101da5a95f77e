"""Adam with decoupled weight decay, through torch's fused implementation."""

import torch
from torch import Tensor

from underpar.core.config import Fraction, NonNegativeFloat, PositiveFloat, config
from underpar.core.world import Pending, World
from underpar.optim.group import Group, OptimiserConfig, by_dtype, gradients_of
from underpar.optim.schedules import Settings


@config
class Adam(OptimiserConfig):
    """AdamW. Moments have the dtype of their parameter. Source: arXiv:1711.05101."""

    lr: PositiveFloat = 0.04
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0

    def build(self, params: dict[str, Tensor], world: World) -> "AdamGroup":
        return AdamGroup(self, params, world)


class AdamGroup(Group):
    """Applies `Adam` to named parameters of any shape, replicated on every process."""

    is_sharded = False
    turn = 0

    def __init__(self, config: Adam, params: dict[str, Tensor], world: World) -> None:
        self.config, self.params, self.world = config, params, world
        self.inner = torch.optim.AdamW(
            list(params.values()), lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
        )
        self.summing: list[tuple[Pending, list[Tensor]]] = []

    @torch.no_grad()
    def begin(self) -> None:
        """One all-reduce per dtype: in place for a single tensor, through a flat copy for several."""
        grads_of_all = gradients_of(self.params.values())
        if self.world.size == 1:
            return
        for grads in by_dtype(grads_of_all):
            flat = grads[0] if len(grads) == 1 else torch.cat([grad.flatten() for grad in grads])
            self.summing.append((self.world.start_sum_(flat), grads))

    @torch.no_grad()
    def reduced(self) -> list[Tensor]:
        for pending, grads in self.summing:
            flat = pending.wait()
            if len(grads) > 1:
                parts = flat.split([grad.numel() for grad in grads])
                torch._foreach_copy_(grads, [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)])
        self.summing = []
        return gradients_of(self.params.values())

    def step(self, settings: Settings) -> dict[str, float]:
        self.reduced()
        lr, decay = self.config.rate_and_decay(settings)
        self.inner.param_groups[0].update(lr=lr, weight_decay=decay)
        self.inner.step()
        return {"lr": lr} | ({"weight_decay": decay} if self.config.weight_decay else {})

    def state_tensors(self) -> dict[str, Tensor]:
        """Moments and step counts; empty before the first step."""
        return {
            f"{name}.{key}": value
            for name, param in self.params.items()
            for key, value in self.inner.state.get(param, {}).items()
        }

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        self.reset()
        for name, param in self.params.items():
            found = {
                key: state[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}.{key}" in state
            }
            if found:
                self.inner.state[param] = {key: value.clone().to(param.device) for key, value in found.items()}

    def reset(self) -> None:
        self.inner.state.clear()
