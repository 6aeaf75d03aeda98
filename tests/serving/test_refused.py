"""What TF Serving could not load, batch, answer as JSON or survive is refused, and the export leaves nothing."""

import keras
import pytest
import tensorflow as tf

from dmkeras.serving.export import export
from dmkeras.serving.exporting import graph_rules
from tests.serving.models import IMAGE, SEED, SHAPE, OneEndpoint, mean


def one(function, specs=(IMAGE,), name="serving_default"):
    return lambda: OneEndpoint(function, specs, name)


def with_python(image):
    return {"mean": tf.ensure_shape(tf.numpy_function(lambda x: x.mean((1, 2, 3)), [image], tf.float32), (None,))}


def nested_python(image):
    rows = tf.map_fn(lambda x: tf.ensure_shape(tf.py_function(lambda y: y[0, 0, 0], [x], tf.float32), ()), image)
    return {"mean": rows}


def compiled(image):
    return {"mean": tf.function(lambda x: tf.reduce_mean(x, [1, 2, 3]), jit_compile=True)(image)}


def compiled_in_a_loop(image):
    inner = tf.function(lambda x: 2 * x, jit_compile=True)
    return {"mean": tf.while_loop(lambda x: tf.reduce_sum(x) < 1e3, lambda x: (inner(x),), (image + 1,))[0]}


def reads_a_file(path):
    return {"content_bytes": tf.map_fn(tf.io.read_file, path)}


def hidden_draws(image):
    return {"noise": tf.random.normal(tf.shape(image))}


def draws_by_place(image):
    return {"noise": image + tf.random.stateless_normal(tf.shape(image), [1, 2])}


def coupled_rows(image):
    return {"mean": image - tf.reduce_mean(image, 0)}


def binary_strings(image):
    return {"picture": tf.map_fn(tf.io.encode_png, tf.cast(image, tf.uint8), fn_output_signature=tf.string)}


PATH = tf.TensorSpec((None,), tf.string, name="path")

REFUSED = {
    "a Python function": (one(with_python), ValueError, "'serving_default' contains PyFunc .* a Python function"),
    "a Python function inside a loop": (one(nested_python), ValueError, "contains EagerPyFunc"),
    "a compiled function": (one(compiled), ValueError, "compiled by XLA"),
    "a compiled function inside a loop": (one(compiled_in_a_loop), ValueError, "compiled by XLA"),
    "an op that reads files": (one(reads_a_file, [PATH]), ValueError, "contains ReadFile"),
    "half precision out": (
        one(lambda image: {"y": tf.cast(image, tf.float16)}),
        ValueError,
        "'y' of float16; expected f",
    ),
    "half precision in": (one(mean, [tf.TensorSpec((None, 2), "bfloat16", "x")]), ValueError, "'x' of bfloat16"),
    "a scalar in": (
        one(lambda n: {"y": n}, [tf.TensorSpec((), tf.int32, name="n")]),
        ValueError,
        r"input 'n' of shape \(\); expected the batch",
    ),
    "a fixed batch in": (
        one(mean, [tf.TensorSpec((1, *SHAPE), tf.float32, "image")]),
        ValueError,
        "expected the batch",
    ),
    "an unknown rank in": (one(mean, [tf.TensorSpec(None, tf.float32, "image")]), ValueError, "unknown rank"),
    "a scalar out": (one(lambda image: {"y": tf.reduce_mean(image)}), ValueError, r"output 'y' of shape \(\)"),
    "a constant out": (one(lambda image: {"y": tf.zeros((3,))}), ValueError, r"output 'y' of shape \(3,\)"),
    "an output whose rows are not the batch": (
        one(lambda image: {"y": tf.reshape(image, (-1,))}),
        ValueError,
        r"'y' of \[64\] for 1 rows; expected \[1, ...\]",
    ),
    "an unnamed spec": (one(mean, [tf.TensorSpec((None, *SHAPE))]), ValueError, "name='image'"),
    "two specs of one name": (one(lambda a, b: {"y": a}, [SEED, SEED]), ValueError, "a name of its own"),
    "a spec that is none": (one(mean, [(None, 8)]), TypeError, "expected a tf.TensorSpec"),
    "no specs": (one(mean, []), TypeError, "expected .function"),
    "a tensor out": (one(lambda image: image), TypeError, "answers .*Tensor; expected a dict"),
    "an output name with a space": (one(lambda image: {"a b": image}), ValueError, "output 'a b'"),
    "a ragged output": (
        one(lambda image: {"y": tf.RaggedTensor.from_tensor(image[..., 0])}),
        TypeError,
        "of RaggedTensor; expected a dense",
    ),
    "numbers called bytes": (one(lambda image: {"y_bytes": image}), ValueError, "names in _bytes are for string"),
    "binary strings not called bytes": (one(binary_strings), ValueError, "expected the name picture_bytes"),
    "no serving_default": (
        one(mean, name="predict"),
        ValueError,
        r"gave \['predict'\]; expected a dict with 'serving_d",
    ),
    "hidden draws": (one(hidden_draws), ValueError, "gives two answers 'noise' to one request; .* take a seed"),
    "rows that see each other": (one(coupled_rows), ValueError, "another 'mean' for a row at another place"),
    "a row whose noise depends on its place": (one(draws_by_place), ValueError, "another 'noise' for a row at another"),
    "no signatures": (
        lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
        TypeError,
        "no signatures()",
    ),
    "a model that is not built": (lambda: keras.Sequential([keras.layers.Dense(1)]), TypeError, "has been built"),
    "no model": (lambda: mean, TypeError, "received function, expected a keras.Model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_tf_serving_could_not_serve_is_refused_and_leaves_nothing(case, tmp_path):
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        export(make(), tmp_path / "refused")
    assert not list(tmp_path.iterdir())


def test_hidden_draws_are_named_under_a_global_seed_too(tmp_path):
    keras.utils.set_random_seed(0)  # the first draws of the function and of the SavedModel are then the same
    with pytest.raises(ValueError, match="its draws are hidden"):
        export(one(hidden_draws)(), tmp_path / "refused")


def test_a_name_that_a_saved_model_uses_itself_is_refused(tmp_path):
    model = OneEndpoint(mean)
    for name in ("variables", "signatures", "a name", "_hidden", 3):
        model.signatures = lambda name=name: {"serving_default": (mean, [IMAGE]), name: (mean, [IMAGE])}
        with pytest.raises(ValueError, match="expected a name of letters"):
            export(model, tmp_path / "refused")


def test_an_op_that_tensorflow_does_not_bring_is_refused():
    graph_def = tf.compat.v1.GraphDef()
    graph_def.library.function.add().node_def.add(name="mine", op="MyOwnOp")
    with pytest.raises(ValueError, match=r"contains MyOwnOp .mine.: a custom op"):
        graph_rules.check_graph("serving_default", graph_def)


def test_a_table_that_the_model_does_not_hold_is_refused(tmp_path):
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0], ["a"]), "?")
    model = OneEndpoint(lambda image: {"name": table.lookup(tf.zeros_like(image[:, 0, 0, 0], tf.int32))})
    with pytest.raises(ValueError, match="keep them as attributes"):
        export(model, tmp_path / "refused")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["7", "a b", "..", "é", ".hidden", "a:b"])
def test_a_directory_that_cannot_name_a_model_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="the model's name"):
        export(OneEndpoint(mean), tmp_path / name)


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(NotADirectoryError, match="file is a file, expected a folder"):
            export(OneEndpoint(mean), directory)


@pytest.mark.parametrize("labels", ["abc", [], [1], [""], ["a\nb"]])
def test_labels_are_one_line_for_each_class(labels, tmp_path):
    with pytest.raises((TypeError, ValueError), match="labels"):
        export(OneEndpoint(mean), tmp_path / "refused", labels=labels)
