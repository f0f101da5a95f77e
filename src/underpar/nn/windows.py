"""Sliding windows: most layers look back a little, a few look back far."""

from underpar.core.config import Config, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.phase import WindowSizes
from underpar.nn.layers import LayerSet, TheseLayers


@config
class Windows(Config):
    """A token sees itself and so many tokens before it, by the kind of its layer.

    These sizes are those of scoring. A schedule with stages says for every stage of training what holds there instead; without
    one they hold in training too. Source: modded-nanogpt, records 12 to 72.
    """

    short: PositiveInt = 768
    long: PositiveInt = 2560
    long_layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(3, 10)))
    """Layers with the long window; all others have the short one."""

    def check(self) -> None:
        if self.short > self.long:
            raise ConfigError(f"short = {self.short} tokens is over long = {self.long}")

    def sizes(self) -> WindowSizes:
        return WindowSizes(self.short, self.long)
