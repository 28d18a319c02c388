"""An hour's events of mail, as one statement that makes them in the database.

Of a hundred messages 55 are sent (an event as they are queued, an attempt, a further one of the 12 % that are deferred)
and 45 come in. Domains have their share by Zipf's law with the exponent 1.3: ten of them have half of the mail.
"""

from __future__ import annotations

EVENTS_OF_A_MESSAGE = 1 + 0.55 * 1.12
_SKEW = 0.3

EVENTS_AN_HOUR = f"""
WITH drawn AS MATERIALIZED (
    SELECT
        %(hour)s + (i + random()) / %(messages)s * interval '1 hour' AS time,
        md5(%(hour)s::text || i) AS hash,
        random() < 0.55 AS outbound,
        floor(%(nodes)s * random() ^ 1.5)::int AS n,
        floor((1 - random() * (1 - %(domains)s ^ -{_SKEW})) ^ (-1 / {_SKEW}))::int AS rank,
        random() AS luck, random() AS size
    FROM generate_series(0, %(messages)s - 1) AS i
),
message AS MATERIALIZED (
    SELECT
        time, hash, outbound, luck, size,
        'node-' || lpad(n::text, 3, '0') AS node_id,
        'domain' || rank || '.example.com' AS domain,
        'customer' || n * 7 + floor(luck * 1e6)::int %% 7 || '.example.org' AS customer,
        'user' || floor(size * 5000)::int AS other_user, 'person' || floor(size * 1e7)::int %% 200 AS own_user,
        lpad(to_hex((extract(epoch FROM time) * 1000)::bigint), 12, '0') AS milliseconds
    FROM drawn
),
mail AS (
    INSERT INTO email_events (
        time, event_id, node_id, instance, event_name, direction, outcome, message_id, queue_id, from_user, from_domain,
        to_domain, to_domains, mta_node, client_ip, tls, size_bytes, recipients_accepted, recipients_refused,
        spam_score, spam_action, symbols, storage_status, attributes
    )
    SELECT
        time, (milliseconds || '7' || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid, node_id,
        node_id || CASE WHEN outbound THEN ':12080' ELSE ':25' END,
        CASE WHEN outbound THEN 'zonemta.message.queued' WHEN luck < 0.1 THEN 'haraka.message.rejected'
            ELSE 'haraka.message.accepted' END,
        CASE WHEN outbound THEN 'outbound' ELSE 'inbound' END,
        CASE WHEN outbound THEN 'queued' WHEN luck < 0.1 THEN 'rejected' ELSE 'accepted' END,
        '<' || hash || '@' || CASE WHEN outbound THEN customer ELSE domain END || '>',
        CASE WHEN outbound THEN substr(milliseconds, 2) || substr(hash, 1, 7)
            ELSE upper((substr(hash, 1, 20) || milliseconds)::uuid::text) || '.1' END,
        CASE WHEN outbound THEN own_user ELSE other_user END, CASE WHEN outbound THEN customer ELSE domain END,
        CASE WHEN outbound THEN domain ELSE customer END, ARRAY[CASE WHEN outbound THEN domain ELSE customer END],
        'mx' || substr(node_id, 6) || '.example.org', '192.0.2.' || floor(size * 250)::int,
        CASE WHEN luck < 0.9 THEN 'TLSv1.3' END, floor(exp(7 + size * 6))::bigint, 1, 0,
        CASE WHEN NOT outbound THEN round((luck * -20 + 17)::numeric, 2)::float8 END,
        CASE WHEN outbound THEN NULL WHEN luck < 0.1 THEN 'reject' WHEN luck < 0.2 THEN 'add header'
            WHEN luck < 0.3 THEN 'greylist' ELSE 'no action' END,
        CASE WHEN NOT outbound THEN jsonb_build_object('R_SPF_ALLOW', -0.2, 'DKIM_TRACE', 0, 'BAYES_HAM', luck) END,
        CASE WHEN NOT outbound AND luck >= 0.1 THEN 'stored' END,
        jsonb_build_object(
            'email.to.address', jsonb_build_array(CASE WHEN outbound THEN other_user || '@' || domain
                ELSE own_user || '@' || customer END),
            'tls.established', luck < 0.9, 'smtp.response.status_code', 250,
            'haraka.hello.name', 'mail.' || domain, 'rspamd.scan.time', round(size::numeric, 3)
        )
    FROM message
)
INSERT INTO delivery_events (
    time, event_id, node_id, instance, event_name, status, message_id, queue_id, zone, category, smtp_code,
    enhanced_code, response, mx, mx_ip, source_ip, attempt, duration, to_domain, attributes
)
SELECT
    at, (
        lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
        || '7' || substr(hash, 5 + number, 3) || '8' || substr(hash, 10 + number, 15)
    )::uuid, node_id, node_id || ':12080',
    CASE status WHEN 'delivered' THEN 'zonemta.delivery.accepted' ELSE 'zonemta.delivery.' || status END,
    status, '<' || hash || '@' || customer || '>', substr(milliseconds, 2) || substr(hash, 1, 7),
    CASE WHEN size < 0.3 THEN 'bulk' ELSE 'default' END,
    CASE status WHEN 'rejected' THEN (ARRAY['recipient', 'policy', 'spam'])[1 + floor(size * 3)]
        WHEN 'deferred' THEN (ARRAY['greylist', 'ratelimit'])[1 + floor(size * 2)] END,
    CASE status WHEN 'delivered' THEN 250 WHEN 'deferred' THEN 451 ELSE 550 END,
    CASE status WHEN 'delivered' THEN '2.0.0' WHEN 'deferred' THEN '4.7.1' ELSE '5.1.1' END,
    CASE status WHEN 'delivered' THEN '250 2.0.0 Ok: queued as ' || upper(substr(hash, 20, 11))
        WHEN 'deferred' THEN '451 4.7.1 Please try again later' ELSE '550 5.1.1 User unknown' END,
    'mx1.' || domain, '198.51.100.' || length(domain), '192.0.2.' || substr(node_id, 6)::int %% 8, number,
    round((0.05 + size * size * 8)::numeric, 3)::float8, domain,
    jsonb_build_object(
        'email.to.address', jsonb_build_array(other_user || '@' || domain),
        'email.from.address', own_user || '@' || customer,
        'zonemta.message.seq', '001', 'zonemta.interface', 'feeder', 'tls.cipher', 'TLS_AES_256_GCM_SHA384',
        'zonemta.return_path', own_user || '@' || customer
    )
FROM (
    SELECT
        message.*, number, time + (size + 600 * (number - 1)) * interval '1 second' AS at,
        CASE WHEN number < CASE WHEN luck < 0.12 THEN 2 ELSE 1 END THEN 'deferred'
            WHEN luck < 0.02 OR luck > 0.97 THEN 'rejected' ELSE 'delivered' END AS status
    FROM message CROSS JOIN LATERAL generate_series(1, CASE WHEN luck < 0.12 THEN 2 ELSE 1 END) AS number
    WHERE outbound
) AS attempt
""".encode()
