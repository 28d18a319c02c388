"""OTLP's messages with their parts left as bytes, which protobuf reads without an object for each part. Pure.

A field of the type bytes is the same on the wire as one of a message. These are OTLP's messages with only those fields
that are wanted, read in C. A part may be written in any of protobuf's ways, unless protobuf itself wrote it
(`SerializeToString`); and it was checked only if the same bytes were decoded as OTLP before.

Sources: protobuf's "Encoding" (embedded messages); ``opentelemetry/proto/logs/v1/logs.proto``, ``metrics.proto``.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE = "postel.wire"
_MESSAGES: dict[str, dict[str, tuple[int, Any, Any]]] = {
    # A Gauge or a Sum.
    "Points": {
        "data_points": (1, FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_BYTES),
    },
    # An ExportLogsServiceRequest.
    "Logs": {
        "resource_logs": (1, FieldDescriptorProto.LABEL_REPEATED, "ResourceLogs"),
    },
    "ResourceLogs": {
        "scope_logs": (2, FieldDescriptorProto.LABEL_REPEATED, "ScopeLogs"),
    },
    "ScopeLogs": {
        "log_records": (2, FieldDescriptorProto.LABEL_REPEATED, "Record"),
    },
    "Record": {
        "time_unix_nano": (1, FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.TYPE_FIXED64),
        "attributes": (6, FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_BYTES),
        "event_name": (12, FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.TYPE_STRING),
    },
}


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="postel/wire.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, label, type_) in fields.items():
            made = message.field.add(name=field, number=number, label=label)
            if isinstance(type_, str):
                made.type, made.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{type_}"
            else:
                made.type = type_
    # A pool of its own: the default one is the process's.
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_CLASSES = _classes()
Points: Any = _CLASSES["Points"]
Logs: Any = _CLASSES["Logs"]
