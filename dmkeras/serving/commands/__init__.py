"""What `dmkeras` does: show, predict, serve, config (`deploy`, which writes `manifests`).

`rows` makes requests of a command line, `pictures` of files; `drawings` makes pictures of answers; `quiet` keeps
TensorFlow from greeting. None imports TensorFlow before it must.
"""
