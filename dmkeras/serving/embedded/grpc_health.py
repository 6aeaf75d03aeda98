"""grpc.health.v1 tied to the models: what a probe hears is what a caller would meet.

Services are "" and TF Serving's two, which serve while every model has an available version, and each model.
"""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dmkeras.serving.errors import ServingError

SERVICES = {
    "",
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
}
POLL_SECONDS = 0.2
SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.ServingStatus.Value(name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)


class Health(health_pb2_grpc.HealthServicer):
    """Asks the models each time. Once `draining` is set nothing serves, and every `Watch` says so and ends."""

    def __init__(self, servables):
        self.draining = False
        self._servables = servables

    async def Check(self, request, context):  # noqa: N802 - the method's name in the protocol
        state = self._state(request.service)
        if state == UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(self, request, context):  # noqa: N802
        told = None
        while True:
            draining, state = self.draining, self._state(request.service)
            if state != told:
                await context.write(health_pb2.HealthCheckResponse(status=state))
                told = state
            if draining:
                return
            await asyncio.sleep(POLL_SECONDS)

    def _state(self, service):
        if service in SERVICES:
            serves = self._servables.ready()
        elif service in self._servables.names():
            serves = self._available(service)
        else:
            return UNKNOWN
        return SERVING if serves and not self.draining else NOT_SERVING

    def _available(self, model):
        try:
            return any(version.state == "AVAILABLE" for version in self._servables.status(model))
        except ServingError:  # a model that has had no version yet
            return False
