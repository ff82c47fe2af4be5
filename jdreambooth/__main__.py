"""`python -m jdreambooth` and the script `jdreambooth`, as one process."""

from __future__ import annotations

from jstyle.sd import ending


def run() -> None:
    """Run the command line of this process, and end the process with its exit code."""
    ending.run_program("jdreambooth", "jdreambooth.cli")


if __name__ == "__main__":
    run()
