"""A classifier of pictures of one size, read as a network for pictures of any size, with the same weights.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (https://arxiv.org/abs/1411.4038),
section 3.1; Sermanet et al., "OverFeat" (https://arxiv.org/abs/1312.6229), section 3.5. For pictures X of any size

    map[r, c] = classifier(X[s r : s r + h, s c : s c + w]),    s the product of all strides                     (1)

    convolution, pooling ("valid")   themselves: a crop's maps are a block of the picture's, h' x w' in the end
    Flatten, Dense                   y[n] = sum_ijk W[(i w' + j) C' + k, n] x[r + i, c + j, k] + b[n], a convolution
    global pooling                   pooling over h' x w', stride 1
    later Dense, normalisation, ...  the same at every position: a Dense is a 1x1 convolution

(1) holds since a "valid" layer sees nothing but its input. A layer of "same" padding sees zeros beyond the border of a
crop, where the picture goes on; what is wrong grows by every layer and reaches every answer through Flatten or pooling.
With a stride, moreover, the side of the picture tells on which side the zeros stand. So such a layer is refused here.
At inference alone: normalisation by statistics of the batch, and dropout, do not see crops.

Shapes:  B batch, H height, W width, C channels of pictures, R rows and S columns of positions, K classes; h and w of a
         crop; h', w', C' of its last maps.
"""

import dataclasses

import keras
from keras import layers, ops, tree

SLIDING = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.MaxPooling2D, layers.AveragePooling2D)
GLOBAL = {layers.GlobalAveragePooling2D: layers.AveragePooling2D, layers.GlobalMaxPooling2D: layers.MaxPooling2D}
NUMBERWISE = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Dropout, layers.Activation, layers.Rescaling)
PIXELWISE = (*NUMBERWISE, layers.Softmax, layers.SpatialDropout2D, layers.BatchNormalization, layers.Dense)
MERGING = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Concatenate)


def fully_convolutional(classifier):
    """The network of (1) and its stride.

    Args:
        classifier: a sequential or functional `keras.Model`, [B, h, w, C] -> [B, K], of the layers above.

    Returns:
        (a functional `keras.Model`, [B, H, W, C] -> [B, R, S, K], that shares the classifier's layers and weights,
        (stride down, stride across)). Where layers drop rows that do not fill a window, a picture may have more
        positions than crops that lie inside; the further ones see such rows alone.

    Raises:
        ValueError: for other models, for layers that pad or that cannot be turned; the message names the layer.
    """
    graph = _graph(classifier)
    if len(graph.input_shape) != 4 or None in graph.input_shape[1:]:
        raise ValueError(f"expected a classifier of pictures of one size, received one of {graph.input_shape}")
    model, trace = _turned(graph, _Trace(graph.input_shape[1:3]))
    if trace.kind != "vectors":
        raise ValueError(f"expected a classifier [B, h, w, C] -> [B, K], received one that ends in {trace.kind}")
    return model, trace.stride


@dataclasses.dataclass(frozen=True)
class _Trace:
    """What a tensor of the new network is to a crop."""

    sides: tuple  # rows and columns of it that belong to one crop
    stride: tuple = (1, 1)  # between two crops' first pixels, for a step of one
    kind: str = "maps"  # "flat maps" between Flatten and Dense, "vectors" once a crop has one position


def _graph(model):
    """The functional model of a sequential or functional one."""
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        inputs = outputs = ()
    if len(inputs or ()) != 1 or len(outputs or ()) != 1:
        raise ValueError(
            f"expected a built sequential or functional model of one input and output, received {type(model).__name__} "
            f"{getattr(model, 'name', '')!r}: the order of its layers is not known"
        )
    return keras.Model(inputs[0], outputs[0], name=model.name)


def _turned(graph, trace):
    """A functional model as one for maps of any size, on maps of `trace`, and the trace of its output."""
    maps = keras.Input((*(None,) * 2, graph.inputs[0].shape[-1]), dtype=graph.inputs[0].dtype)
    traces = {id(maps): (maps, trace)}  # the tensor too, so that its id stays its own

    def call(layer, *given, **_):  # masks, and whether it is training: it never is
        found, trace = _turn(layer, given, [traces[id(tensor)][1] for tensor in tree.flatten(given)])
        traces[id(found)] = found, trace
        return found

    model = keras.models.clone_model(graph, maps, clone_function=lambda layer: layer, call_function=call)
    return model, traces[id(model.outputs[0])][1]


def _turn(layer, given, traces):
    """One layer on the new network's tensors: (its output, the output's trace)."""
    first = traces[0]
    if isinstance(layer, MERGING):
        return _merged(layer, given, traces), first
    if len(traces) != 1:
        raise _refusal(layer, "of several inputs")
    if isinstance(layer, keras.Model):
        if first.kind != "maps":
            raise _refusal(layer, f"a model on {first.kind}")
        inner, trace = _turned(_graph(layer), first)
        return inner(*given), trace
    if isinstance(layer, layers.Flatten):
        return given[0], dataclasses.replace(first, kind="vectors" if first.sides == (1, 1) else "flat maps")
    if first.kind == "maps" and isinstance(layer, (*SLIDING, *GLOBAL)):
        if layer.data_format != "channels_last":
            raise _refusal(layer, "of channels_first")
        return _slid(layer, *given, first) if isinstance(layer, SLIDING) else _pooled(layer, *given, first)
    if first.kind == "flat maps" and isinstance(layer, layers.Dense):
        turned = DenseAsConvolution(layer, first.sides, dtype=layer.dtype_policy)
        return turned(*given), dataclasses.replace(first, kind="vectors", sides=(1, 1))
    if first.kind == "flat maps" and not (isinstance(layer, NUMBERWISE) and not _is_softmax(layer)):
        raise _refusal(layer, "between Flatten and Dense")
    if not isinstance(layer, PIXELWISE):
        raise _refusal(layer, f"on {first.kind}")
    if isinstance(layer, layers.BatchNormalization):
        if layer.axis not in (-1, 3 if first.kind == "maps" else 1):
            raise _refusal(layer, f"over axis {layer.axis}")
        layer = layer if first.kind == "maps" else AtEveryPosition(layer, dtype=layer.dtype_policy)
    return layer(*given), first


def _slid(layer, maps, trace):
    """A convolution or pooling: itself."""
    if _pads(layer):
        raise ValueError(
            f'{layer.name} pads its maps ("{layer.padding}"): at the border of a crop it sees zeros where the picture '
            'goes on, so that no map has the answers for crops; train the classifier with padding="valid"'
        )
    sides = layer.compute_output_shape((1, *trace.sides, maps.shape[-1]))[1:3]
    stride = tuple(a * b for a, b in zip(trace.stride, layer.strides))
    return layer(maps), _Trace(tuple(sides), stride)


def _pads(layer):
    size = getattr(layer, "kernel_size", None) or layer.pool_size
    return layer.padding != "valid" and max(size) > 1


def _pooled(layer, maps, trace):
    """Global pooling: pooling over what belongs to one crop, at every position."""
    (pooling,) = (pooling for kind, pooling in GLOBAL.items() if isinstance(layer, kind))
    found = pooling(trace.sides, 1, name=f"{layer.name}_of_crops", dtype=layer.dtype_policy)(maps)
    return found, _Trace((1, 1), trace.stride, "maps" if layer.keepdims else "vectors")


def _merged(layer, given, traces):
    """A layer of several inputs, which must belong to the same crops."""
    if any(trace != traces[0] for trace in traces) or traces[0].kind == "flat maps":
        raise _refusal(layer, f"of {' and '.join(f'{t.kind} {t.sides} of stride {t.stride}' for t in traces)}")
    if not isinstance(layer, layers.Concatenate):
        return layer(*given)
    if layer.axis not in (-1, 3 if traces[0].kind == "maps" else 1):
        raise _refusal(layer, f"over axis {layer.axis}")
    return layers.Concatenate(dtype=layer.dtype_policy)(*given)


def _is_softmax(layer):
    return getattr(layer, "activation", None) is keras.activations.softmax


def _refusal(layer, where):
    known = sorted({kind.__name__ for kind in (*SLIDING, *GLOBAL, *PIXELWISE, *MERGING, layers.Flatten)})
    return ValueError(
        f"{layer.name}, {type(layer).__name__} {where}, cannot be read as a convolution; expected {', '.join(known)}"
    )


@keras.saving.register_keras_serializable("dmkeras")
class DenseAsConvolution(layers.Wrapper):
    """A built Dense layer behind Flatten as a convolution of h' x w' maps; [B, H', W', C'] -> [B, R, S, n]."""

    def __init__(self, layer, window, **kwargs):
        super().__init__(layer, **{"name": f"{layer.name}_as_convolution", **kwargs})
        self.window = tuple(window)

    def call(self, maps):
        dense = self.layer
        kernel = ops.reshape(dense.kernel, (*self.window, maps.shape[-1], dense.units))  # Flatten's order: i, j, k
        found = ops.conv(maps, kernel, 1, "valid")
        return dense.activation(found + dense.bias if dense.use_bias else found)

    def get_config(self):
        return {**super().get_config(), "window": self.window}


@keras.saving.register_keras_serializable("dmkeras")
class AtEveryPosition(layers.Wrapper):
    """A layer built for [B, n] at every position of [B, R, S, n]."""

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **{"name": f"{layer.name}_at_every_position", **kwargs})

    def call(self, vectors):
        found = self.layer(ops.reshape(vectors, (-1, vectors.shape[-1])), training=False)
        return ops.reshape(found, ops.shape(vectors))
