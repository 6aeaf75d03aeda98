"""Export: a model with signatures -> the next version of a folder that TF Serving serves.

    NAME/VERSION/saved_model.pb, variables/, assets/       the SavedModel, every signature an endpoint; frozen, it has
                                                           no variables/
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
from dmkeras.serving import batching, folders, model_card, runtime, warm_up
from dmkeras.serving.exporting import classify_signature, comparison, graph_rules, precision
from dmkeras.serving.exporting.frozen import freeze


def export(model, directory, *, warmup=True, labels=None, frozen=False, compute=None):
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
        labels: class names, index 0 first. With them a classifier gets a signature `classify`:
            see `classify_signature`.
        frozen: whether variables become constants, for quicker loading and answers: see `frozen`.
        compute: None, `"bfloat16"` or `"float16"`, the arithmetic of all signatures but those that answer likelihoods;
            inputs and answers stay float32: see `precision`.

    Raises:
        TypeError, ValueError: a signature that breaks a rule of serving, or answers otherwise once saved; a model that
            cannot be frozen, or whose answers the lower precision moves too far.
        OSError: a directory that cannot be written.
    """
    directory, labels = _checked_directory(directory), _checked_labels(labels)
    _check_model(model, compute)
    signatures = graph_rules.signatures_of(model)
    feeds = _feeds(signatures, warmup if isinstance(warmup, dict) else {})
    lower = precision.lower(model, signatures, feeds, compute) if compute else None
    if lower:
        signatures = lower.signatures
    archive, endpoints = _traced([model, lower.twin] if lower else [model], signatures)
    classify = classify_signature.find(signatures, endpoints, labels)
    if classify:
        signatures["classify"] = (classify.function, [classify_signature.INPUTS])
        feeds["classify"] = classify.requests(feeds[classify.source])
        endpoints["classify"] = _endpoint(archive, "classify", *signatures["classify"])
    with folders.draft(directory) as draft:
        _write(archive, draft)
        if frozen:
            freeze(draft)
        _write_beside(draft, signatures, {} if warmup is False else feeds, labels)
        with runtime.Loaded(draft) as served:
            for name, (_, specs) in signatures.items():
                comparison.compare(name, specs, endpoints[name], served, feeds[name], lower and lower.tolerance)
            for name, request in warm_up.read(draft / warm_up.FILE) if warmup is not False else ():
                served.run(name, request)
            variant = {"frozen": frozen, "compute": compute, "differences": lower and lower.differences(served)}
            features = {"classify": classify.tensor} if classify else {}
            card = _card(model, directory.name, labels, variant, served, features)
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


def _check_model(model, compute):
    if compute not in (None, *precision.POLICIES):
        raise ValueError(f"export: received compute={compute!r}, expected None, {' or '.join(precision.POLICIES)}")
    if not isinstance(model, keras.Model) or not model.built:
        raise TypeError(
            f"export: received {type(model).__name__}, expected a keras.Model that has been built (called once)"
        )


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
        feeds[name] = comparison.rows(arrays, range(5))
    return feeds


def _traced(models, signatures):
    """An archive that holds what the models hold, and {name: the traced function} of every signature."""
    archive = keras.export.ExportArchive()
    holder = tf.Module()
    holder.models = models  # a model itself would have its variables written twice (keras-team/keras#23553)
    archive.track(holder)
    return archive, {name: _endpoint(archive, name, *signature) for name, signature in signatures.items()}


def _endpoint(archive, name, function, specs):
    """Traces a signature into the archive and checks its graph."""
    traced = archive.add_endpoint(name, graph_rules.endpoint(name, function, specs), input_signature=specs)
    graph_rules.check_graph(name, traced.get_concrete_function().graph.as_graph_def())
    return traced


def _write(archive, folder):
    try:
        archive.write_out(str(folder), verbose=False)
    except AssertionError as error:  # TensorFlow's way of saying that a resource is not an attribute of what is saved
        raise ValueError(
            "export: an endpoint uses a resource that the model does not hold; make lookup tables and variables in "
            f"__init__ and keep them as attributes ({str(error).splitlines()[0]})"
        ) from error


def _write_beside(draft, signatures, feeds, labels):
    """Warm-up records for the signatures of `feeds`, labels and batching parameters."""
    (draft / "assets.extra").mkdir()
    if feeds:
        requests = {name: comparison.rows(feeds[name], [0]) for name in signatures}
        warm_up.write(draft / warm_up.FILE, draft.parent.name, requests)
    if labels:
        (draft / model_card.LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    sizes = [size for _, specs in signatures.values() for spec in specs for size in spec.shape[1:]]
    if None not in sizes:  # pictures of any size cannot share a batch
        (draft / batching.FILE).write_text(_batching())


def _batching():
    """The parameters that a `Batching` has unless told otherwise, as TF Serving reads them."""
    given = batching.Batching()
    return (
        f"max_batch_size {{ value: {given.max_batch_size} }}\n"
        f"batch_timeout_micros {{ value: {given.timeout_micros} }}\n"
        f"max_enqueued_batches {{ value: {given.max_enqueued} }}\n"
        + "".join(f"allowed_batch_sizes: {size}\n" for size in given.allowed())
    )


def _card(model, name, labels, variant, served, features):
    try:
        config = keras.saving.serialize_keras_object(model)["config"]
    except NotImplementedError:  # a subclass without get_config
        config = None
    signatures = {key: (signature.inputs, signature.outputs) for key, signature in served.signatures.items()}
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
        "variant": variant,
        "signatures": model_card.describe(name, signatures, features),
        "config": config,
    }
