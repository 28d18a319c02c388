"""``python3 -m tools.bootstrap STEP...``: runs the steps in order and stops at the first that fails."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said before an import fails on it
    sys.exit("Postel needs Python 3.11 or later, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])  # noqa: UP031

import argparse
import subprocess
from collections.abc import Callable

from tools.bootstrap import environment, system
from tools.bootstrap.console import CHECKOUT, SetupError, heed_signals


def _collector(*options: str) -> None:
    # In the environment, not in the system's Python: it asks postel.collector where the result belongs.
    command = [str(environment.PYTHON), "-m", "tools.bootstrap.collector", *options]
    with subprocess.Popen(command, cwd=CHECKOUT) as process:
        try:
            code = process.wait()
        except BaseException:
            # It ends what it runs itself.
            process.terminate()
            raise
    if code:
        raise SetupError(f"the Collector's build ended with exit code {code}")


STEPS: dict[str, tuple[str, Callable[[], None]]] = {
    "runtime": ("the Python environment that runs Postel", lambda: environment.ensure("runtime")),
    "dev": ("the Python environment that also tests it", lambda: environment.ensure("dev")),
    "collector": ("the OpenTelemetry Collector, unless it failed lately", _collector),
    "collector-again": ("the same, whatever happened lately", lambda: _collector("--retry")),
    "system": ("the distribution's programs that the tests run", system.ensure),
    "lock": ("requirements/*.txt from pyproject.toml", environment.lock),
}


def main() -> int:
    """Run the steps that the command line names.

    Returns:
        The exit code: 1 when a step failed.
    """
    parser = argparse.ArgumentParser(
        prog="python3 -m tools.bootstrap",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<16} {meaning}" for name, (meaning, _) in STEPS.items()),
    )
    parser.add_argument("steps", nargs="+", choices=STEPS, metavar="STEP")
    heed_signals()
    for name in parser.parse_args().steps:
        try:
            STEPS[name][1]()
        except SetupError as error:
            print(error.output, f"set-up: {error}", sep="\n", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
