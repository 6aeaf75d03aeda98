"""Batching: concurrent callers of a signature share one run, by TF Serving's own batching library (`BatchFunction`).

The parameters are TF Serving's BatchingParameters (session_bundle_config.proto of tensorflow/serving).
"""

import logging
import os
import typing

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from dmkeras.serving.errors import RequestError
from dmkeras.serving.feeds import is_batch_first

FILE = "batching_params.pbtxt"
CALLS = ("StatefulPartitionedCall", "PartitionedCall")
log = logging.getLogger("dmkeras.serving")


class Batching(typing.NamedTuple):
    """How rows of several callers are gathered. Batches are padded to one of `sizes`; none given: 1, 2, 4, ..., max."""

    max_batch_size: int = 32
    timeout_micros: int = 1000
    max_enqueued: int = 100
    threads: int = os.cpu_count() or 1
    sizes: tuple = ()

    def allowed(self):
        """The sizes that batches have, rising, the last of them max_batch_size."""
        if self.sizes:
            return self.sizes
        powers = [2**power for power in range(self.max_batch_size.bit_length())]
        return (*(size for size in powers if size < self.max_batch_size), self.max_batch_size)

    def check(self, rows):
        """RequestError for a request of more rows than a batch may have."""
        if rows > self.max_batch_size:
            raise RequestError(f"Task size {rows} is larger than maximum input batch size {self.max_batch_size}")


def parse(text):
    """The text of a BatchingParameters proto as a `Batching`; RequestError for what is none or cannot be."""
    try:
        parameters = text_format.Parse(text, _message_class()())
    except text_format.ParseError as error:
        raise RequestError(f"batching parameters: {error}") from None
    fields = {
        "max_batch_size": "max_batch_size",
        "timeout_micros": "batch_timeout_micros",
        "max_enqueued": "max_enqueued_batches",
        "threads": "num_batch_threads",
    }
    given = {name: getattr(parameters, field).value for name, field in fields.items() if parameters.HasField(field)}
    batching = Batching(**given, sizes=tuple(parameters.allowed_batch_sizes))
    for name, field in fields.items():
        least = 0 if name == "timeout_micros" else 1
        if getattr(batching, name) < least:
            raise RequestError(f"{field} is {getattr(batching, name)}, expected {least} or more")
    if batching.sizes and (batching.sizes[0] < 1 or list(batching.sizes) != sorted(set(batching.sizes))):
        raise RequestError(f"allowed_batch_sizes are {list(batching.sizes)}, expected rising numbers from 1")
    if batching.sizes and batching.sizes[-1] != batching.max_batch_size:
        raise RequestError(
            f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {batching.sizes[-1]}; "
            f"expected {batching.max_batch_size}"
        )
    return batching


def shared(batching, name, inputs, outputs, feeds, fetches):
    """The fetches of a signature behind a batch op in the current graph; None where its callers cannot share a run.

    They can where the batch is dimension 0 of every tensor, no other side of an input is open (rows of two sizes would
    make each other fail), and the signature is one call of a function: every one that TensorFlow 2 exports is.
    """
    call = _call(feeds, fetches)
    if (
        call is None
        or not is_batch_first(inputs)
        or not is_batch_first(outputs)
        or any(None in tensor.shape[1:] for tensor in inputs)
    ):
        log.info("signature %s cannot be batched: each request runs alone", name)
        return None
    batched = tf.raw_ops.BatchFunction(
        in_tensors=call.inputs[: len(feeds)],
        captured_tensors=call.inputs[len(feeds) :],
        f=call.get_attr("f"),
        Tout=call.get_attr("Tout"),
        num_batch_threads=batching.threads,
        max_batch_size=batching.max_batch_size,
        batch_timeout_micros=batching.timeout_micros,
        allowed_batch_sizes=batching.allowed(),
        max_enqueued_batches=batching.max_enqueued,
        enable_large_batch_splitting=False,
        shared_name="batching",  # one pool of threads for all signatures of a session
        batching_queue=name,
    )
    return [batched[fetch.value_index] for fetch in fetches]


def _call(feeds, fetches):
    """The op that computes a signature, where it is one call of a function with the feeds as its first arguments."""
    calls = {fetch.op for fetch in fetches}
    call = calls.pop()
    if calls or call.type not in CALLS:
        return None
    first = {tensor.ref() for tensor in call.inputs[: len(feeds)]}
    return call if first == {feed.ref() for feed in feeds} else None


def _message_class():
    """BatchingParameters as a message; its .proto is in no package."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto", package="dmkeras", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    message = file.message_type.add(name="BatchingParameters")
    kinds = descriptor_pb2.FieldDescriptorProto
    wrapped = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, field in enumerate((*wrapped, "thread_pool_name"), 1):
        wrapper = "Int64Value" if field in wrapped else "StringValue"
        message.field.add(
            name=field, number=number, type=kinds.TYPE_MESSAGE, type_name=f".google.protobuf.{wrapper}", label=1
        )
    message.field.add(name="allowed_batch_sizes", number=6, type=kinds.TYPE_INT64, label=3)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kinds.TYPE_BOOL, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dmkeras.BatchingParameters"))
