"""The public layers, whatever file of the package they live in: `dmkeras.layers.X`."""

from dmkeras.parts.upsampling_layers import (
    BedOfNails,
    MaxPooling,
    MaxUnpooling,
    NearestUpsampling,
    TransposedConvolution,
)

__all__ = ["BedOfNails", "MaxPooling", "MaxUnpooling", "NearestUpsampling", "TransposedConvolution"]
