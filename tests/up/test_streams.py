"""Words for which a stream has no room or no reader: dropped, and no reason to end with another exit code."""

import os
import subprocess
import sys

import pytest

# More than the stream's buffer of 8 KiB, and something left in it at the end.
SAY = "from postel.streams import say\nfor number in range(300): say(f'{number} ' + 'word ' * 20)"


def speak(redirection: str, stderr: int = subprocess.PIPE, code: str = SAY) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", code]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=30, check=False)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_stream_that_takes_nothing_is_no_fault(redirection: str) -> None:
    spoken = speak(redirection)
    assert (spoken.returncode, spoken.stdout, spoken.stderr) == (0, "", "")


def test_a_reader_that_left_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert speak("", stderr=writing).returncode == 0
    os.close(writing)


def test_words_that_are_taken_all_come() -> None:
    assert speak("").stderr.count("word ") == 300 * 20
