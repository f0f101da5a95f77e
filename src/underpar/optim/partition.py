"""Which optimiser updates which parameter: decided by role or by label, and complete in both directions."""

import torch
from torch import Tensor, nn

from underpar.core.config import Config, config, field
from underpar.core.errors import ConfigError, suggest
from underpar.core.roles import Role
from underpar.core.world import World
from underpar.nn.module import parameter_labels, parameter_roles
from underpar.optim.adam import Adam
from underpar.optim.clip import GradientClip
from underpar.optim.group import Group, OptimiserConfig, gradients_of
from underpar.optim.muon import Muon
from underpar.optim.schedules import Settings
from underpar.optim.tie import Tie

_WAITING = ".waiting_gradient"


@config
class Labelled(Config):
    """An optimiser for the parameters of one label, whatever their role."""

    label: str
    optimiser: OptimiserConfig


@config
class Optim(Config):
    """One optimiser per role, and exceptions by label. What the model has needs one; one set here must exist in the model."""

    matrix: OptimiserConfig | None = field(default_factory=lambda: Muon(lr=0.04))
    embedding: OptimiserConfig | None = field(default_factory=lambda: Adam(lr=0.05))
    head: OptimiserConfig | None = None
    gain: OptimiserConfig | None = field(default_factory=lambda: Adam(lr=0.04))
    gate: OptimiserConfig | None = None
    by_label: tuple[Labelled, ...] = ()
    """Parameters that are treated otherwise than their role."""
    clip: GradientClip | None = None

    def check(self) -> None:
        labels = [entry.label for entry in self.by_label]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ConfigError(f"by_label names '{twice[0]}' twice")

    def build(self, model: nn.Module, world: World) -> "Optimisers":
        """Raises ConfigError on parameters without an optimiser, or an optimiser without a parameter."""
        return Optimisers(self, model, world)

    def chosen(self) -> dict[str, OptimiserConfig]:
        """Every optimiser by role or label."""
        by_role = {role.value: getattr(self, role) for role in Role if getattr(self, role) is not None}
        return by_role | {entry.label: entry.optimiser for entry in self.by_label}


class Optimisers:
    """The optimisers of a model, stepped together. A parameter that is frozen when they are built stays as it is."""

    def __init__(self, config: Optim, model: nn.Module, world: World) -> None:
        roles, labels = parameter_roles(model), parameter_labels(model)
        special = {entry.label for entry in config.by_label}
        members: dict[str, dict[str, Tensor]] = {}
        for name, param in model.named_parameters():
            if param.requires_grad:
                key = labels[name] if labels[name] in special else roles[name].value
                members.setdefault(key, {})[name] = param
        chosen = config.chosen()
        _check_complete(chosen, special, members, set(labels.values()))
        self.clip, self.world, self.model = config.clip, world, model
        built = {key: chosen[key].build(params, world) for key, params in members.items()}
        self.groups: dict[str, Group] = {key: built[key] for key in chosen}
        self.tie: Tie | None = None
        self.waiting: dict[str, Group] = {}

    def step(self, settings: Settings) -> dict[str, float]:
        """One update of everything that is due from `.grad`. Returns the settings that were consumed, by name, for the effect
        trace.

        `.grad` holds this process's part of a sum over processes; None counts as zero. What was consumed is set to None, and
        what is not due yet stays, for the gradients of the next step to be added. Replicated groups go first: they work while
        the gradients of the sharded ones are on their way.
        """
        if settings.tied and self.tie is None:
            self.tie = Tie(self.model, self.groups)
        tie = self.tie if self.tie is not None and self.tie.together else None
        due = {key: group for key, group in self._in_turn() if group.config.is_due(settings)}
        self.waiting = {key: group for key, group in self.groups.items() if key not in due}
        if tie is not None:
            due = {key: group for key, group in due.items() if group is not tie.group}
            tie.fold()
        used = self._step(due, settings)
        if tie is not None and any(group is tie.head_group for group in due.values()):
            used["optim.tied"] = 1.0
            tie.copy()
            if not settings.tied:
                tie.part()
        elif self.tie is not None:
            used["optim.tied"] = float(self.tie.together)
        return used

    @property
    def period(self) -> int:
        """Steps within which every group updates at least once."""
        return max(group.config.period for group in self.groups.values())

    def _in_turn(self) -> list[tuple[str, Group]]:
        return sorted(self.groups.items(), key=lambda item: item[1].turn)

    def _step(self, due: dict[str, Group], settings: Settings) -> dict[str, float]:
        params = [param for group in due.values() for param in group.params.values()]
        if self.clip is not None:
            self.clip.before_reduction(gradients_of(params), self.world)
        for group in due.values():
            group.begin()
        used: dict[str, float] = {}
        if self.clip is not None:
            self.clip.after_reduction(list(due.values()), self.world)
            used["optim.clip.norm"] = self.clip.norm
        for key, group in due.items():
            used |= {f"optim.{key}.{name}": value for name, value in group.step(settings).items()}
        for group in due.values():
            group.finish()
        for param in params:
            param.grad = None
        return used

    def state_tensors(self) -> dict[str, Tensor]:
        """All state by parameter name, the same whatever the number of processes. Collective: call on every process.

        Gradients that wait for a later step are part of it, summed over the processes.
        """
        found = {key: value for group in self.groups.values() for key, value in group.state_tensors().items()}
        for group in self.waiting.values():
            for name, param in group.params.items():
                grad = torch.zeros_like(param) if param.grad is None else param.grad.clone()
                found[f"{name}{_WAITING}"] = self.world.sum_(grad)
        return found | (self.tie.state_tensors() if self.tie is not None else {})

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` returned, here or in a world of another size."""
        self.waiting = {}
        for key, group in self.groups.items():
            group.load_state_tensors(state)
            for name, param in group.params.items():
                grad = state.get(f"{name}{_WAITING}")
                param.grad = grad.to(param.device, copy=True) if grad is not None and self.world.is_main else None
                if grad is not None:
                    self.waiting[key] = group
        self.tie = Tie(self.model, self.groups) if Tie.KEY in state else None
        if self.tie is not None:
            self.tie.load_state_tensors(state)

    def reset(self) -> None:
        """As if no step had been taken."""
        self.tie, self.waiting = None, {}
        for group in self.groups.values():
            group.reset()
            for param in group.params.values():
                param.grad = None


def _check_complete(
    chosen: dict[str, OptimiserConfig], special: set[str], members: dict[str, dict[str, Tensor]], labels: set[str]
) -> None:
    for key, params in members.items():
        if key not in chosen:
            raise ConfigError(f"optim.{key} is None, but the model has {len(params)} parameters of that role")
    for key, optimiser in chosen.items():
        if key in members:
            continue
        if key in special:
            raise ConfigError(
                f"optim.by_label names '{key}', but the model has no such parameter; {suggest(key, labels)}"
            )
        raise ConfigError(f"optim.{key} = {optimiser}, but the model has no parameter of that role; set it to None")
