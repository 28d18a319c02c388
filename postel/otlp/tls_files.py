"""The files of a sender's TLS: whom it trusts, and what it shows of itself. A renewed one is read without a restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from postel.errors import SettingsError

# Of each file when it was last changed, which file that was, and its size; None: it cannot be looked at.
Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Each PEM.

    Args:
        authorities: that are trusted; None: the usual ones.
        certificate: that is shown, and those of its issuers; None: none.
        key: of it; None: it is in the same file.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context of these.

        Raises:
            SettingsError: one cannot be read, or is none.
        """
        try:
            context = ssl.create_default_context(cafile=self.authorities)
        except OSError as error:  # ssl.SSLError is one
            raise _unusable("certificate", self.authorities, error) from error
        self.load_shown(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let connections that are made from now on have what is in the files now; authorities are added.

        Raises:
            SettingsError: as of :meth:`context`; what was there before stays.
        """
        if self.authorities:
            try:
                context.load_verify_locations(self.authorities)
            except OSError as error:
                raise _unusable("certificate", self.authorities, error) from error
        self.load_shown(context)

    def load_shown(self, context: ssl.SSLContext) -> None:
        """As :meth:`load_into`, of what is shown alone."""
        if self.certificate is None:
            if self.key is not None:
                raise SettingsError(f"[otlp] client_key: {self.key} is of no client_certificate; set that too")
            return
        try:
            # A key with a password would be asked for at the terminal; so it cannot be used.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            names = " and ".join(str(path) for path in (self.certificate, self.key) if path)
            raise _unusable("client_certificate", names, error) from error

    def stamp(self) -> Stamp:
        """What changes with any of the files."""
        return stamp_of(self.authorities, self.certificate, self.key)


def stamp_of(*files: Path | None) -> Stamp:
    """What changes with any of these."""
    return tuple(_stamp(path) for path in files if path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _unusable(key: str, what: object, error: Exception) -> SettingsError:
    return SettingsError(f"[otlp] {key}: {what} cannot be used: {error}")
