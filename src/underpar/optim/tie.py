"""Embedding and head as one table for most of a run, then as two."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.nn.module import parameter_labels
from underpar.optim.group import Group


class Tie:
    """Holds the embedding to the head until they part.

    Together, the head has the gradients of both and the embedding is a copy of it. Apart, each goes its own way, and the
    embedding begins with the head's optimiser state. Source: the speedrun, records 51 and 53.
    """

    KEY: ClassVar[str] = "tie.parted"

    def __init__(self, model: nn.Module, groups: dict[str, Group]) -> None:
        labels = parameter_labels(model)
        self.embedding_name, self.embedding = _only(model, labels, Role.EMBEDDING)
        self.head_name, self.head = _only(model, labels, Role.HEAD)
        if self.embedding.shape != self.head.shape or self.embedding.dtype != self.head.dtype:
            raise ConfigError(
                f"{self.embedding_name} is {_describe(self.embedding)} and {self.head_name} {_describe(self.head)}: "
                "only equal tables can be tied"
            )
        self.group = _holder(groups, self.embedding_name)
        self.head_group = _holder(groups, self.head_name)
        if len(self.group.params) > 1:
            others = len(self.group.params) - 1
            raise ConfigError(
                f"a tied {self.embedding_name} shares its optimiser with {others} other parameters; give those one of "
                "their own through optim.by_label"
            )
        self.together = True

    @torch.no_grad()
    def fold(self) -> None:
        """The embedding's gradient joins the head's."""
        if self.embedding.grad is None:
            return
        if self.head.grad is None:
            self.head.grad = self.embedding.grad
        else:
            self.head.grad += self.embedding.grad
        self.embedding.grad = None

    @torch.no_grad()
    def copy(self) -> None:
        self.embedding.copy_(self.head)

    def part(self) -> None:
        """From here on two tables, with the same moments behind them. Collective."""
        behind = self.head_group.state_tensors()
        prefix = f"{self.head_name}."
        state = {
            f"{self.embedding_name}.{key.removeprefix(prefix)}": tensor
            for key, tensor in behind.items()
            if key.startswith(prefix)
        }
        self.group.load_state_tensors(state)
        self.together = False

    def state_tensors(self) -> dict[str, Tensor]:
        return {self.KEY: torch.tensor(not self.together)}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        self.together = not bool(state[self.KEY])


def _only(model: nn.Module, labels: dict[str, str], role: Role) -> tuple[str, Tensor]:
    found = [(name, param) for name, param in model.named_parameters() if labels[name] == role.value]
    if len(found) != 1:
        raise ConfigError(
            f"the schedule ties embedding and head, and the model has {len(found)} parameters labelled '{role.value}'; "
            "one of each can be tied"
        )
    return found[0]


def _holder(groups: dict[str, Group], name: str) -> Group:
    return next(group for group in groups.values() if name in group.params)


def _describe(table: Tensor) -> str:
    return f"{tuple(table.shape)} {str(table.dtype).removeprefix('torch.')}"
