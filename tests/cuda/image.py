"""An image as machines with a GPU have it today, on an emulated device: CUDA 13 and cuDNN 9.

The toolkit has nvcc and the runtime; the other libraries and their headers lie where PyTorch's
wheels put them, in a Python that the packages are not made for. Headers come from NVIDIA's wheels
(1.4 GB are fetched and thrown away, once), the libraries are those of `device/` under their names.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cuda import laboratory, make

NAMES = (
    *("libcuda.so", "libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"),
    *("libcurand.so.10", "libcufft.so.12", "libcusparse.so.12", "libcudnn.so.9", "libcutt.so"),
    *("libcudnn_ops.so.9", "libcudnn_cnn.so.9"),
)
DRIVER = ("libcuda.so", "libcuda.so.1")
OF_TOOLKIT = ("libcudart.so.13", make.DEVICE)
WITH_WHEELS = ("cublas", "curand", "cufft", "cusparse")
NVCC = """#!/bin/sh
case "$*" in --version) echo "Cuda compilation tools, release 13.0, V13.0.88"; exit;; esac
exec /usr/bin/python3 /usr/local/emulated/nvcc.py "$@"
"""
SITE = "python/site"  # becomes the site-packages of the machine's own Python


def headers(wheels: Path | None) -> Path:
    """A folder with CUDA 13's headers and the library of the device; made once."""
    toolkit = laboratory.folder() / "toolkit13"
    functions = toolkit / "functions.txt"
    (toolkit / "include").mkdir(parents=True, exist_ok=True)
    if not functions.is_file():
        names = make.fetch_headers(toolkit, wheels, make.WHEELS_13)
        functions.write_text("\n".join(sorted(names)))
    make.build_device(toolkit, NAMES)
    return toolkit


def build(folder: Path, wheels: Path | None = None) -> None:
    """The image's /usr/local in `folder`."""
    made = headers(wheels)
    cuda, site = folder / "cuda-13.0", folder / SITE / "nvidia"
    for place in (cuda / "bin", cuda / "lib64", site / "cu13/lib", site / "cudnn/lib"):
        place.mkdir(parents=True)
    for entry in sorted((made / "include").iterdir()):
        target = cuda / "include"
        if entry.name.startswith("cudnn"):
            target = site / "cudnn" / "include"
        elif entry.name.startswith(WITH_WHEELS):
            target = site / "cu13" / "include"
        copy(entry, target)
    driver = folder / "nvidia" / "lib64"
    driver.mkdir(parents=True)
    shutil.copy(made / "lib64" / make.DEVICE, cuda / "lib64")
    for name in set(NAMES) - {make.DEVICE}:
        place = cuda / "lib64" if name in OF_TOOLKIT else site / "cu13" / "lib"
        place = site / "cudnn" / "lib" if name.startswith("libcudnn") else place
        place = driver if name in DRIVER else place
        place = cuda / "lib64" if name == "libcutt.so" else place
        (place / name).symlink_to(f"/usr/local/cuda-13.0/lib64/{make.DEVICE}")
    (cuda / "bin" / "nvcc").write_text(NVCC)
    (cuda / "bin" / "nvcc").chmod(0o755)
    for name in ("nvcc.py", "include", "device"):
        copy(make.HERE / name, folder / "emulated")


def copy(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, folder / source.name)
    else:
        shutil.copy(source, folder)
