"""Errors that reach a caller: a gRPC status, its HTTP status, a message that names tensors and no graph nodes."""

HTTP = {  # TF Serving's mapping (model_servers/http_server.cc)
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}
INTERNAL = "internal error; the server's log has the details"  # all that a caller learns of a fault of ours


class ServingError(Exception):
    """A request that gets no answer. `code` names a gRPC status, `http` is the status of the same error over REST."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code

    @property
    def http(self):
        return HTTP.get(self.code, 500)


class RequestError(ServingError, ValueError):
    """A request that the signature cannot take: names the tensor, what came and what was expected."""

    def __init__(self, message):
        super().__init__("INVALID_ARGUMENT", message)


class TooLargeError(ServingError):
    """A request beyond a limit of the server."""

    http = 413

    def __init__(self, message):
        super().__init__("RESOURCE_EXHAUSTED", message)
