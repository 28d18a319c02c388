"""OTLP, once, for the sink's servers, the agent's intake and its sender.

    signal        METRICS and LOGS with their paths, services and messages
    errors        what can go wrong, the same on both ends
    codec         bytes <-> messages: gzip, limits, protobuf, JSON (`json_mapping`), wrong UTF-8 put right (`utf8`)
    answers       the table of answers: Outcome or exception -> gRPC status or HTTP response
    http_server   Starlette routes       grpc_server   a grpc.aio server
    handshakes    what the log says of connections over TLS that came to nothing
    client        senders over HTTP and gRPC that read every answer

Nothing is imported here: gRPC and Starlette cost memory that an agent without them does not spend.
"""

import os

# gRPC reads it when it is imported. By itself it writes a line to stderr for each handshake that fails, which whoever
# connects can make without end; `handshakes` tells of them instead. Errors are still written; who sets INFO hears all.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
