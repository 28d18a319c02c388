"""All dashboards, in the order in which they are read."""

from tools.grafana.boards.deliverability import DELIVERABILITY
from tools.grafana.boards.hosts import HOSTS
from tools.grafana.boards.itself import POSTEL
from tools.grafana.boards.mailboxes import MAILBOXES
from tools.grafana.boards.overview import OVERVIEW
from tools.grafana.boards.queues import QUEUES
from tools.grafana.boards.spam import SPAM

BOARDS = (OVERVIEW, QUEUES, DELIVERABILITY, SPAM, MAILBOXES, HOSTS, POSTEL)
