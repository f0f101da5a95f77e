"""Low-rank adapters: small corrections of chosen sites, one set a document, while the model itself stands still.

They are visits (`underpar.nn.frame`), so every gate, lane and skip of the model applies to adapted and plain passes alike.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor, nn

from underpar.core.config import Config, PositiveFloat, Range, config
from underpar.core.errors import ConfigError, suggest
from underpar.nn.frame import Visit

SITES = ("q", "k", "v", "out", "up", "down", "attention", "mlp", "head")


@config
class LoRA(Config):
    """y + (alpha / rank) (x A^T) B^T at each site, A uniform in +-1/sqrt(in), B zero: nothing at first.

    "attention" and "mlp" are paths beside a whole branch; the other sites correct one linear layer. Recurrent layers have
    adapters of their own in every pass. Source: LoRA, arXiv:2106.09685; for test-time training golf PR #77, #1530, #1767.
    """

    rank: Annotated[int, Range(at_least=1, at_most=4096)] = 96
    alpha: PositiveFloat | None = None
    """None leaves the product unscaled."""
    sites: tuple[str, ...] = ("q", "k", "v", "attention", "mlp", "head")

    def check(self) -> None:
        for site in self.sites:
            if site not in SITES:
                raise ConfigError(f"no site '{site}'; {suggest(site, SITES)}")

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank


class SiteAdapters(nn.Module):
    """The adapters of one block execution, or of the head: a visit. A: (documents, rank, in), B: (documents, out, rank)."""

    def __init__(self, chosen: LoRA, sizes: dict[str, tuple[int, int]], documents: int) -> None:
        super().__init__()
        self.scale = chosen.scale
        self.needs_hidden = bool({"up", "down"} & sizes.keys())
        self.a = nn.ParameterDict({s: torch.empty(documents, chosen.rank, size[0]) for s, size in sizes.items()})
        self.b = nn.ParameterDict({s: torch.zeros(documents, size[1], chosen.rank) for s, size in sizes.items()})
        self.reset(redraw=True)

    @torch.no_grad()
    def reset(self, *, redraw: bool) -> None:
        """Back to nothing: B to zero, and A drawn again or kept (a warm start)."""
        for site, a in self.a.items():
            self.b[site].zero_()
            if redraw:
                a.uniform_(-(a.shape[2] ** -0.5), a.shape[2] ** -0.5)

    def forward(self, site: str, x: Tensor, y: Tensor) -> Tensor:
        if site not in self.a:
            return y
        a, b = self.a[site].to(x.dtype), self.b[site].to(x.dtype)
        return y + self.scale * torch.bmm(torch.bmm(x, a.mT), b.mT)


class Adapters(nn.Module):
    """A visitor with adapters for every execution of a plan, float32.

    Args:
        chosen: rank, scale and sites.
        sizes: (in, out) of every site of a block, by its name.
        executions: physical layer of each execution of the plan.
        head: (in, out) of the output projection.
        documents: rows of the batch, each with adapters of its own.
    Cost: documents * rank * (in + out) parameters a site and execution.
    """

    def __init__(
        self,
        chosen: LoRA,
        sizes: dict[str, tuple[int, int]],
        executions: list[int],
        head: tuple[int, int],
        documents: int,
    ) -> None:
        super().__init__()
        in_blocks = {site: sizes[site] for site in chosen.sites if site != "head"}
        at_head = {"head": head} if "head" in chosen.sites else {}
        self.executions = executions
        self.blocks = nn.ModuleList(SiteAdapters(chosen, in_blocks, documents) for _ in executions)
        self.output = SiteAdapters(chosen, at_head, documents)

    def at(self, execution: int, layer: int) -> Visit:
        """Raises ConfigError when the adapters were made for another plan."""
        if execution >= len(self.executions) or self.executions[execution] != layer:
            raise ConfigError(
                f"execution {execution} runs layer {layer}, but the adapters are for the order {self.executions}; "
                "build them from the model that they adapt"
            )
        return self.blocks[execution]  # type: ignore[return-value]

    def head(self) -> Visit:
        return self.output  # type: ignore[return-value]

    def reset(self, *, redraw: bool) -> None:
        """Every adapter back to nothing."""
        for part in self._parts():
            part.reset(redraw=redraw)

    def _parts(self) -> Iterator[SiteAdapters]:
        yield from (block for block in self.blocks if isinstance(block, SiteAdapters))
        yield self.output
