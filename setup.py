"""`pip install .` installs; `.[parity]` adds the PyTorch reference, `.[test]` what tests need.

Upper bounds: the next version that may break an interface we use.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "jstyle/__init__.py").read_text(), re.M)[1]
README = ROOT / "README.md"

RUNTIME = [
    "jittor==1.3.11.0",
    "jittor-offline==0.0.7",  # oneDNN for Jittor's CPU operators, without a download
    "numpy>=1.24,<2",  # Jittor 1.3.11 is built against NumPy 1
    "pillow>=10",
    "tqdm>=4.60",
    "safetensors>=0.4",
    "transformers>=5,<6",  # the CLIP tokenizer only; works without PyTorch
    "huggingface_hub>=1,<3",
    "jsonargparse[signatures]>=4.40,<5",  # dataclasses and YAML files as a command line
    "pyyaml>=6",
    "matplotlib>=3.7",  # the plot of a training run's losses
    "tensorboardX>=2.6",  # its TensorBoard events, without TensorBoard or PyTorch
]
PARITY = [
    "torch==2.13.0",
    "diffusers>=0.35",
    "peft>=0.20",
    "transformers<5.24",  # 5.24 asks for peft 0.22, which is not published
]
TRAIN = ["scikit-image>=0.22"]  # their photographs train the shipped model
TUNE = ["optuna>=4,<6"]  # `jdreambooth contest tune`
RAY = ["ray>=2.9"]  # `jdreambooth contest run --engine ray`: several machines
TORCHMETRICS = "torchmetrics==1.8.2"  # what the score is compared with, in part by its inner steps
OPENCV = "opencv-python-headless>=4.8,<4.12"  # the histograms' reference; 4.12 wants NumPy 2
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "mypy>=1.13,<3",
    "scipy>=1.10",  # diffusers asks for it with its LMS sampler
    TORCHMETRICS,
    OPENCV,
    *PARITY,
    *RAY,
    *TUNE,
]

setup(
    name="jstyle",
    version=VERSION,
    description="Training-free style transfer with Stable Diffusion (StyleID), native on Jittor",
    long_description=README.read_text() if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.12",
    packages=find_packages(include=["jstyle", "jstyle.*", "jdreambooth", "jdreambooth.*"]),
    package_data={
        "jstyle": [
            f"models/**/*.{kind}" for kind in ("json", "txt", "safetensors", "png", "jpg", "md")
        ]
        + ["sd/*.cc", "sd/compiler/*", "sd/cuda_headers/**/*.h", "sd/cuda_headers/**/*.cuh"]
        + ["grids/grid.html", "score/*.txt"],
        "jdreambooth": ["contest/report.html"],
    },
    install_requires=RUNTIME,
    extras_require={
        "parity": PARITY,
        "train": TRAIN,
        "ray": RAY,
        "tune": TUNE,
        "test": TEST,
    },
    entry_points={
        "console_scripts": [
            "jstyle = jstyle.__main__:run",
            "jdreambooth = jdreambooth.__main__:run",
        ]
    },
)
