"""Weight files of darknet, read and written, and `reorg`, its own rearrangement of maps.

load_weights_upto, load_convolutional_weights and save_weights_upto of src/parser.c and reorg_cpu of src/blas.c in
https://github.com/pjreddie/darknet; the networks are those of https://arxiv.org/abs/1612.08242. Little-endian:

    header           int32 major, minor, revision; then the pictures seen in training, as size_t (8 bytes) where
                     10 major + minor >= 2 and both are below 1000, and as int32 otherwise
    convolution      float32 bias [n], weights [n, c, k, k]
    with batch       float32 beta [n], gamma [n], moving mean [n], moving variance [n], weights [n, c, k, k]
    normalization

Layers follow one another in the order of the cfg file, without names, shapes or an end: only the number of bytes tells
a file of another network, so it is compared before anything is assigned. major or minor above 1000 mean that matrices
of dense layers are transposed; convolutions are not.

Shapes:  B batch, H height, W width, C channels, n maps, c channels, k side of the kernel, s stride.
"""

import pathlib
import struct

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import whole_number


def read(path, layers):
    """Assigns the weights of a file to convolutions, once all of it has been read and found to fit.

    Args:
        path: of the file.
        layers: in the file's order; each a `keras.layers.Conv2D`, or a layer whose `conv` is one and whose `bn` is its
            `keras.layers.BatchNormalization` or None. A file that holds the first layers of a network wants those.

    Returns:
        How many pictures the network had seen in training.

    Raises:
        ValueError: for a file that ends early or goes on, and for values that are not finite or a negative variance.
    """
    data = pathlib.Path(path).read_bytes()
    seen, start = _header(path, data)
    parts = [(layer, *part) for layer in layers for part in _parts(layer)]
    counts = [int(np.prod(variable.shape)) for _, variable, _ in parts]
    ends = np.cumsum([start, *(4 * count for count in counts)])
    if len(data) != ends[-1]:
        raise ValueError(_misfit(path, len(data), layers, [part[0] for part in parts], ends))
    values = []
    for (layer, variable, axes), count, end in zip(parts, counts, ends, strict=False):
        shape = [variable.shape[axis] for axis in axes]
        value = np.frombuffer(data, "<f4", count, end).reshape(shape).transpose(np.argsort(axes))
        _check_values(path, layer, variable, value)
        values.append(value)
    for (_, variable, _), value in zip(parts, values, strict=True):
        variable.assign(value)
    return seen


def write(path, layers, seen=0, version=(0, 2, 0)):
    """Writes convolutions as darknet does; `layers` as in `read`, `version` is (major, minor, revision).

    Raises:
        ValueError: for a version or a number of pictures that the header cannot hold.
    """
    if np.shape(version) != (3,):
        raise ValueError(f"version must be (major, minor, revision), received {version!r}")
    major, minor, revision = (whole_number("version", part, 0) for part in version)
    wide, seen = _is_wide(major, minor), whole_number("seen", seen, 0)
    if seen >= (2**64 if wide else 2**31):
        raise ValueError(f"version {major}.{minor} holds less than 2**{64 if wide else 31} in seen, received {seen}")
    arrays = [np.transpose(variable.numpy(), axes) for layer in layers for variable, axes in _parts(layer)]
    header = struct.pack("<iiiQ" if wide else "<iiii", major, minor, revision, seen)
    pathlib.Path(path).write_bytes(header + b"".join(array.astype("<f4").tobytes() for array in arrays))


def reorg(maps, stride=2):
    """Darknet's `reorg`, which the weights of YOLOv2 were trained with: `[B, H, W, C]` -> `[B, H / s, W / s, C s^2]`.

    It is no permutation of the channels of `tf.nn.space_to_depth`: darknet reads the maps, C x H x W in memory, as if
    they were C / s^2 maps of s H x s W, gathers those into C x H x W, and calls the outcome C s^2 x H / s x W / s. So a
    position of the output holds pixels from elsewhere, and channels are mixed with places.

    Raises:
        ValueError: for a stride that does not divide H and W, or whose square does not divide C.
    """
    stride = whole_number("stride", stride, 1)
    height, width, channels = maps.shape[1:]
    if channels % stride**2 or any(side is not None and side % stride for side in (height, width)):
        raise ValueError(
            f"expected maps [B, H, W, C], H and W divisible by {stride} and C by {stride**2}, "
            f"received {list(maps.shape)}; pad the maps or change their number"
        )
    shape = tf.shape(maps)
    height, width = height or shape[1], width or shape[2]
    groups = channels // stride**2
    x = tf.reshape(tf.transpose(maps, (0, 3, 1, 2)), (-1, groups, height, stride, width, stride))
    x = tf.transpose(x, (0, 3, 5, 1, 2, 4))  # [B, s, s, C / s^2, H, W]
    x = tf.reshape(x, (-1, channels * stride**2, height // stride, width // stride))
    return tf.transpose(x, (0, 2, 3, 1))


# --- what a file holds ----------------------------------------------------------------------------------------------


def _parts(layer):
    """(variable, axes) in the file's order: the file holds the variable transposed to `axes`."""
    conv, bn = getattr(layer, "conv", layer), getattr(layer, "bn", None)
    if conv.use_bias == bool(bn):
        raise ValueError(f"expected {layer.name} with batch normalization or a bias, received both or neither")
    vectors = [bn.beta, bn.gamma, bn.moving_mean, bn.moving_variance] if bn else [conv.bias]
    return [*((vector, (0,)) for vector in vectors), (conv.kernel, (3, 2, 0, 1))]  # [k, k, c, n] -> [n, c, k, k]


def _is_wide(major, minor):
    """Whether the number of pictures has eight bytes."""
    return major * 10 + minor >= 2 and major < 1000 and minor < 1000


def _header(path, data):
    """-> (pictures seen, where the weights begin)"""
    if len(data) >= 12:
        wide = _is_wide(*struct.unpack_from("<ii", data))
        start = 20 if wide else 16
        if len(data) >= start:
            return struct.unpack_from("<Q" if wide else "<i", data, 12)[0], start
    raise ValueError(f"{path} has {len(data)} bytes, expected a header of darknet, 16 or 20, and weights")


def _misfit(path, size, layers, owners, ends):
    """Both counts, and the layer in which a short file ends."""
    held, wanted = (size - ends[0]) / 4, (ends[-1] - ends[0]) // 4
    text = f"{path} holds {held:.10g} numbers, expected {wanted} of {len(layers)} convolutions"
    if size > ends[-1]:
        return f"{text}: {size - ends[-1]} bytes are left over after {layers[-1].name}; it is of another network"
    place = next(i for i, end in enumerate(ends[1:]) if size < end)
    number = next(i for i, layer in enumerate(layers) if layer is owners[place])
    where = "before" if size == ends[owners.index(owners[place])] else "within"
    remedy = "a cut-off wants the first layers alone (include_head=False)" if where == "before" else "fetch it again"
    return f"{text}: it ends {where} {owners[place].name}, number {number + 1}; {remedy}"


def _check_values(path, layer, variable, value):
    if not np.isfinite(value).all():
        raise ValueError(f"{path} holds numbers that are not finite in {variable.name} of {layer.name}")
    if variable is getattr(getattr(layer, "bn", None), "moving_variance", None) and value.min() < 0:
        raise ValueError(f"{path} holds a variance of {value.min():g} in {layer.name}: it is of another network")
