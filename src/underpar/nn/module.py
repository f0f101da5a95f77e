"""The base of our layers: a torch module whose parameters say what they are for."""

from torch import Tensor, nn

from underpar.core.errors import ConfigError
from underpar.core.roles import Role


class Module(nn.Module):
    """An nn.Module in which every parameter is declared with a role."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: dict[str, Role] = {}
        self.labels: dict[str, str] = {}

    def declare(self, name: str, initial: Tensor, role: Role, label: str = "") -> None:
        """Create the parameter `name` with the given initial values, dtype included.

        label: a finer name than the role's, by which an optimiser can be chosen; the role's own when empty.
        """
        self.register_parameter(name, nn.Parameter(initial))
        self.roles[name] = role
        self.labels[name] = label or role.value


def parameter_roles(model: nn.Module) -> dict[str, Role]:
    """Full parameter name -> role, in registration order. Raises ConfigError when a parameter has none."""
    found: dict[str, Role] = {}
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            role = getattr(module, "roles", {}).get(name)
            if role is None:
                raise ConfigError(
                    f"parameter {full} has no role; create it with Module.declare(name, initial, Role....)"
                )
            found[full] = role
    return found


def parameter_labels(model: nn.Module) -> dict[str, str]:
    """Full parameter name -> label, in registration order."""
    return {
        f"{prefix}.{name}" if prefix else name: module.labels[name]
        for prefix, module in model.named_modules()
        if isinstance(module, Module)
        for name, _ in module.named_parameters(recurse=False)
    }
