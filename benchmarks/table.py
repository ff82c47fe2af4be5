"""Tables in Markdown from measured rows.

    python -m benchmarks.table benchmarks/results/full-cpu                    (prints it)
    python -m benchmarks.table benchmarks/results/full-cpu --into benchmarks/README.md   (into it)

In the file, the table goes between the lines `<!-- benchmarks:full-cpu -->` and
`<!-- /benchmarks -->`; the name is that of the results' folder. A figure without a file is not in
the table.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from statistics import median

from benchmarks import rows
from benchmarks.works import WORKS
from jstyle.sd.files import atomic_write

END = "<!-- /benchmarks -->"
HEAD = (
    "| work | JStyle, s | PyTorch, s | ratio | aim | spread | peak MiB | limit, s |",
    "|---|---|---|---|---|---|---|---|",
)


class TableError(ValueError):
    """Results that make no table; one line."""


def read(folder: Path) -> dict[str, rows.Row]:
    """The rows of a folder, in the order of the works. Raises TableError if there are none."""
    found = {name: rows.load(p) for name in WORKS if (p := folder / f"{name}.json").is_file()}
    if not found:
        raise TableError(f"{folder}: no results here; allowed names are {', '.join(WORKS)}.json")
    return found


def matrix_rate(found: dict[str, rows.Row]) -> float | None:
    """Operations per second of the faster side's matrix product; None if it was not measured."""
    row = found.get("matrix")
    if row is None:
        return None
    return max(row.flops / row.seconds(side) for side in row.sides())


def table(found: dict[str, rows.Row]) -> str:
    """Rows with both sides as a Markdown table, and a line on how they were measured."""
    rate = matrix_rate(found)
    lines = [*HEAD]
    for name, row in found.items():
        if name != "matrix" and row.ratios():
            lines.append(_line(name, row, rate))
    return "\n".join([*lines, "", _note(found, rate)])


def _line(name: str, row: rows.Row, rate: float | None) -> str:
    work, ratios = WORKS[name], row.ratios()
    limit = row.limit_seconds(rate) if rate and row.flops else None
    peak = f"{row.peak_mib('ours'):.0f} / {row.peak_mib('torch'):.0f}"
    peak_ratio = row.peak_mib("ours") / row.peak_mib("torch")
    aims = [] if work.limit is None else [f"{work.limit:.2f}"]
    if work.memory_limit is not None:
        aims.append(f"memory {work.memory_limit:.1f}")
        peak += f" = {peak_ratio:.2f}"
    spreads = " / ".join(f"{100 * row.spread(side):.0f} %" for side in ("ours", "torch"))
    cells = (
        work.told,
        figure(row.seconds("ours")),
        figure(row.seconds("torch")),
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        ", ".join(aims) or "-",
        spreads,
        peak,
        "-" if limit is None else figure(limit),
    )
    return "| " + " | ".join(cells) + " |"


def figure(seconds: float) -> str:
    """Three digits that count."""
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _note(found: dict[str, rows.Row], rate: float | None) -> str:
    row = next(row for name, row in found.items() if name != "matrix" or len(found) == 1)
    facts = row.facts
    versions = facts["versions"]
    used = ", ".join(
        f"{name} {versions[name]}" for name in ("jittor", "torch", "diffusers") if name in versions
    )
    dates = sorted({r.facts["date"][:10] for r in found.values()})
    turns = {len(r.of(side)) for r in found.values() for side in r.sides()}
    parts = [
        f"{facts['processor']}, {facts['threads']} threads, float32, {used}, {' to '.join(dates)}.",
        f"Medians of {'/'.join(map(str, sorted(turns)))} processes per side that took turns; the "
        "ratio is the median (and range) of the ratios within a turn, the spread (largest - "
        "smallest) / median of the times, peak memory the kernel's VmHWM (JStyle / PyTorch).",
    ]
    if rate:
        parts.append(
            f"Limit: counted operations at {rate / 1e9:.0f} GFLOP/s, the faster of the two "
            "measured matrix products."
        )
    return " ".join(parts)


def put_into(text: str, name: str, made: str) -> str:
    """`text` with the table between its marks. Raises TableError if it has none."""
    begin = f"<!-- benchmarks:{name} -->"
    pattern = re.compile(rf"({re.escape(begin)}\n).*?({re.escape(END)})", re.DOTALL)
    if not pattern.search(text):
        raise TableError(f"no lines {begin} and {END} to put the table between")
    return pattern.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="a folder such as benchmarks/results/full-cpu")
    parser.add_argument("--into", type=Path, help="a Markdown file with the two marks")
    args = parser.parse_args(argv)
    try:
        made = table(read(args.results))
        print(made)
        if args.into is not None:
            text = put_into(args.into.read_text(encoding="utf-8"), args.results.name, made)
            with atomic_write(args.into) as part:
                part.write_text(text, encoding="utf-8")
    except (TableError, OSError) as error:
        print(f"table: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
