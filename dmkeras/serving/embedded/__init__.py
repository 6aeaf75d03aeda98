"""The embedded server: TF Serving's REST and gRPC contract in one Python process.

server       both ports, one gate, one set of models
servables    the models: version_manager loads and unloads, versions decides, loading warms up, model_config reads
inference    TF Serving's calls from proto to proto; tensors and examples fill them
grpc_server  the gRPC port, with grpc_calls and grpc_health
rest_server  the REST port: rest_app (limits, token, log), rest_api (routes), rest_examples, openapi, compression;
             rest_protocol and rest_listener for slow and departing callers
ports        what can be known of both before anything is loaded
limits       who may come in
metrics      for Prometheus
access_log   a line a request
"""
