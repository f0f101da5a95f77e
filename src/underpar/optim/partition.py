"""Which optimiser updates which parameter: decided by role, and complete in both directions."""

from torch import Tensor, nn

from underpar.core.config import Config, config, field, field_types
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.core.world import World
from underpar.nn.module import parameter_roles
from underpar.optim.adam import Adam, AdamGroup
from underpar.optim.muon import Muon, MuonGroup, OptimiserConfig
from underpar.optim.schedules import Settings


@config
class Optim(Config):
    """One optimiser per role. A role that the model has needs one here; one set here must exist in the model."""

    matrix: OptimiserConfig | None = field(default_factory=lambda: Muon(lr=0.04))
    embedding: OptimiserConfig | None = field(default_factory=lambda: Adam(lr=0.05))
    head: OptimiserConfig | None = None
    gain: OptimiserConfig | None = field(default_factory=lambda: Adam(lr=0.04))
    gate: OptimiserConfig | None = None

    def build(self, model: nn.Module, world: World) -> "Optimisers":
        """Raises ConfigError on a role without an optimiser, or an optimiser without a parameter."""
        return Optimisers(self, model, world)


class Optimisers:
    """The optimisers of a model, stepped together."""

    def __init__(self, config: Optim, model: nn.Module, world: World) -> None:
        roles = parameter_roles(model)
        by_role: dict[Role, dict[str, Tensor]] = {}
        for name, param in model.named_parameters():
            by_role.setdefault(roles[name], {})[name] = param
        self.groups: dict[str, tuple[float, MuonGroup | AdamGroup]] = {}
        for role_name in field_types(Optim):
            role, chosen = Role(role_name), getattr(config, role_name)
            params = by_role.pop(role, None)
            if chosen is None and params is None:
                continue
            if chosen is None:
                raise ConfigError(
                    f"optim.{role} is None, but the model has {len(params or {})} parameters of that role"
                )
            if params is None:
                raise ConfigError(
                    f"optim.{role} = {chosen}, but the model has no parameter of that role; set it to None"
                )
            self.groups[role_name] = (chosen.lr, _build(chosen, params, world))

    def step(self, settings: Settings) -> dict[str, float]:
        """One update of everything from `.grad`. Returns the settings that were consumed, by name, for the effect trace."""
        used = {}
        for role, (base_lr, group) in self.groups.items():
            lr = base_lr * settings.lr_scale
            group.step(lr, settings.momentum)
            used[f"optim.{role}.lr"] = lr
            if isinstance(group, MuonGroup):
                used[f"optim.{role}.momentum"] = settings.momentum
        return used

    def state_tensors(self) -> dict[str, Tensor]:
        """All state by parameter name, the same whatever the number of processes. Collective: call on every process."""
        return {key: value for _, group in self.groups.values() for key, value in group.state_tensors().items()}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        for _, group in self.groups.values():
            group.load_state_tensors(state)

    def reset(self) -> None:
        """As if no step had been taken."""
        for _, group in self.groups.values():
            group.reset()


def _build(chosen: OptimiserConfig, params: dict[str, Tensor], world: World) -> MuonGroup | AdamGroup:
    match chosen:
        case Muon():
            return MuonGroup(chosen, params, world)
        case Adam():
            return AdamGroup(chosen, params, world)
    raise ConfigError(f"{type(chosen).__name__} is not an optimiser")
