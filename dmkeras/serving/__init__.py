"""From a trained model to a served answer.

`export` writes a version of a model as TF Serving wants it; `cli` is the command `dmkeras`; `Server` and `Client` are
for notebooks and tests. Beneath them:

    folders       names and versions on disk              runtime     one version, loaded
    graph_rules   what an endpoint may be                  rest_json   the REST form of tensors
    warm_up       requests replayed before it answers      pictures    files in, drawings out
    model_card    what a version says of itself            deploy      files for TF Serving on other machines
    comparison    served answers against local ones        precision   bfloat16 or float16 inside, float32 outside
    frozen        variables as constants                   classify_signature   tf.Examples in, class names out

`Client` of http://, `folders`, `model_card`, `rest_json`, `pictures` and the command's `show` and `config` import no
TensorFlow.
"""

import importlib

_HOME = {"Client": "client", "Server": "server", "ServingError": "errors"}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there is {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
