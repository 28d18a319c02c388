"""The pages of one subject each: what of queues, deliverability, spam, mailboxes and hosts is drawn and listed."""

from __future__ import annotations

from dashboards.web import charts, listings
from dashboards.web.charts import Chart, Line
from dashboards.web.ranged import Section, Subject
from dashboards.web.tables import Field, Table

_MINUTE = 60
_NO_QUEUE = (
    "No figures of a queue in this time. `postel doctor` tells where Zone-MTA's API is looked for, and "
    "`[discovery] zone_mta_instances` names it."
)
_NO_EVENTS = (
    "No events of deliveries in this time. They come from Zone-MTA's plugin: `postel plugins install` puts it in, "
    "`postel doctor` tells what is missing."
)
_NO_RSPAMD = "No figures of Rspamd in this time. `postel doctor` tells where its controller is looked for."
_NO_INBOUND = (
    "No events of inbound mail in this time. They come from Haraka's plugin: `postel plugins install` puts it in, "
    "`postel doctor` tells what is missing."
)
_NO_WILDDUCK = (
    "No figures of WildDuck in this time. It is asked by its API: `postel doctor` tells where it is looked for, and "
    "whether `[discovery] wildduck_api_token` is missing."
)
_DAY = "of the last day of the range at most"

QUEUES = Subject(
    "/queues",
    "Queues",
    (
        Section(
            "Depth and age",
            _NO_QUEUE,
            (
                Chart(
                    "queued",
                    "Waiting for the first attempt",
                    "metrics_zonemta",
                    (Line("queue_size", "queued"),),
                    "recipients, by zone",
                    by="zone",
                ),
                Chart(
                    "deferred",
                    "Waiting for a further attempt",
                    "metrics_zonemta",
                    (Line("deferred_size", "deferred"),),
                    "recipients, by zone",
                    by="zone",
                ),
                Chart(
                    "oldest",
                    "Age of the oldest message",
                    "metrics_zonemta",
                    (Line("oldest_age", "oldest"),),
                    "by zone",
                    by="zone",
                    merge="max",
                ),
                charts.QUEUE,
                charts.ATTEMPTS,
                charts.ZONES,
            ),
            (
                Table(
                    "zones",
                    "Zones now",
                    "growth: how many more wait than when the range began",
                    (
                        Field("Zone"),
                        Field("Queued", "n"),
                        Field("Deferred", "n"),
                        Field("Oldest", "s"),
                        Field("Growth", "n"),
                        Field("Per hour", "n"),
                    ),
                    listings.zones,
                    wide=True,
                ),
            ),
        ),
        Section(
            "What is deferred now",
            "No recipient waits for a further attempt, by the events of three days.",
            tables=(
                Table(
                    "destinations",
                    "Deferred destinations",
                    "most recipients first, by the events of three days, whatever the range",
                    (
                        Field("Domain"),
                        Field("MX"),
                        Field("Category"),
                        Field("Recipients", "n"),
                        Field("Since"),
                        Field("Last attempt"),
                        Field("Last answer"),
                    ),
                    listings.waiting,
                    wide=True,
                ),
            ),
        ),
    ),
    3600,
    outbound=True,
)

_DELIVERED = (
    Field("Attempts", "n"),
    Field("Delivered", "%"),
    Field("Deferred", "%"),
    Field("Bounced", "%"),
    Field("Median wait", "s"),
    Field("95 % within", "s"),
    Field("Why not"),
)
_ANSWERED = (Field("Deferred", "n"), Field("Rejected", "n"))

DELIVERABILITY = Subject(
    "/deliverability",
    "Deliverability",
    (
        Section(
            "Attempts",
            _NO_QUEUE,
            (
                charts.ATTEMPTS,
                Chart(
                    "shares",
                    "Deferred and bounced of all attempts",
                    "metrics_zonemta",
                    (
                        Line("delivered_total", ""),
                        Line("unknown_total", ""),
                        Line("deferred_total", "deferred", "warn"),
                        Line("rejected_total", "bounced", "bad"),
                    ),
                    "zones together",
                    by="share",
                ),
                charts.ZONES,
            ),
        ),
        Section(
            "Destinations",
            _NO_EVENTS,
            tables=(
                Table(
                    "providers",
                    "Providers",
                    f"who runs the mail exchangers, by their registered domain; {_DAY}; a name leads to its events",
                    (Field("Provider"), *_DELIVERED),
                    listings.providers,
                    wide=True,
                ),
                Table(
                    "domains",
                    "Domains",
                    "bounced: of those that were delivered or given up; a name leads to its events",
                    (Field("Domain"), *_DELIVERED),
                    listings.domains,
                    wide=True,
                ),
            ),
        ),
        Section(
            "Answers",
            "Every attempt of this time was delivered, or there was none.",
            tables=(
                Table(
                    "categories",
                    "Categories",
                    "as Zone-MTA tells answers apart; a name leads to its events",
                    (Field("Category"), *_ANSWERED),
                    listings.categories,
                ),
                Table(
                    "codes",
                    "Enhanced status codes",
                    f"or reply codes where there are none; {_DAY}",
                    (Field("Code"), *_ANSWERED, Field("Categories")),
                    listings.codes,
                ),
            ),
        ),
    ),
    86400,
    outbound=True,
)

_SPAM = (
    Line("reject_total", "reject", "bad"),
    Line("soft_reject_total", "soft reject", ""),
    Line("rewrite_subject_total", "rewrite subject", ""),
    Line("add_header_total", "add header", "warn"),
)
_HAM = (Line("greylist_total", "greylist", "idle"), Line("no_action_total", "no action", "good"))

SPAM = Subject(
    "/spam",
    "Spam",
    (
        Section(
            "Rspamd",
            _NO_RSPAMD,
            (
                Chart(
                    "actions",
                    "Messages by action",
                    "metrics_rspamd",
                    (*reversed(_HAM), *reversed(_SPAM)),
                    "per minute",
                    style="bars",
                    by="total",
                    scale=_MINUTE,
                ),
                Chart(
                    "spam-share",
                    "Spam of what was scanned",
                    "metrics_rspamd",
                    (
                        *(Line(line.column, "spam", "bad") for line in _SPAM),
                        *(Line(line.column, "") for line in _HAM),
                    ),
                    "to be rejected, for good or for now, or marked",
                    by="share",
                ),
                Chart(
                    "scan", "How long a scan takes", "metrics_rspamd", (Line("scan_duration", "scan", "first"),), "mean"
                ),
            ),
        ),
        Section(
            "Inbound mail · Haraka",
            _NO_INBOUND,
            (
                Chart(
                    "inbound",
                    "Inbound mail",
                    "metrics_haraka",
                    (
                        Line("inbound_total", "came", "first"),
                        Line("rejected_count", "rejected", "bad"),
                        Line("spam_count", "spam", "warn"),
                    ),
                    "per minute",
                    by="total",
                    scale=_MINUTE,
                ),
                Chart(
                    "inbound-share",
                    "Spam and rejected of inbound mail",
                    "metrics_haraka",
                    (Line("rejected_count", "rejected", "bad"), Line("spam_count", "spam", "warn")),
                    "all nodes",
                    by="share",
                    whole="inbound_total",
                ),
            ),
            (
                Table(
                    "symbols",
                    "Symbols",
                    f"of messages, {_DAY}; a name leads to its events",
                    (Field("Symbol"), Field("Messages", "n"), Field("Mean score", "1"), Field("Rejected", "n")),
                    listings.symbols,
                ),
                Table(
                    "scores",
                    "Scores",
                    f"points that Rspamd gave messages; {_DAY}",
                    (Field("Score"), Field("Messages", "n"), Field("Share", "%"), Field("Rejected", "n")),
                    listings.scores,
                ),
                Table(
                    "senders",
                    "Rejected senders",
                    f"{_DAY}; a name leads to its events",
                    (Field("Sender"), Field("Rejected", "n")),
                    listings.rejected_senders,
                    wide=True,
                ),
            ),
        ),
    ),
    86400,
)

_USERS = (Field("User"), Field("Stored", "By"), Field("Quota", "By"), Field("Used", "%"), Field("As of"))


def _wildduck(key: str, title: str, hint: str, *lines: Line) -> Chart:
    return Chart(key, title, "metrics_wildduck", lines, hint)


MAILBOXES = Subject(
    "/mailboxes",
    "Mailboxes",
    (
        Section(
            "Users and storage · WildDuck",
            _NO_WILDDUCK,
            (
                _wildduck(
                    "users", "Users", "instances on one database say the same", Line("user_count", "users", "first")
                ),
                _wildduck(
                    "storage",
                    "Stored",
                    "by the users' quotas, and what these allow",
                    Line("storage_usage", "stored", "first"),
                    Line("storage_limit", "allowed", "second"),
                ),
                _wildduck(
                    "quota",
                    "Near and over quota",
                    "users",
                    Line("near_quota_count", "near", "warn"),
                    Line("over_quota_count", "over", "bad"),
                ),
                _wildduck(
                    "messages",
                    "Messages",
                    "in all mailboxes",
                    Line("message_count", "all", "first"),
                    Line("unseen_count", "unseen", "second"),
                ),
                _wildduck(
                    "connections",
                    "Open connections",
                    "by WildDuck's own metrics, where they are on",
                    Line("imap_connections", "IMAP", "first"),
                    Line("pop3_connections", "POP3", "second"),
                ),
                Chart(
                    "lmtp",
                    "Recipients by LMTP",
                    "metrics_wildduck",
                    (
                        Line("lmtp_accepted_total", "accepted", "good"),
                        Line("lmtp_rejected_total", "rejected", "bad"),
                        Line("lmtp_error_total", "failed", "warn"),
                    ),
                    "per minute",
                    style="bars",
                    by="total",
                    scale=_MINUTE,
                ),
            ),
        ),
        Section(
            "Users",
            "No user was told of within two days before the end of the range: WildDuck's API tells each once a day.",
            tables=(
                Table("nearest", "Nearest to their quota", "as last told of, once a day", _USERS, listings.nearest),
                Table("largest", "Largest", "as last told of, once a day", _USERS, listings.largest),
            ),
        ),
    ),
    86400,
)

HOSTS = Subject(
    "/hosts",
    "Hosts",
    (
        Section(
            "Nodes",
            "No node is known.",
            tables=(
                Table(
                    "nodes",
                    "Nodes",
                    "the newest figures of the range",
                    (
                        Field("Host"),
                        Field("Runs"),
                        Field("Last heard of"),
                        Field("CPU", "%"),
                        Field("Load", "1"),
                        Field("Memory", "%"),
                        Field("Fullest disk", "%"),
                        Field("Processes", "n"),
                    ),
                    listings.hosts,
                    wide=True,
                ),
            ),
        ),
        Section(
            "Over time",
            "No host figures in this time: is the agent running? `postel doctor` tells.",
            (
                *charts.HOST,
                Chart(
                    "memory-used",
                    "Memory used",
                    "metrics_system",
                    (Line("memory_used", "used", "first"),),
                    "what programs could not have",
                ),
                Chart(
                    "disk-used",
                    "Disk used",
                    "metrics_system",
                    (Line("disk_used", "used", "first"),),
                    "on the fullest file system",
                ),
            ),
        ),
    ),
    3600,
)

SUBJECTS = (QUEUES, DELIVERABILITY, SPAM, MAILBOXES, HOSTS)
"""In the order of the navigation."""
