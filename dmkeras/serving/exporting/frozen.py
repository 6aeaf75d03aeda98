"""Variables folded into constants, so that TensorFlow folds batch normalisation into convolutions when a version loads.

Signatures, tensors, lookup tables and assets stay what they were, and TF Serving, `tf.saved_model.load` and Keras's
TFSMLayer load the version as any other. The weights move from `variables/` into `saved_model.pb`, once for all
signatures; a Protocol Buffer holds less than 2 GiB of them, and nothing can train them further.
"""

import contextlib
import shutil

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from dmkeras.serving import runtime

LIMIT = 2**31 - 2**24  # bytes of a graph; the rest is for what stands beside it


def freeze(folder):
    """Rewrites a SavedModel in place with constants for its variables. ValueError for one that cannot be frozen."""
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    graph_def = _with_constants(folder, _ends(meta_graph))
    _leave_out_unused_functions(graph_def)
    _check(graph_def)
    if graph_def.ByteSize() > LIMIT:
        raise ValueError(
            f"export: a frozen graph of {graph_def.ByteSize():,} bytes, expected at most {LIMIT:,}: export with "
            "frozen=False"
        )
    meta_graph.graph_def.CopyFrom(graph_def)
    # What is left is what TensorFlow 1 wrote, a graph and its signatures: objects and a saver are of variables.
    meta_graph.ClearField("object_graph_def")
    meta_graph.ClearField("saver_def")
    del meta_graph.signature_def[runtime.INIT]  # also in a collection, where it is no signature
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    shutil.rmtree(folder / "variables")
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # of the graph that was


def _ends(meta_graph):
    """The nodes that a server feeds, fetches or runs: of signatures, of the initialisation and of assets."""
    definitions = meta_graph.signature_def.values()
    infos = [
        info for definition in definitions for ends in (definition.inputs, definition.outputs) for info in ends.values()
    ]
    infos += [asset.tensor_info for asset in meta_graph.asset_file_def]
    return sorted({info.name.split(":")[0] for info in infos})


def _with_constants(folder, ends):
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0}, allow_soft_placement=True)
    with _quiet(), tf.compat.v1.Session(graph=graph, config=config) as session:
        with graph.as_default():
            tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        graph_def = graph.as_graph_def()
        _read_paths_directly(graph_def)
        return tf.compat.v1.graph_util.convert_variables_to_constants(session, graph_def, ends)


def _read_paths_directly(graph_def):
    """Who reads a variable of an asset's path reads the placeholder that every load feeds with that path."""
    nodes = {node.name: node for node in graph_def.node}
    assigns = [node for node in graph_def.node if node.op == "AssignVariableOp"]
    paths = {node.input[0]: node for node in assigns if nodes[node.input[1]].op == "Placeholder"}
    waits = [f"^{assign.name}" for assign in paths.values()]
    for node in graph_def.node:
        if node.op == "ReadVariableOp" and node.input[0] in paths:
            node.op, node.input[:] = "Identity", [paths[node.input[0]].input[1]]
            node.attr["T"].CopyFrom(node.attr.pop("dtype"))
        node.input[:] = [name for name in node.input if name not in waits]


def _leave_out_unused_functions(graph_def):
    """Keeps the functions that the graph calls; the library still has those that read, save and restore variables."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    called, nodes = {}, list(graph_def.node)
    while nodes:
        for value in nodes.pop().attr.values():
            for name in (value.func.name, *(func.name for func in value.list.func)):
                if name in functions and name not in called:
                    called[name] = functions[name]
                    nodes += functions[name].node_def
    library = type(graph_def.library)(function=[called[name] for name in sorted(called)])
    graph_def.library.CopyFrom(library)


def _check(graph_def):
    """ValueError if an endpoint uses a variable otherwise than by its value."""
    for function in graph_def.library.function:
        for node in function.node_def:
            if node.op.startswith(("Assign", "Resource")):
                raise ValueError(
                    f"export: an endpoint writes or looks up a variable in place ({node.op}), where no constant can "
                    "stand: read it whole by tf.convert_to_tensor, or export with frozen=False"
                )


@contextlib.contextmanager
def _quiet():
    """Without TensorFlow's words that sessions and their tools are of version 1, as servers are."""
    logger, level = tf.get_logger(), tf.get_logger().level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
