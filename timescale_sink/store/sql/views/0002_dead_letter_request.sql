-- Each dead letter as the OTLP/JSON request that brought it, alone in it: to be mended and sent to /v1/metrics or /v1/logs.
--
-- NULL for what the database itself refused, whose record is the row that it had become.

CREATE OR REPLACE VIEW dead_letter_request AS
SELECT
    letter.record_id, letter.received_at, letter.hour, letter.destination, letter.reason,
    CASE WHEN metric.part_id IS NOT NULL THEN
        jsonb_build_object('resourceMetrics', jsonb_build_array(
            resource.content || jsonb_build_object('scopeMetrics', jsonb_build_array(
                scope.content || jsonb_build_object('metrics', jsonb_build_array(
                    jsonb_set(metric.content, ARRAY[kind.name, 'dataPoints'], jsonb_build_array(letter.record))
                ))
            ))
        ))
    WHEN scope.part_id IS NOT NULL THEN
        jsonb_build_object('resourceLogs', jsonb_build_array(
            resource.content || jsonb_build_object('scopeLogs', jsonb_build_array(
                scope.content || jsonb_build_object('logRecords', jsonb_build_array(letter.record))
            ))
        ))
    END AS request
FROM dead_letter AS letter
LEFT JOIN dead_letter_part AS resource ON resource.part_id = letter.resource_id
LEFT JOIN dead_letter_part AS scope ON scope.part_id = letter.scope_id
LEFT JOIN dead_letter_part AS metric ON metric.part_id = letter.metric_id
LEFT JOIN LATERAL (
    SELECT found.name FROM jsonb_object_keys(metric.content) AS found (name)
    WHERE found.name IN ('gauge', 'sum', 'histogram', 'exponentialHistogram', 'summary')
) AS kind ON true;
