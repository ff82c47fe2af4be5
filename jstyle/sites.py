"""Which attentions are meant by words such as "decoder:6-11". Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence


def resolve_sites(sites: str, valid: Sequence[str]) -> tuple[str, ...]:
    """Names of self-attentions for "all", "decoder:A-B", "decoder:A" or full names,
    comma-separated.

    valid: the model's names in execution order; the result keeps that order, without repeats.
    Decoder indices follow StyleID: the attentions of up_blocks.0, .1, ... are counted through,
    as many per block as the fullest has (three in SD 1.x and 2.x), whether or not a block has
    any; there 3-5 is up_blocks.1, 6-8 up_blocks.2, 9-11 up_blocks.3.
    Raises ValueError that lists the valid names.
    """
    numbered = decoder_indices(valid)
    chosen: set[str] = set()
    for item in sites.split(","):
        match = re.fullmatch(r"decoder:(\d+)(?:-(\d+))?", item)
        if match:
            lo = int(match[1])
            wanted = range(lo, int(match[2] or lo) + 1)
            names = [name for name, index in numbered.items() if index in wanted]
            known = len(wanted) > 0 and set(wanted) <= set(numbered.values())
        elif item == "all":
            names, known = list(valid), True
        else:
            names, known = [item], item in valid
        if not known:
            listing = "\n".join(
                f"  {name}" + (f" (decoder:{numbered[name]})" if name in numbered else "")
                for name in valid
            )
            raise ValueError(f"no attention site {item!r}; valid sites are\n{listing}")
        chosen.update(names)
    return tuple(name for name in valid if name in chosen)


def decoder_indices(valid: Sequence[str]) -> dict[str, int]:
    """{site name: StyleID's decoder index} for the sites of the up blocks."""
    found = {}
    for name in valid:
        match = re.match(r"up_blocks\.(\d+)\.attentions\.(\d+)\.", name)
        if match:
            found[name] = int(match[1]), int(match[2])
    per_block = 1 + max((j for _, j in found.values()), default=0)
    return {name: block * per_block + j for name, (block, j) in found.items()}
