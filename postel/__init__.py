"""What the agent and the sink share: settings, errors, the signal declarations, the OTLP protocol, the commands."""

from importlib.metadata import version

__version__ = version("postel")
