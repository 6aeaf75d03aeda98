"""Weights of networks that were trained elsewhere: a file fits as a whole, or nothing changes.

.npz                        arrays NAME/kernel [h, w, in, out] and NAME/bias [out], NAME as the layer is called
.keras, .weights.h5         what `model.save` and `model.save_weights` wrote of a model of the same class
"""

import pathlib

import numpy as np

ENDINGS = (".npz", ".keras", ".weights.h5")


def load(model, path, layers, left_out=()):
    """Puts the weights of a file into a model.

    Args:
        model: a built `keras.Model`.
        path: of the file.
        layers: the layers with a kernel and a bias that an .npz file has to hold; files of Keras hold all weights.
        left_out: names of layers that keep their weights, whatever the .npz file holds of them.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file of another ending, or one that does not fit.
    """
    path = pathlib.Path(path)
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"weights must be a file that ends in {', '.join(ENDINGS)}, received {path}")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} of weights")
    if left_out and path.suffix != ".npz":
        raise ValueError(f"only an .npz file can leave out {', '.join(left_out)}, received {path}")
    if path.suffix == ".npz":
        for weight, values in _of_npz(model, path, layers, left_out):
            weight.assign(values)
        return
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile each have their own
        model.set_weights(before)
        raise ValueError(f"{path} does not fit {_told(model)}: {error}") from error


def _of_npz(model, path, layers, left_out):
    """[(weight, its values)], all looked at."""
    layers = [layer for layer in layers if layer.name not in left_out]
    wanted = {f"{layer.name}/{kind}": getattr(layer, kind) for layer in layers for kind in ("kernel", "bias")}
    try:
        with np.load(path) as file:
            held = {name: file[name] for name in file.files if name.partition("/")[0] not in left_out}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no .npz file: {error}") from error
    missing, other = sorted(set(wanted) - set(held)), sorted(set(held) - set(wanted))
    if missing or other:
        lacks = f"lacks {', '.join(missing[:3])}" if missing else f"holds {', '.join(other[:3])}, too"
        raise ValueError(f"{path} does not fit {_told(model)}: it {lacks}, ({len(missing)} missing, {len(other)} over)")
    for name, weight in wanted.items():
        if held[name].shape != tuple(weight.shape):
            raise ValueError(
                f"{path} does not fit {_told(model)}: {name} is {list(held[name].shape)}, expected {list(weight.shape)}"
            )
        if held[name].dtype.kind != "f" or not np.isfinite(held[name]).all():
            raise ValueError(f"{path} holds values in {name} that cannot be weights")
    return [(weight, held[name]) for name, weight in wanted.items()]


def _told(model):
    return f"{type(model).__name__} of {getattr(model, 'num_classes', None)} classes"
