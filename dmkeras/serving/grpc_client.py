"""The client's side of gRPC, on tensorflow-serving-api's protos. It imports TensorFlow: loaded for `grpc://` alone."""

from dmkeras.serving.client import BusyError, other_host, unreachable, untrusted
from dmkeras.serving.errors import ServingError

try:
    import grpc
    from google.protobuf import json_format
    from tensorflow_serving.apis import get_model_metadata_pb2 as metadata_pb2
    from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
    from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    raise ImportError(f"grpc:// needs {error.name}: pip install 'dmkeras[serve]', or ask over http://") from error
import tensorflow as tf

OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # gRPC's own limit is 4 MB, one large picture
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
HINTS = {  # what gRPC says of a server that is none, or is one with or without TLS
    "http1.x server": "speaks no gRPC; is this the REST port? Then ask over http://",
    "ALPN": "speaks no gRPC; is this the REST port? Then ask over https://",
    "WRONG_VERSION_NUMBER": "speaks no TLS; ask over grpc://",
    "Socket closed": "closed the connection without an answer; is this the port of grpcs:// or https://?",
}
OTHER_HOST = "Hostname Verification Check failed"
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
PUSHBACK = "grpc-retry-pushback-ms"  # a server's word for: come again after so many milliseconds
BUSY = ("Server Threadpool Exhausted", "requests in flight")  # TF Serving's refusal beyond --grpc_max_threads, and ours


class Grpc:
    """Requests to one server, over one channel."""

    def __init__(self, parts, token, timeout, ca):
        self._url, self._timeout = f"{parts.scheme}://{parts.netloc}", timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token is not None else None
        if parts.scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials(_read(ca) if ca is not None else None)
            self._channel = grpc.secure_channel(parts.netloc, credentials, OPTIONS)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, OPTIONS)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def metadata(self, where):
        request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        _name(request.model_spec, where)
        response = self._call(self._prediction.GetModelMetadata, request)
        found = metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return {"metadata": {"signature_def": _json(found)}}

    def status(self, where):
        request = status_pb2.GetModelStatusRequest()
        _name(request.model_spec, where)
        return _json(self._call(self._models.GetModelStatus, request))

    def predict(self, where, signature, arrays):
        request = predict_pb2.PredictRequest()
        _name(request.model_spec, where)
        request.model_spec.signature_name = signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        return self._call(self._prediction.Predict, request)

    def arrays(self, answer, _):
        return {name: tf.make_ndarray(answer.outputs[name]) for name in sorted(answer.outputs)}

    def close(self):
        self._channel.close()

    def _call(self, method, request):
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            code, message = error.code().name, error.details()
            trailers = dict(error.trailing_metadata() or ())
            if code == "UNAVAILABLE" and UNTRUSTED in message:
                raise untrusted(self._url, message.partition(f"{UNTRUSTED}: ")[2].removesuffix(": OK")) from None
            if code == "UNAVAILABLE" and OTHER_HOST in message:
                raise other_host(self._url) from None
            if code == "UNAVAILABLE" and "failed to connect" in message.lower():
                for words, hint in HINTS.items():
                    if words in message:
                        raise ServingError(code, f"{self._url} {hint}") from None
                raise unreachable(self._url, message.partition("; last error: ")[2] or message) from None
            if PUSHBACK in trailers or any(words in message for words in BUSY):
                raise BusyError(code, message, _seconds(trailers.get(PUSHBACK))) from None
            raise ServingError(code, message) from None


def _seconds(milliseconds):
    return int(milliseconds) / 1000 if milliseconds and milliseconds.isdecimal() else None


def _name(spec, where):
    spec.name, version, label = where
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label


def _json(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ServingError("INVALID_ARGUMENT", f"`ca`: {path} cannot be read ({error.strerror})") from error
