"""The server's description of itself: OpenAPI 3.1 of what it answers for the models that are loaded."""

from dmkeras.serving import rest_json


def text(servables, *, secured=False):
    """The description as bytes."""
    return rest_json.dumps({"openapi": "3.1.0", "info": {"title": "dmkeras", "version": "1"}, "paths": {}})
