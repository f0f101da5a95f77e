"""Which layers of a model have a component."""

from underpar.core.config import Config, NonNegativeInt, PositiveInt, config
from underpar.core.errors import ConfigError


class LayerSet(Config):
    """A set of physical layers, numbered from 0."""

    def contains(self, layer: int, num_layers: int) -> bool:
        """Whether `layer` of a model of `num_layers` is in the set. Raises ConfigError when the set cannot be had."""
        raise NotImplementedError


@config
class NoLayers(LayerSet):
    """None."""

    def contains(self, layer: int, num_layers: int) -> bool:
        return False


@config
class AllLayers(LayerSet):
    """All."""

    def contains(self, layer: int, num_layers: int) -> bool:
        return True


@config
class LastLayers(LayerSet):
    """The last `count`."""

    count: PositiveInt = 4

    def contains(self, layer: int, num_layers: int) -> bool:
        if self.count > num_layers:
            raise ConfigError(f"count = {self.count} layers, but the model has {num_layers}")
        return layer >= num_layers - self.count


@config
class TheseLayers(LayerSet):
    """Those named."""

    layers: tuple[NonNegativeInt, ...] = (0,)

    def contains(self, layer: int, num_layers: int) -> bool:
        beyond = [chosen for chosen in self.layers if chosen >= num_layers]
        if beyond:
            raise ConfigError(f"layers names layer {beyond[0]}, but the model has {num_layers}, numbered from 0")
        return layer in self.layers
