"""Low-rank adapters: small corrections of chosen sites, one set a document, while the model itself stands still.

They are visits (`underpar.nn.frame`), so every gate, lane and skip of the model applies to adapted and plain passes alike. All
adapters of one document are one row of numbers: documents are added, reset and updated as rows of one tensor.
"""

from typing import Annotated

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, Range, config
from underpar.core.errors import ConfigError, suggest
from underpar.nn.frame import Visit

READS = {
    "q": "attention", "k": "attention", "v": "attention", "attention": "attention",
    "up": "mlp", "mlp": "mlp", "out": "merged heads", "down": "hidden", "head": "head",
}  # fmt: skip
"""Site -> what it reads. Sites that read the same thing share one product with their stacked A."""
SITES = tuple(READS)


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


class AdapterLayout:
    """Which numbers of a document's row are whose: for every execution of a plan, and for the head, A and B of each site.

    Args:
        chosen: rank, scale and sites.
        sizes: (in, out) of every site of a block, by its name.
        executions: physical layer of each execution of the plan.
        head: (in, out) of the output projection.

    A of all sites that read one input lie together, (sites * rank, in); all A come before all B, (out, rank) each.
    """

    def __init__(
        self, chosen: LoRA, sizes: dict[str, tuple[int, int]], executions: list[int], head: tuple[int, int]
    ) -> None:
        sizes = sizes | {"head": head}
        rank = chosen.rank
        in_blocks = [site for site in SITES if site in chosen.sites and site != "head"]
        places = [in_blocks] * len(executions) + [["head"] if "head" in chosen.sites else []]
        self.scale, self.executions = chosen.scale, executions
        self._readers = [_by_input(place) for place in places]
        self._a_shapes = [
            (rank * len(sites), sizes[sites[0]][0]) for place in self._readers for sites in place.values()
        ]
        b_shapes = [(sizes[site][1], rank) for place in self._readers for sites in place.values() for site in sites]
        self._shapes = self._a_shapes + b_shapes
        self._sizes = [rows * columns for rows, columns in self._shapes]
        self._a_numbers = sum(self._sizes[: len(self._a_shapes)])
        self.numbers = sum(self._sizes)
        """Of one document."""

    def bounds(self, device: torch.device | str = "cpu") -> Tensor:
        """(all A,) float32: 1 / sqrt(in), between which and its negative A begins."""
        return torch.cat([torch.full((r * c,), c**-0.5, device=device) for r, c in self._a_shapes])

    @torch.no_grad()
    def begin(self, row: Tensor, bounds: Tensor, generator: torch.Generator | None) -> None:
        """Back to nothing, in place: B zero, A drawn from `generator`, or kept where it is None. row: (numbers,)."""
        a, b = row.split([self._a_numbers, self.numbers - self._a_numbers])
        if generator is not None:
            a.uniform_(-1.0, 1.0, generator=generator).mul_(bounds)
        b.zero_()

    def visitor(self, rows: Tensor) -> "AdapterVisitor":
        """The adapters in `rows` (documents, numbers), for a batch with a row for each, in its dtype."""
        return AdapterVisitor(self, self.split(rows))

    def split(self, rows: Tensor) -> list[dict[str, tuple[Tensor, dict[str, Tensor]]]]:
        """Of every execution, then of the head: by what is read, A (documents, sites * rank, in) and, by site, B."""
        pieces = [
            piece.unflatten(1, shape) for piece, shape in zip(rows.split(self._sizes, dim=1), self._shapes, strict=True)
        ]
        all_a, all_b = iter(pieces[: len(self._a_shapes)]), iter(pieces[len(self._a_shapes) :])
        return [
            {read: (next(all_a), {site: next(all_b) for site in sites}) for read, sites in place.items()}
            for place in self._readers
        ]


def _by_input(sites: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for site in sites:
        found.setdefault(READS[site], []).append(site)
    return found


class SiteAdapters(Visit):
    """The adapters of one block execution, or of the head, during one forward pass."""

    def __init__(self, pieces: dict[str, tuple[Tensor, dict[str, Tensor]]], scale: float) -> None:
        self.scale, self.pieces = scale, pieces
        self.needs_hidden = any(site in b for _, b in pieces.values() for site in ("up", "down"))
        self._projected: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}

    def __call__(self, site: str, x: Tensor, y: Tensor) -> Tensor:
        read = READS[site]
        if read not in self.pieces or site not in self.pieces[read][1]:
            return y
        b = self.pieces[read][1][site]
        return y + self.scale * torch.bmm(self._read(read, x)[site], b.mT)

    def _read(self, read: str, x: Tensor) -> dict[str, Tensor]:
        """x A^T of every site that reads x, by site; once for all of them."""
        known = self._projected.get(read)
        if known is not None and known[0] is x:
            return known[1]
        a, b = self.pieces[read]
        parts = torch.bmm(x, a.mT).chunk(len(b), dim=-1)
        found = dict(zip(b, parts, strict=True))
        self._projected[read] = (x, found)
        return found


class AdapterVisitor:
    """Hands out the adapters of every execution of the plan that a layout was made for."""

    def __init__(self, layout: AdapterLayout, pieces: list[dict[str, tuple[Tensor, dict[str, Tensor]]]]) -> None:
        self._layout, self._pieces = layout, pieces

    def at(self, execution: int, layer: int) -> Visit:
        """Raises ConfigError when the adapters were made for another plan."""
        executions = self._layout.executions
        if execution >= len(executions) or executions[execution] != layer:
            raise ConfigError(
                f"execution {execution} runs layer {layer}, but the adapters are for the order {executions}; "
                "build them from the model that they adapt"
            )
        return SiteAdapters(self._pieces[execution], self._layout.scale)

    def head(self) -> Visit:
        return SiteAdapters(self._pieces[-1], self._layout.scale)
