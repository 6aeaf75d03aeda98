"""From a trained model to a served answer.

`export` writes a version of a model as TF Serving wants it; `cli` is the command `dmkeras`. Beneath them:

    folders       names and versions on disk              runtime     one version, loaded
    graph_rules   what an endpoint may be                  rest_json   the REST form of tensors
    warm_up       requests replayed before it answers      pictures    files in, drawings out
    model_card    what a version says of itself

Only `export`, `graph_rules`, `warm_up` and `runtime` import TensorFlow.
"""
