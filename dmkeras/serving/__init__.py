"""From a trained model to a served answer.

    export       writes a version of a model as TF Serving wants it     exporting/   what it is made of
    Server       the embedded server, for notebooks and tests           embedded/
    Client       asks a server, over REST or gRPC                       client, rest_client, grpc_client, client_tensors
    cli          the command `dmkeras`                                  commands/
Beneath them:
    folders      names and versions on disk          runtime     one version, loaded; feeds checks, batching shares runs
    model_card   what a version says of itself       rest_json   the REST form of tensors, on json_arrays and json_text
    warm_up      requests replayed before it answers curl        shell lines that ask for a row
    errors       what reaches a caller: a code, a message; graph_errors puts what TensorFlow raises into such words
No TensorFlow is imported by `Client` of http://, `folders`, `model_card`, `curl`, `rest_json`, `feeds`, `errors` and
`commands`.
"""

import importlib

_HOME = {"Client": "client", "Server": "embedded.server", "ServingError": "errors"}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there is {', '.join(__all__)}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs {error.name}: pip install 'dmkeras[serve]'") from error
    globals()[name] = value
    return value
