"""`python -m jstyle` and the script `jstyle`, as one process."""

from __future__ import annotations

from .sd import ending


def run() -> None:
    """Run the command line of this process, and end the process with its exit code."""
    ending.run_program("jstyle", "jstyle.cli")


if __name__ == "__main__":
    run()
