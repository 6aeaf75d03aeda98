"""Every data set by one call: `load(name, split)` gives an unbatched `tf.data.Dataset` of dicts.

Names:

    digits  photos  shapes  simple_shapes  phantoms   rendered from a seed or installed with scikit-learn: always there
    families                                          things of families, rendered; or MNIST's and Fashion-MNIST's
    mnist_binarized                                   MNIST, read through TFDS, under one fixed binary draw
    folder:DIR  voc:DIR  coco:JSON  pairs:DIR         the user's own pictures
    dlc:DIR                                           the user's own frames with keypoints, as DeepLabCut labels them
    cifar10_excerpt:DIR                               some thousands of CIFAR-10's pictures, from public sheets
    anything else, for example mnist or voc/2007      a TensorFlow Datasets name, read where it is prepared

Keys; a data set has those that it knows, and its module's docstring says which (n objects, k keypoints):

    image      float32 [height, width, channels]   in [0, 1]
    label      int32   []                          class of the picture, 0-based index into `class_names`
    boxes      float32 [n, 4]                      x1, y1, x2, y2 in pixels, x2 and y2 exclusive
    classes    int32   [n]                         class of each box, 0-based index into `class_names`
    difficult  bool    [n]                         voc:DIR alone: objects that VOC's rules leave out of the evaluation
    masks      bool    [n, height, width]          the visible pixels of each object, in the order of `boxes`
    semantic   int32   [height, width]             0 background, k + 1 for class k, -1 for pixels that have no answer
    keypoints  float32 [n, k, 3]                   x, y in pixels; visibility 0 not labelled, 1 hidden, 2 visible
    depth      float32 [height, width]             distance from the camera, in the unit that the data set says
    name       string  []                          the picture's file or title, where it has one

Other keys of a TFDS set stay under their own names. The cardinality of the answer is always known, and its order is
the same in every run: shuffling is left to `batches`.
"""

import difflib
import importlib
import inspect

__all__ = ["BadDataError", "Problem", "batches", "check", "class_names", "load", "to_arrays"]

OFFLINE = ("digits", "families", "mnist_binarized", "phantoms", "photos", "shapes", "simple_shapes")
LAZY = {"pipeline": ("batches", "to_arrays"), "files": ("BadDataError", "Problem")}
OWN = {"folder": "DIR", "voc": "DIR", "coco": "JSON", "pairs": "DIR", "dlc": "DIR", "cifar10_excerpt": "DIR"}


def load(name, split="train", *, data_dir=None, download=False, **options):
    """The split `split` of the data set `name` as an unbatched `tf.data.Dataset` of dicts (keys: see the module).

    `data_dir` is where prepared TFDS sets lie (default: the environment's TFDS_DATA_DIR, then ~/tensorflow_datasets),
    and where a relative DIR of `folder:DIR` and its like is looked for (default: the working directory). The network
    is used by `download=True` alone, and only for a TFDS set that is not prepared. `options` belong to the data set,
    for example `strict=True` for `voc:DIR`.

    Raises ValueError for an unknown name (naming near ones) or split, TypeError for an unknown option,
    FileNotFoundError for data that is not there.
    """
    if not isinstance(split, str):
        raise TypeError(f"a split is a string such as 'train' or 'train[:80%]', not {split!r}")
    module, first = _source(name, data_dir)
    _check_options(module.load, name, options)
    return module.load(*first, split, data_dir=data_dir, download=download, **options)


def check(name, split="train", *, data_dir=None, **options):
    """What `load` would skip of the user's own data (`folder:DIR` and its like): a list of `Problem(file, reason)`.

    The list is whole, where the log of `load` shows the first of it. Other data sets have no problems: an empty list.
    """
    module, first = _source(name, data_dir)
    if not hasattr(module, "examine"):
        return []
    _check_options(module.examine, name, options)
    return module.examine(*first, split, data_dir=data_dir, **options)[1]


def class_names(name, *, data_dir=None, **options):
    """The names of the classes of the data set `name`, a list of str: entry k names label (or class) k.

    Raises ValueError where the data set has no classes, and as `load` does.
    """
    module, first = _source(name, data_dir)
    if not hasattr(module, "class_names"):
        raise ValueError(f"the data set {name!r} has no classes")
    if "data_dir" in inspect.signature(module.class_names).parameters:
        options["data_dir"] = data_dir
    _check_options(module.class_names, name, options)
    return list(module.class_names(*first, **options))


def _source(name, data_dir):
    """The module that knows `name`, and the positional arguments that its functions take first."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a data set is a string such as 'digits' or 'voc:DIR', not {name!r}")
    kind, colon, place = name.partition(":")
    if name in OFFLINE:
        return _module(name), ()
    if colon and kind in OWN:
        if not place:
            raise ValueError(f"{name!r} names no place: write {kind}:{OWN[kind]}")
        return _module(kind), (place,)
    tfds = _module("tfds")
    if not tfds.is_name(name, data_dir):
        near = difflib.get_close_matches(
            name, [*OFFLINE, *(f"{kind}:" for kind in OWN), *tfds.names()], n=4, cutoff=0.6
        )
        near = [f"{match}{OWN[match[:-1]]}" if match.endswith(":") else match for match in near]
        hint = f"did you mean {' or '.join(near)}?" if near else "no name is near."
        own = ", ".join(f"{kind}:{place}" for kind, place in OWN.items())
        raise ValueError(
            f"unknown data set {name!r}: {hint} Names are {', '.join(OFFLINE)}; {own}; "
            "and those of TensorFlow Datasets (tensorflow_datasets.list_builders())."
        )
    return tfds, (name,)


def _module(name):
    return importlib.import_module(f"dmkeras.data.{name}")


def _check_options(function, name, options):
    parameters = inspect.signature(function).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("data_dir", "download")]
    unknown = sorted(set(options) - {"data_dir"} - set(allowed))
    if unknown:
        takes = f"takes {', '.join(allowed)}" if allowed else "takes none"
        raise TypeError(f"the data set {name!r} has no option {', '.join(unknown)}: it {takes}")
    if isinstance(options.get("classes"), str):
        raise TypeError(f"classes is a list of names, not the string {options['classes']!r}")


def __getattr__(name):
    for module, names in LAZY.items():
        if name in names:
            return getattr(_module(module), name)
    raise AttributeError(f"module 'dmkeras.data' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *(name for names in LAZY.values() for name in names)])
