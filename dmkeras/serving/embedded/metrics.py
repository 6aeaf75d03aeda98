"""Prometheus metrics under TF Serving's names, units (microseconds) and buckets (servables/tensorflow/util.cc)."""

import prometheus_client

PREFIX = ":tensorflow:serving:"
PATH = "/monitoring/prometheus/metrics"
MICROSECONDS = [10 * 1.8**power for power in range(33)]  # up to about 20 minutes
ROWS = [2**power for power in range(15)]
UNKNOWN = ""  # the label of names that no model has, so that callers cannot make series without end


class Metrics:
    """The series of one server. `model` is the name of a model that is served, or None."""

    def __init__(self):
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        request = ["model_name", "API", "entrypoint"]
        self._count = self._counter("request_count", "Requests.", ["model_name", "status"])
        self._latency = self._histogram("request_latency", "Wall time of a request in microseconds.", request)
        self._runtime = self._histogram(
            "runtime_latency", "Wall time of the graph in microseconds.", ["model_name", "API", "runtime"]
        )
        self._rows = self._histogram("request_example_counts", "Rows of a request.", ["model"], ROWS)
        self._rows_total = self._counter("request_example_count_total", "Rows of all requests.", ["model"])
        self._warm_up = self._histogram(
            "model_warmup_latency", "Wall time of warming a version up in microseconds.", ["model_name", "status"]
        )
        self._load = self._histogram(
            "model_load_latency", "Wall time of loading a version in microseconds.", ["model_name"]
        )

    def request(self, model, api, entrypoint, status, seconds):
        """One request: `api` such as "Predict", `entrypoint` "REST" or "GRPC", `status` a gRPC status' name."""
        self._count.labels(model or UNKNOWN, status).inc()
        self._latency.labels(model or UNKNOWN, api, entrypoint).observe(1e6 * seconds)

    def runtime(self, model, api, seconds):
        """One run of a graph."""
        self._runtime.labels(model, api, "TF1").observe(1e6 * seconds)

    def examples(self, model, count):
        """The rows of one request."""
        self._rows.labels(model).observe(count)
        self._rows_total.labels(model).inc(count)

    def warm_up(self, model, seconds, status):
        """All warm-up records of one version."""
        self._warm_up.labels(model, status).observe(1e6 * seconds)

    def loaded(self, model, seconds):
        """One version loaded, warm-up included."""
        self._load.labels(model).observe(1e6 * seconds)

    def render(self):
        """The page that Prometheus reads, as bytes."""
        page = prometheus_client.generate_latest(self._registry)
        # the library ends every counter's name in _total; TF Serving's does not
        return page.replace(f"{PREFIX}request_count_total".encode(), f"{PREFIX}request_count".encode())

    def _counter(self, name, description, labels):
        return prometheus_client.Counter(PREFIX + name, description, labels, registry=self._registry)

    def _histogram(self, name, description, labels, buckets=MICROSECONDS):
        return prometheus_client.Histogram(PREFIX + name, description, labels, buckets=buckets, registry=self._registry)


prometheus_client.disable_created_metrics()
