"""What a bar given in nats means in bits per byte: the same 0.005 differs by tokenizer."""

from dataclasses import dataclass

from underpar.core.units import BITS_PER_NAT
from underpar.stats.samples import StatsError


@dataclass(frozen=True)
class BarReadings:
    """The readings of one bar in circulation, all in bits per byte. Whoever tests against one has to say which."""

    nats_per_token: float
    """The bar as loss per token: the written rule of the 16 MB game, different for each tokenizer."""
    nats_per_byte: float
    """The bar as loss per byte."""
    bits_per_byte: float
    """The number itself, taken as bits per byte."""

    def __str__(self) -> str:
        return (
            f"{self.nats_per_token:.5f} bpb read as nats per token, {self.nats_per_byte:.5f} as nats per byte, "
            f"{self.bits_per_byte:.5f} as bits per byte"
        )


def nats_per_token_to_bpb(loss_nats: float, bytes_per_token: float) -> float:
    """A loss (or a difference of losses) in nats per token, as bits per byte: nats / (ln 2 * bytes per token)."""
    if not bytes_per_token > 0:
        raise StatsError(f"bytes per token = {bytes_per_token:g}: must be positive; divide text bytes by scored tokens")
    return loss_nats * BITS_PER_NAT / bytes_per_token


def bar_readings(bar: float, bytes_per_token: float) -> BarReadings:
    """All readings of a bar such as 0.005. Raises StatsError when `bytes_per_token` is not positive."""
    return BarReadings(nats_per_token_to_bpb(bar, bytes_per_token), bar * BITS_PER_NAT, bar)
