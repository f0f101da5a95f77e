"""Adam with decoupled weight decay, through torch's fused implementation."""

import torch
from torch import Tensor

from underpar.core.config import Fraction, NonNegativeFloat, PositiveFloat, config
from underpar.core.world import World
from underpar.optim.muon import OptimiserConfig


@config
class Adam(OptimiserConfig):
    """AdamW. Moments have the dtype of their parameter. Source: arXiv:1711.05101."""

    lr: PositiveFloat = 0.04
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0


class AdamGroup:
    """Applies `Adam` to named parameters of any shape, replicated on every process."""

    def __init__(self, config: Adam, params: dict[str, Tensor], world: World) -> None:
        self.config, self.params, self.world = config, params, world
        self.inner = torch.optim.AdamW(
            list(params.values()),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """Sum the gradients over processes in one flat call per dtype, then update."""
        if self.world.size > 1:
            grads: dict[torch.dtype, list[Tensor]] = {}
            for param in self.params.values():
                grads.setdefault(param.grad.dtype, []).append(param.grad)  # type: ignore[union-attr,arg-type]
            for parts in grads.values():
                flat = self.world.sum_(torch.cat([p.flatten() for p in parts]))
                for part, summed in zip(parts, flat.split([p.numel() for p in parts]), strict=True):
                    part.copy_(summed.view_as(part))
        self.inner.param_groups[0]["lr"] = lr
        self.inner.step()

    def state_tensors(self) -> dict[str, Tensor]:
        """Moments and step counts by parameter name; empty before the first step."""
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
        """Forget all moments and step counts."""
        self.inner.state.clear()
