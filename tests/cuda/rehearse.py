"""The check of a machine with a GPU, rehearsed without one:

    python -m tests.cuda.rehearse --out work/rehearsal [--other-python PREFIX] [--works ...]

An empty root is made and entered (`unshare`, `chroot`, no network): this system's /usr with its
compiler, none of its Python packages, and an image with CUDA 13 and cuDNN 9 on an emulated device
(`image.py`). Into it go the parts that `benchmarks.gpu.pack` writes and nothing else; there they
are unpacked, CUDA is made usable, Jittor compiles its core, and `benchmarks.cuda_check` runs to its
table, which --out gets. Needs to be root, or a kernel that lets users make namespaces.

--other-python: the prefix of a Python that the packages are not made for, which is then the
machine's own, so that the one that is carried has to be used.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu import pack
from benchmarks.gpu.plan import SMALL_WORKS
from tests.cuda import image

HIDDEN = "usr/lib/python3/dist-packages"  # of this system's Python
MOUNTS = """set -e
R={root}
mount --bind /usr $R/usr
mount --bind $R/image $R/usr/local
[ ! -d $R/{hidden} ] || mount --bind $R/empty $R/{hidden}
mount -t proc proc $R/proc
mount --rbind /dev $R/dev
{python}
exec chroot $R /usr/bin/env -i {variables} /bin/sh -ec {inside}
"""
PYTHON = "mkdir -p $R{prefix}; mount --bind {prefix} $R{prefix}"
INSIDE = """cd /root
[ -x gpu/run ] || python3 parts/unpack.py gpu --python {choice}
gpu/run -m benchmarks.cuda_check --out /root/results {words}
"""


def make_root(root: Path, parts: Path, wheels: Path | None) -> None:
    for name in ("usr", "proc", "dev", "tmp", "root", "etc", "empty", "root/results"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    shutil.copytree("/etc/alternatives", root / "etc/alternatives", symlinks=True)
    shutil.copy("/etc/ld.so.cache", root / "etc")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    shutil.copytree(parts, root / "root/parts")
    image.build(root / "image", wheels)
    (root / "image/python/bin").mkdir(parents=True)  # in PATH; its lib holds NVIDIA's wheels
    library = root / "image/python/lib/python3.12"
    library.mkdir(parents=True)
    (library / "site-packages").symlink_to("../../site")


def script(root: Path, args: argparse.Namespace) -> str:
    """What the shell does in namespaces of its own."""
    prefix = args.other_python
    bins = [f"{prefix}/bin"] if prefix else []
    bins += ["/usr/local/python/bin", "/usr/local/cuda-13.0/bin", "/usr/bin", "/bin"]
    variables = {
        "HOME": "/root",
        "PATH": ":".join(bins),
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",  # where containers get the driver
        "OMP_WAIT_POLICY": "passive",
        "STUB_POISON": "1",
        "STUB_SM": "90",
        # cuTT's own sources are compiled by the real nvcc only
        "cutt_include_path": "/usr/local/emulated/device",
        "cutt_lib_path": "/usr/local/cuda-13.0/lib64",
    }
    words = f"--seconds {args.seconds} --turn-seconds {args.seconds} --rounds 1"
    words += f" --small-px 64 --works {' '.join(args.works)}"
    inside = INSIDE.format(choice="auto" if prefix else "carried", words=words)
    return MOUNTS.format(
        root=shlex.quote(str(root)),
        hidden=HIDDEN,
        python=PYTHON.format(prefix=shlex.quote(str(prefix))) if prefix else ":",
        variables=" ".join(f"{k}={shlex.quote(v)}" for k, v in variables.items()),
        inside=shlex.quote(inside),
    )


def rehearse(args: argparse.Namespace, root: Path) -> int:
    begin = time.monotonic()
    if not root.exists():
        parts = args.parts
        if parts is None:
            parts = root.parent / "parts"
            pack.pack(parts, with_python=True)
        make_root(root, parts, args.wheels)
        print(f"the root is made: {time.monotonic() - begin:.0f} s", flush=True)
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    command += [] if os.getuid() == 0 else ["--map-root-user"]
    code = subprocess.call([*command, "sh", "-c", script(root, args)])
    shutil.copytree(root / "root/results", args.out, dirs_exist_ok=True)
    print(f"exit code {code} after {time.monotonic() - begin:.0f} s; results in {args.out}")
    return code


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.rehearse", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", type=Path, help="written by benchmarks.gpu.pack before")
    parser.add_argument("--wheels", type=Path, help="a folder that holds NVIDIA's wheels already")
    parser.add_argument("--other-python", type=Path)
    parser.add_argument("--root", type=Path, help="make the root here and keep it, or go on in it")
    parser.add_argument("--works", nargs="+", choices=SMALL_WORKS, default=SMALL_WORKS)
    parser.add_argument("--seconds", type=float, default=7200.0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.root:
        return rehearse(args, args.root.resolve())
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        return rehearse(args, Path(scratch).resolve() / "root")


if __name__ == "__main__":
    sys.exit(main())
