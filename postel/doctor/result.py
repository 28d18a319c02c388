"""What a check of the doctor is, and the lines that it gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum

from postel.settings import Settings
from postel.streams import printable


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        text: what was seen.
        mend: what to do about it; '' where there is nothing to do.
    """

    verdict: Verdict
    subject: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        # What a server, a plugin or a file said is in it.
        line = printable(f"{self.verdict.value:<4}  {self.subject}: {self.text}")
        return f"{line}\n      mend: {printable(self.mend)}" if self.mend else line


Check = Callable[[Settings], AsyncIterator[Result]]
