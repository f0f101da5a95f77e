"""Which optimiser updates which parameter: decided by role, and complete in both directions."""

from torch import Tensor, nn

from underpar.core.config import Config, config, field
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.core.world import World
from underpar.nn.module import parameter_roles
from underpar.optim.adam import Adam
from underpar.optim.clip import GradientClip
from underpar.optim.group import Group, OptimiserConfig, gradients_of
from underpar.optim.muon import Muon
from underpar.optim.schedules import Settings


@config
class Optim(Config):
    """One optimiser per role. A role that the model has needs one here; one set here must exist in the model."""

    matrix: OptimiserConfig | None = field(default_factory=lambda: Muon(lr=0.04))
    embedding: OptimiserConfig | None = field(default_factory=lambda: Adam(lr=0.05))
    head: OptimiserConfig | None = None
    gain: OptimiserConfig | None = field(default_factory=lambda: Adam(lr=0.04))
    gate: OptimiserConfig | None = None
    clip: GradientClip | None = None

    def build(self, model: nn.Module, world: World) -> "Optimisers":
        """Raises ConfigError on a role without an optimiser, or an optimiser without a parameter."""
        return Optimisers(self, model, world)


class Optimisers:
    """The optimisers of a model, stepped together. A parameter that is frozen when they are built stays as it is."""

    def __init__(self, config: Optim, model: nn.Module, world: World) -> None:
        roles = parameter_roles(model)
        by_role: dict[Role, dict[str, Tensor]] = {}
        for name, param in model.named_parameters():
            if param.requires_grad:
                by_role.setdefault(roles[name], {})[name] = param
        self.clip, self.world = config.clip, world
        self.groups: dict[str, Group] = {}
        for role in Role:
            chosen, params = getattr(config, role), by_role.get(role)
            if chosen is None and params is not None:
                raise ConfigError(f"optim.{role} is None, but the model has {len(params)} parameters of that role")
            if chosen is not None and params is None:
                raise ConfigError(
                    f"optim.{role} = {chosen}, but the model has no parameter of that role; set it to None"
                )
            if chosen is not None and params is not None:
                self.groups[role.value] = chosen.build(params, world)

    def step(self, settings: Settings) -> dict[str, float]:
        """One update of everything from `.grad`. Returns the settings that were consumed, by name, for the effect trace.

        `.grad` holds this process's part of a sum over processes, and is consumed; None counts as zero. Replicated groups go
        first: they work while the gradients of the sharded ones are on their way.
        """
        in_order = sorted(self.groups.items(), key=lambda item: item[1].is_sharded)
        if self.clip is not None:
            params = [param for _, group in in_order for param in group.params.values()]
            self.clip.before_reduction(gradients_of(params), self.world)
        for _, group in in_order:
            group.begin()
        used: dict[str, float] = {}
        if self.clip is not None:
            self.clip.after_reduction([group for _, group in in_order], self.world)
            used["optim.clip.norm"] = self.clip.norm
        for role, group in in_order:
            used |= {f"optim.{role}.{name}": value for name, value in group.step(settings).items()}
        return used

    def state_tensors(self) -> dict[str, Tensor]:
        """All state by parameter name, the same whatever the number of processes. Collective: call on every process."""
        return {key: value for group in self.groups.values() for key, value in group.state_tensors().items()}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        for group in self.groups.values():
            group.load_state_tensors(state)

    def reset(self) -> None:
        """As if no step had been taken."""
        for group in self.groups.values():
            group.reset()
