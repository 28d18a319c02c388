"""The errors that Postel raises on purpose; their message is what the user reads.

    PostelError
    |-- SettingsError        a wrong key, type or file in postel.toml or the environment
    |-- DeclarationError     a metadata.yaml that contradicts itself or the schema
    |-- AddressInUseError    a port that another program holds
    |-- DatabaseError        the database is too old, or refuses what Postel needs
    |   `-- DatabaseAwayError   it does not answer now, and may later
    `-- postel.otlp.errors.OtlpError and its kinds

A message says what is wrong, where, and how to mend it. Anything else that reaches the user is a bug.
"""

from __future__ import annotations


class PostelError(Exception):
    """Base of every error that Postel raises on purpose."""


class SettingsError(PostelError):
    """A setting is unknown or has a wrong value; the message names file, key and accepted form."""


class DeclarationError(PostelError):
    """A metadata.yaml is wrong; the message names file, key and what is wrong."""


class DatabaseError(PostelError):
    """The database cannot be used; the message says why and what to do."""


class DatabaseAwayError(DatabaseError):
    """The database does not answer now: it is away, starting, stopping or full. Trying again later may help."""


class AddressInUseError(PostelError):
    """An address to listen on is taken.

    Args:
        address: ``host:port`` that was asked for.
        setting: the key that changes it, such as ``[sink] grpc_address``.
    """

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"{address} is in use by another program: end it, or set {setting} to a free address")
        self.address = address
        self.setting = setting
