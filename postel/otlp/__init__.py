"""OTLP, once, for the sink's servers, the agent's intake and its sender.

    signal        METRICS and LOGS with their paths, services and messages
    errors        what can go wrong, the same on both ends
    codec         bytes <-> messages: gzip, limits, protobuf, JSON (`json_mapping`), wrong UTF-8 put right (`utf8`)
    answers       the table of answers: Outcome or exception -> gRPC status or HTTP response
    http_server   Starlette routes       grpc_server   a grpc.aio server
    client        senders over HTTP and gRPC that read every answer

Nothing is imported here: gRPC and Starlette cost memory that an agent without them does not spend.
"""
