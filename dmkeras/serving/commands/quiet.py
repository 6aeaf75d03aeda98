"""TensorFlow greets on stderr when it is imported, whatever its log level; a command line says what it has to say."""

import contextlib
import os


@contextlib.contextmanager
def silenced():
    """Nothing reaches stderr inside, from C++ either: for imports, and nothing that may have to be said."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def tensorflow():
    """Imports TensorFlow in silence, and lets it look for a GPU where there is no driver of one."""
    with silenced():
        import tensorflow

        if not os.path.exists("/dev/nvidiactl"):  # with a driver, what TensorFlow says of a GPU may matter
            tensorflow.config.list_physical_devices()


def runtime():
    """The module `dmkeras.serving.runtime`, imported in silence."""
    tensorflow()
    from dmkeras.serving import runtime

    return runtime
