"""Adam whose moments are shared out among the processes: for tables that are most of a model."""

import math

import torch
from torch import Tensor

from underpar.core.config import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, config
from underpar.core.world import Pending, World
from underpar.nn.rows import is_noted, keeps_rows
from underpar.optim.fused import fused
from underpar.optim.group import Group, OptimiserConfig, gradients_of
from underpar.optim.row_exchange import RowExchange
from underpar.optim.schedules import Settings

_LARGE = 1 << 16
"""Values from which a parameter travels alone, without a copy; smaller ones are joined."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


@config
class ShardedAdam(OptimiserConfig):
    """Adam with float32 moments whatever the parameter's dtype, cautious decay, and steps that need not be every step.

    m <- m + (1 - beta1)(g - m);  v <- v + (1 - beta2)(g^2 - v);  u = sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps);
    w <- w - lr * (u + weight_decay * [u w > 0] w). A weight at exactly 0 never decays. A bfloat16 parameter is rounded to the
    nearest after each step. Source: the speedrun, records 39 (every second step) and 50 (decay).
    """

    lr: PositiveFloat = 0.008
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    eps: PositiveFloat = 1e-10
    weight_decay: NonNegativeFloat = 0.0
    every: PositiveInt = 1
    """Updates end every so many steps. The gradients of all of them are added up, not averaged: Adam does not see the scale."""

    def build(self, params: dict[str, Tensor], world: World) -> "ShardedAdamGroup":
        return ShardedAdamGroup(self, params, world)

    @property
    def period(self) -> int:
        return self.every

    def is_due(self, settings: Settings) -> bool:
        return (settings.step + 1) % self.every == 0


@fused
def _advance_(weight: Tensor, grad: Tensor, mean: Tensor, square: Tensor, numbers: tuple[Tensor, ...]) -> None:
    """Moments and weight go one step on, in place. numbers: 1 - beta1, 1 - beta2, bias correction, eps, lr, decay; 0-D."""
    pace1, pace2, correction, eps, lr, decay = numbers
    wide, grad = weight.float(), grad.float()
    new_mean = mean + pace1 * (grad - mean)
    new_square = square + pace2 * (grad * grad - square)
    update = correction * new_mean / (new_square.sqrt() + eps)
    shrinking = torch.where(update * wide > 0, wide, torch.zeros_like(wide))
    mean.copy_(new_mean)
    square.copy_(new_square)
    weight.copy_(wide - lr * (update + decay * shrinking))


class _Bucket:
    """Parameters of one dtype as one flat tensor, of which every process has an equal part.

    unit: values that are not parted.
    """

    def __init__(self, names: list[str], params: list[Tensor], world: World, unit: int = 1) -> None:
        self.names, self.params, self.world = names, params, world
        self.sizes = [param.numel() for param in params]
        self.share = -(-sum(self.sizes) // (world.size * unit)) * unit
        self.first = world.rank * self.share
        self.moments = {key: torch.zeros(self.share, device=world.device) for key in _MOMENTS}
        self.steps = 0
        self.gradients: Pending | RowExchange | None = None
        self.travelling: Pending | None = None

    def flat(self, tensors: list[Tensor]) -> Tensor:
        """The tensors one after another, padded with zeros to equal parts; itself where one tensor divides evenly."""
        padding = self.share * self.world.size - sum(self.sizes)
        if len(tensors) == 1 and not padding:
            return tensors[0].reshape(-1)
        parts = [tensor.reshape(-1) for tensor in tensors]
        return torch.cat([*parts, parts[0].new_zeros(padding)])

    def whole(self, flat: Tensor) -> dict[str, Tensor]:
        """The parts of a gathered flat tensor, in the shapes of the parameters, by name."""
        parts = flat[: sum(self.sizes)].split(self.sizes)
        return {name: part.view_as(p) for name, part, p in zip(self.names, parts, self.params, strict=True)}

    def begin(self) -> None:
        gradients = gradients_of(self.params)
        self.gradients = self.world.start_reduce_scatter(self.flat(gradients))

    def reduced(self) -> Tensor:
        assert self.gradients is not None, "begin() comes first"
        return self.gradients.wait()

    def step(self, config: ShardedAdam, lr: float, decay: float) -> None:
        self.steps += 1
        correction = math.sqrt(1.0 - config.beta2**self.steps) / (1.0 - config.beta1**self.steps)
        scalars = (1.0 - config.beta1, 1.0 - config.beta2, correction, config.eps, lr, decay)
        mean, square = self.moments.values()
        weight = self.flat([param.detach() for param in self.params])[self.first : self.first + self.share]
        _advance_(weight, self.reduced(), mean, square, tuple(torch.tensor(number) for number in scalars))
        self.gradients = None
        self.travelling = self.world.start_all_gather(weight)

    def finish(self) -> None:
        assert self.travelling is not None, "step() comes first"
        gathered = self.whole(self.travelling.wait()).values()
        self.travelling = None
        pairs = zip(self.params, gathered, strict=True)
        apart = [(param, new) for param, new in pairs if param.data_ptr() != new.data_ptr()]
        if apart:  # none where a process alone has changed its parameter in place
            torch._foreach_copy_([param for param, _ in apart], [new for _, new in apart])


class _RowBucket(_Bucket):
    """A table that keeps rows: a process has an equal part of them, and is sent the gradients of those that were touched."""

    def __init__(self, name: str, table: Tensor, world: World) -> None:
        super().__init__([name], [table], world, unit=table.shape[1])
        self.was_noted = False

    def begin(self) -> None:
        (grad,) = gradients_of(self.params)
        self.was_noted = is_noted(grad)
        if self.world.size == 1:
            super().begin()
        else:
            self.gradients = RowExchange(grad, self.share // grad.shape[1], self.world)


class ShardedAdamGroup(Group):
    """Applies `ShardedAdam` to named parameters of any shape."""

    is_sharded = True
    turn = 1
    config: ShardedAdam

    def __init__(self, config: ShardedAdam, params: dict[str, Tensor], world: World) -> None:
        self.config, self.params, self.world = config, params, world
        members: dict[object, list[str]] = {}
        for name, param in params.items():
            if not keeps_rows(param):
                members.setdefault(name if param.numel() >= _LARGE else param.dtype, []).append(name)
        self.tables = [_RowBucket(name, param, world) for name, param in params.items() if keeps_rows(param)]
        self.buckets = [_Bucket(names, [params[name] for name in names], world) for names in members.values()]
        self.buckets += self.tables

    @torch.no_grad()
    def begin(self) -> None:
        for bucket in self.buckets:
            bucket.begin()

    def reduced(self) -> list[Tensor]:
        return [bucket.reduced() for bucket in self.buckets]

    @torch.no_grad()
    def step(self, settings: Settings) -> dict[str, float]:
        lr, decay = self.config.rate_and_decay(settings)
        for bucket in self.buckets:
            bucket.step(self.config, lr, decay)
        used = {"lr": lr} | ({"weight_decay": decay} if self.config.weight_decay else {})
        return used | ({"by_rows": float(all(t.was_noted for t in self.tables))} if self.tables else {})

    @torch.no_grad()
    def finish(self) -> None:
        for bucket in self.buckets:
            bucket.finish()

    def state_tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for bucket in self.buckets:
            for key, shard in bucket.moments.items():
                whole = bucket.whole(self.world.all_gather(shard))
                found |= {f"{name}.{key}": tensor.clone() for name, tensor in whole.items()}
            found |= {f"{name}.step": torch.tensor(float(bucket.steps)) for name in bucket.names}
        return found

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        for bucket in self.buckets:
            bucket.steps = int(state[f"{bucket.names[0]}.step"])
            for key, shard in bucket.moments.items():
                whole = bucket.flat([state[f"{name}.{key}"] for name in bucket.names])
                shard.copy_(whole[bucket.first : bucket.first + bucket.share])

    def reset(self) -> None:
        for bucket in self.buckets:
            bucket.steps = 0
            for shard in bucket.moments.values():
                shard.zero_()
