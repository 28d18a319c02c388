-- OTLP's flags of a point are 32 bits without a sign: an integer cannot hold the highest.

ALTER TABLE otel_metric_point ALTER COLUMN flags TYPE bigint;
