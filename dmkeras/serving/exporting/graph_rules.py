"""What an endpoint may be, so that TF Serving loads it, batches it, answers it as JSON and survives every request.

Each rule comes from a failure of the real server: a request of the wrong rank aborts the process unless the first op is
`tf.ensure_shape`; a scalar breaks batching; half precision has no JSON; XLA is off in the stock server, and Python
functions and custom ops are not in it.
"""

import re

import tensorflow as tf

DTYPES = ("float32", "int32", "int64", "uint8", "string", "bool")
IDENTIFIER = re.compile("[A-Za-z][A-Za-z0-9_]*")
TAKEN = (
    "signatures",
    "variables",
    "trainable_variables",
    "non_trainable_variables",
)  # attributes of a SavedModel's root
PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
FILE_OPS = ("ReadFile", "WriteFile", "MatchingFiles", "PrintV2")  # a request must reach neither files nor the log


def signatures_of(model):
    """`model.signatures()` as {name: (function, [tf.TensorSpec])}; TypeError or ValueError if it cannot be served."""
    if not callable(getattr(model, "signatures", None)):
        raise TypeError(
            f"export: {type(model).__name__} has no signatures(); expected a method that returns "
            "{'serving_default': (function of tensors -> dict of tensors, [tf.TensorSpec with a name, ...]), ...}"
        )
    signatures = model.signatures()
    if not isinstance(signatures, dict) or "serving_default" not in signatures:
        names = sorted(signatures) if isinstance(signatures, dict) else type(signatures).__name__
        raise ValueError(f"export: signatures() gave {names}; expected a dict with 'serving_default' among its names")
    for name, signature in signatures.items():
        where = f"signature {name!r}"
        if not isinstance(name, str) or not IDENTIFIER.fullmatch(name) or name in TAKEN:
            raise ValueError(f"export: {where}: expected a name of letters, digits and _, none of {', '.join(TAKEN)}")
        if not isinstance(signature, tuple) or len(signature) != 2 or not callable(signature[0]) or not signature[1]:
            raise TypeError(f"export: {where} is {signature!r}; expected (function, [tf.TensorSpec, ...])")
        _check_specs(where, signature[1])
    return {name: (function, list(specs)) for name, (function, specs) in signatures.items()}


def endpoint(name, function, specs):
    """`function` behind `tf.ensure_shape` on every input, its outputs held to the rules while it is traced."""

    def answer(*tensors):
        shaped = [tf.ensure_shape(tensor, spec.shape) for tensor, spec in zip(tensors, specs, strict=True)]
        try:
            outputs = function(*shaped)
        except Exception as error:
            error.add_note(
                f"while tracing signature {name!r} (autograph is off: tf.cond and tf.while_loop, no Python if)"
            )
            raise
        _check_outputs(f"signature {name!r}", outputs)
        return outputs

    return answer


def check_graph(name, graph_def):
    """ValueError if a graph or a function in its library holds what a stock TF Serving cannot or must not run."""
    for function in graph_def.library.function:
        if function.attr["_XlaMustCompile"].b:
            raise ValueError(
                f"export: signature {name!r} calls {function.signature.name}, compiled by XLA; "
                "TF Serving answers such requests with an error: use tf.function without jit_compile"
            )
    nodes = [node for function in graph_def.library.function for node in function.node_def]
    for node in [*graph_def.node, *nodes]:
        reason = None
        if node.op in PYTHON_OPS:
            reason = (
                "a Python function, which no server has: write it with TensorFlow ops or take its result as an input"
            )
        elif node.op in FILE_OPS:
            reason = "files or output reached by a request: leave it out of the endpoint"
        elif node.op.startswith("Xla"):
            reason = "compiled by XLA, which TF Serving does not run by default: leave jit_compile out"
        elif not hasattr(tf.raw_ops, node.op):
            reason = "a custom op, which TF Serving does not have: write it with TensorFlow's own ops"
        if reason:
            raise ValueError(f"export: signature {name!r} contains {node.op} ({node.name}): {reason}")


def _check_specs(where, specs):
    for spec in specs:
        if not isinstance(spec, tf.TensorSpec):
            raise TypeError(f"export: {where} has input {spec!r}; expected a tf.TensorSpec")
        if not spec.name or not IDENTIFIER.fullmatch(spec.name):
            raise ValueError(
                f"export: {where} has {spec!r}; expected a name of letters, digits and _: TensorSpec(..., name='image')"
            )
        _check_tensor(where, "input", spec.name, spec)
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError(f"export: {where} has inputs {names}; expected a name of its own for each")


def _check_outputs(where, outputs):
    if not isinstance(outputs, dict) or not outputs:
        raise TypeError(f"export: {where} answers {type(outputs).__name__}; expected a dict {{name: tensor}}")
    for name, tensor in outputs.items():
        if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
            raise ValueError(f"export: {where} has output {name!r}; expected a name of letters, digits and _")
        if not tf.is_tensor(tensor) or not isinstance(tensor, tf.Tensor):
            raise TypeError(
                f"export: {where} has output {name!r} of {type(tensor).__name__}; expected a dense tf.Tensor"
            )
        _check_tensor(where, "output", name, tensor)
        if name.endswith("_bytes") and tensor.dtype != tf.string:
            raise ValueError(
                f"export: {where} has output {name!r} of {tensor.dtype.name}; names in _bytes are for string"
            )


def _check_tensor(where, kind, name, tensor):
    """Batch first and of any size, and a dtype that JSON can carry."""
    if tensor.dtype.name not in DTYPES:
        raise ValueError(
            f"export: {where} has {kind} {name!r} of {tensor.dtype.name}; expected {', '.join(DTYPES)}: use tf.cast"
        )
    if tensor.shape.rank is None:
        raise ValueError(f"export: {where} has {kind} {name!r} of unknown rank; expected [B, ...]: use tf.ensure_shape")
    if tensor.shape.rank == 0 or tensor.shape[0] is not None:
        raise ValueError(
            f"export: {where} has {kind} {name!r} of shape {tuple(tensor.shape)}; expected the batch, of any size, as "
            "dimension 0 (None, ...): TF Serving batches requests along it"
        )
