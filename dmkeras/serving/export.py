"""Export: a model with signatures -> the next version of a folder that TF Serving serves.

    NAME/VERSION/saved_model.pb, variables/, assets/       the SavedModel, every signature an endpoint
                 batching_params.pbtxt                     for TF Serving's --enable_per_model_batching_parameters
                 assets.extra/tf_serving_warmup_requests   a request for every signature, replayed before it serves
                 assets.extra/model_card.json              what the version says of itself (`dmkeras show`)
                 assets.extra/labels.txt                   class names, one a line

A lookup table that an endpoint uses, such as class names in the graph, is made in the model's `__init__` and kept as an
attribute (`self.names = tf.lookup.StaticHashTable(...)`): so the SavedModel finds and initialises it.
"""

import datetime
import json
import pathlib
import platform

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras.serving import folders, graph_rules, model_card, rest_json, runtime, warm_up

MAX_BATCH = 32
RELATIVE, ABSOLUTE = 1e-4, 1e-4  # how far a served float may be from the local one: kernels differ, weights may not


def export(model, directory, *, warmup=True, labels=None):
    """Writes every signature of a model as the next version of `directory` and returns that version's folder.

    What was written is loaded again and compared, for one row and for three, with the functions it came from, before it
    appears under its number; versions already there are never touched, and a failing export leaves nothing.

    Args:
        model: a built `keras.Model` whose `signatures()` gives {name: (function of tensors -> dict of tensors,
            [tf.TensorSpec])}. Inputs and outputs have the batch as dimension 0, and a row's answer depends on that row
            alone; what samples takes a `seed` int32 [B, 2].
        directory: `saved_models/NAME`; the last part is the name under which the model is served.
        warmup: whether to write warm-up records; or example requests {signature: {input: array [B, ...]}} for the
            signatures whose inputs cannot be any numbers. They are used for the comparison, too.
        labels: class names, index 0 first.

    Raises:
        TypeError, ValueError: a signature that breaks a rule of serving, or answers otherwise once saved.
        OSError: a directory that cannot be written.
    """
    directory = _checked_directory(directory)
    labels = _checked_labels(labels)
    if not isinstance(model, keras.Model) or not model.built:
        raise TypeError(
            f"export: received {type(model).__name__}, expected a keras.Model that has been built (called once)"
        )
    signatures = graph_rules.signatures_of(model)
    feeds = _feeds(signatures, warmup if isinstance(warmup, dict) else {})
    with folders.draft(directory) as draft:
        endpoints = _write(model, signatures, draft)
        (draft / "assets.extra").mkdir()
        if warmup is not False:
            requests = {name: _rows(feed, [0]) for name, feed in feeds.items()}
            warm_up.write(draft / warm_up.FILE, directory.name, requests)
        if labels:
            (draft / model_card.LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        sizes = [size for _, specs in signatures.values() for spec in specs for size in spec.shape[1:]]
        if None not in sizes:  # pictures of any size cannot share a batch
            (draft / "batching_params.pbtxt").write_text(_batching())
        with runtime.Loaded(draft) as served:
            for name, (_, specs) in signatures.items():
                _compare(name, specs, endpoints[name], served, feeds[name])
            for name, request in warm_up.read(draft / warm_up.FILE) if warmup is not False else ():
                served.run(name, request)
            card = _card(model, directory.name, served, labels)
        (draft / model_card.FILE).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return folders.publish(draft)


def _checked_directory(directory):
    directory = pathlib.Path(directory)
    if not folders.NAME.fullmatch(directory.name):
        raise ValueError(
            f"export: received directory {str(directory)!r}, expected one whose last part is the model's name "
            "(a letter, then letters, digits, _ . -); the version below it is chosen by the export"
        )
    for part in (directory, *directory.parents):
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(f"export: {part} is a file, expected a folder for {directory}")
    return directory


def _checked_labels(labels):
    if labels is None:
        return None
    labels = list(labels) if not isinstance(labels, str) else labels
    if isinstance(labels, str) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise TypeError(f"export: received labels {labels!r}, expected a list of texts, none of them empty")
    if any(len(label.splitlines()) != 1 for label in labels):
        raise ValueError("export: received labels with line breaks, expected one line for each class")
    return labels


def _feeds(signatures, given):
    """Five example rows for every signature: its own where they are given, repeated as needed."""
    feeds = {name: warm_up.example_feed(specs, range(5)) for name, (_, specs) in signatures.items()}
    for name, request in given.items():
        specs = {spec.name: spec for spec in folders.pick(signatures, name, "signature", "warmup")[1]}
        if set(request) != set(specs):
            raise ValueError(f"export: warmup of {name!r} has inputs {sorted(request)}, expected {sorted(specs)}")
        arrays = {key: np.asarray(value, specs[key].dtype.as_numpy_dtype) for key, value in request.items()}
        for key, array in arrays.items():
            if not specs[key].shape.is_compatible_with(array.shape) or not len(array):
                shape = list(specs[key].shape)
                raise ValueError(f"export: warmup of {name!r} has {key!r} of {list(array.shape)}, expected {shape}")
        feeds[name] = _rows(arrays, range(5))
    return feeds


def _rows(feed, rows):
    return {name: array[[row % len(array) for row in rows]] for name, array in feed.items()}


def _write(model, signatures, folder):
    """Traces every signature, checks its graph and writes the SavedModel; returns {name: the traced function}."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    endpoints = {}
    for name, (function, specs) in signatures.items():
        endpoint = graph_rules.endpoint(name, function, specs)
        endpoints[name] = archive.add_endpoint(name, endpoint, input_signature=specs)
        graph_rules.check_graph(name, endpoints[name].get_concrete_function().graph.as_graph_def())
    try:
        archive.write_out(str(folder), verbose=False)
    except AssertionError as error:  # TensorFlow's way of saying that a resource is not an attribute of what is saved
        raise ValueError(
            "export: an endpoint uses a resource that the model does not hold; make lookup tables and variables in "
            f"__init__ and keep them as attributes ({str(error).splitlines()[0]})"
        ) from error
    return endpoints


def _compare(name, specs, endpoint, served, feed):
    """ValueError unless the served signature answers as the local function does, row by row whatever the batch."""

    def local(request):
        outputs = endpoint(*[tf.constant(request[spec.name], spec.dtype) for spec in specs])
        return {key: tensor.numpy() for key, tensor in outputs.items()}

    for rows in ([0], [0, 1, 2]):
        request = _rows(feed, rows)
        try:
            expected, answer = local(request), served.run(name, request)
        except (tf.errors.OpError, rest_json.RequestError) as error:
            error.add_note(
                f"export: {name!r} fails on an example request; give one that suits: warmup={{{name!r}: ...}}"
            )
            raise
        for key, value in answer.items():
            _check_answer(name, key, value, len(rows))
            if not _same(expected[key], value):
                cause = "the SavedModel lacks something of the model"
                if not _same(expected[key], local(request)[key]):
                    cause = "its draws are hidden: take a seed int32 [B, 2] for tf.random.stateless_*"
                raise ValueError(f"export: signature {name!r} gives two answers {key!r} to one request; {cause}")
    elsewhere = served.run(name, _rows(feed, [3, 0, 4]))
    for key, value in answer.items():
        if not _same(value[:1], elsewhere[key][1:2]):
            raise ValueError(
                f"export: signature {name!r} answers another {key!r} for a row at another place beside other rows; "
                "TF Serving batches strangers' requests: let each row depend on itself alone"
            )


def _check_answer(name, key, value, rows):
    """The batch first, and binary strings under a name in `_bytes`."""
    if value.shape[:1] != (rows,):
        shape = list(value.shape)
        raise ValueError(
            f"export: signature {name!r} has output {key!r} of {shape} for {rows} rows; expected [{rows}, ...]"
        )
    if value.dtype == object and not key.endswith("_bytes"):
        try:
            b"".join(value.ravel()).decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"export: signature {name!r} has output {key!r} of binary strings; expected the name {key}_bytes, "
                "so that JSON carries base64"
            ) from None


def _same(first, second):
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype.kind == "f":
        return np.allclose(first, second, RELATIVE, ABSOLUTE, equal_nan=True)
    return np.array_equal(first, second)


def _batching(limit=MAX_BATCH):
    sizes = [2**power for power in range(limit.bit_length())]
    return (
        f"max_batch_size {{ value: {limit} }}\n"
        "batch_timeout_micros { value: 1000 }\n"
        "max_enqueued_batches { value: 100 }\n" + "".join(f"allowed_batch_sizes: {size}\n" for size in sizes)
    )


def _card(model, name, served, labels):
    try:
        config = keras.saving.serialize_keras_object(model)["config"]
    except NotImplementedError:  # a subclass without get_config
        config = None
    return {
        "name": name,
        "class": type(model).__name__,
        "module": type(model).__module__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "parameters": model.count_params(),
        "labels": labels,
        "software": {
            "dmkeras": dmkeras.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
        "signatures": model_card.describe(name, {key: (s.inputs, s.outputs) for key, s in served.signatures.items()}),
        "config": config,
    }
