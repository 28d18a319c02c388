-- Who runs a mail exchanger: the registered domain of its host, by the public suffixes of the registries.
--
-- Companies are not known: one that receives under two domains is two providers. What has no registered domain, such as
-- an address or a name of one label, is its own. Many at a time: a subquery for each host takes twice as long.

CREATE OR REPLACE FUNCTION mail_providers(hosts text[])
RETURNS TABLE (host text, provider text)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH spelt AS MATERIALIZED (
        SELECT told.host, rtrim(lower(btrim(told.host)), '.') AS name
        FROM (SELECT DISTINCT unnest(hosts) AS host) AS told
        WHERE told.host IS NOT NULL
    ),
    split AS MATERIALIZED (
        SELECT
            spelt.host, name,
            -- Addresses, and what is no name, have none.
            CASE WHEN name ~ '^\[?[0-9.]+\]?$|:|(^|\.)(\.|$)' THEN '{}' ELSE string_to_array(name, '.') END AS labels
        FROM spelt
    ),
    tried AS MATERIALIZED (
        SELECT
            split.host, name, labels, cardinality(labels) - first + 1 AS count,
            (public_suffixes() ->> array_to_string(labels[first:], '.'))::int AS longer
        FROM split CROSS JOIN LATERAL generate_series(1, greatest(cardinality(labels), 1)) AS first
    ),
    found AS (
        SELECT
            tried.host, name, labels,
            -- How many labels the suffix has: by the longest name that is listed; a top-level domain is one. A wildcard's
            -- own name is a suffix too.
            coalesce(
                (max(ARRAY[count, least(count + longer, cardinality(labels))]) FILTER (WHERE longer IS NOT NULL))[2], 1
            ) AS suffix
        FROM tried
        GROUP BY tried.host, name, labels
    )
    SELECT
        found.host,
        CASE WHEN suffix < cardinality(labels)
            THEN array_to_string(labels[cardinality(labels) - suffix:], '.') ELSE name END
    FROM found
$$;
COMMENT ON FUNCTION mail_providers IS 'The registered domain of each of these hosts: who runs a mail exchanger';
