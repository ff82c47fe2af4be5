"""The one place that imports Jittor.  Everything else says `from .startup import jt`.

Jittor decides at import time on its device, its kernel cache and its oneDNN, and changes a number
of things of the process on the way. This file makes those decisions well and puts the changes back:

    before  CPU unless a driver and a toolkit that Jittor can use are both there; a stable name for
            the kernel cache (its default is the git branch around site-packages); no PyTorch; MPI
            only under mpirun.
    after   the random states of Python and NumPy, TLS verification, and the handlers of SIGINT
            and SIGCHLD are what they were; Jittor's own fatal errors are raised, not silenced;
            numbers too small for a float32's full precision are 0, from the start.

Only what the user has not set in the environment is set here.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import random
import signal
import ssl
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from . import compilers, cuda, ending, precompiled, toolchain
from .files import writable_folder
from .toolchain import cache_root

log = logging.getLogger("jstyle")

FLUSHED = 0x8040  # SSE's control register: results and operands that are denormal count as 0


class StartupError(RuntimeError):
    """Jittor cannot start here; the message names the cause and the mend."""


def prepare_environment() -> None:
    """Set the variables that Jittor reads at import. Raises StartupError if it cannot start."""
    env = os.environ
    env.setdefault("FIX_TORCH_ERROR", "0")
    if "nvcc_path" not in env:
        found = cuda.find_cuda()
        env["nvcc_path"] = found.nvcc if found.usable else ""
        if not found.usable and found.devices:
            mend = f"; mend: {found.mend}" if found.mend else ""
            log.warning("The GPU is left alone and the CPU used: %s%s", found.reason, mend)
        elif not found.usable and found.nvcc:
            log.info("CUDA is left alone: %s", found.reason)
    name = toolchain.CUDA_CACHE if env["nvcc_path"] else toolchain.CPU_CACHE
    env.setdefault("cache_name", name)
    env.setdefault("use_cutlass", "0")  # would be downloaded at import; nothing here uses it
    if toolchain.started_by_mpirun() and toolchain.mpi_problem():
        raise StartupError(toolchain.mpi_problem())
    _require_writable_cache()
    _require_compiler()
    if "cc_path" not in env and not env["nvcc_path"]:
        compiler = precompiled.stand_in(cache_root() / "jstyle")
        if compiler is not None:
            env["cc_path"] = str(compiler)
    if env.get("use_mkl", "1") == "1":
        onednn = toolchain.find_onednn(cache_root())
        if onednn.kind == "missing":
            env["use_mkl"] = "0"
            log.warning(
                "oneDNN 2.x was not found: convolutions run about 50 times and matrix products "
                "about 5 times slower. Mend: pip install jittor-offline==0.0.7"
            )
        elif onednn.kind == "system":
            toolchain.link_onednn(onednn, cache_root())


def _require_writable_cache() -> None:
    try:
        writable_folder(cache_root())
    except (OSError, ValueError) as error:
        raise StartupError(
            f"{error}; Jittor keeps its compiled kernels there; set HOME to a folder that can be "
            "written"
        ) from error


def _require_compiler() -> None:
    problem = toolchain.compiler_problem()
    if problem:
        raise StartupError(problem)


@contextlib.contextmanager
def _environment(**values: str):
    """Variables that are set during the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _import_jittor_utils():
    """Jittor's tools, without a lasting change: they write a JITTOR_HOME that is not the home into
    ~/.cache/jittor/config.json, and every later run of the user, of any program, goes there."""
    if "JITTOR_HOME" in os.environ or toolchain.remembered_home():
        with (
            tempfile.TemporaryDirectory() as nowhere,
            _environment(JITTOR_HOME=str(toolchain.jittor_home()), HOME=nowhere),
        ):
            import jittor_utils
    else:
        import jittor_utils
    return jittor_utils


def _put_back(handlers: dict) -> None:
    """Jittor's SIGINT handler exits without cleaning up, its SIGCHLD handler ends the process when
    any child is killed. Only the main thread may set handlers."""
    with contextlib.suppress(ValueError):
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        ending.take_signals()


@contextlib.contextmanager
def _process_state_kept():
    """Put back what importing Jittor changes in this process."""
    import numpy as np

    python_rng, numpy_rng = random.getstate(), np.random.get_state()
    https_context = ssl._create_default_https_context
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGCHLD)}
    for_import = {"log_silent": "1", "python_config_path": toolchain.python_config()}
    if not toolchain.started_by_mpirun():
        for_import["use_mpi"] = "0"  # would be compiled wherever mpicc is
    for_import = {name: value for name, value in for_import.items() if name not in os.environ}
    os.environ.update(for_import)
    jittor_utils = _import_jittor_utils()
    jittor_utils.run_cmds = partial(compilers.run_cmds, jittor_utils)
    load = jittor_utils.try_import_jit_utils_core

    def load_without_handlers(silent=None):
        if jittor_utils.cc is None:
            with ending.signals_wait():  # Jittor's own handlers would end the process at once
                load(silent)
                _put_back(handlers)  # the compilation that follows can take minutes

    jittor_utils.try_import_jit_utils_core = load_without_handlers
    try:
        yield
    finally:
        jittor_utils.try_import_jit_utils_core = load
        random.setstate(python_rng)
        np.random.set_state(numpy_rng)
        ssl._create_default_https_context = https_context
        for name in for_import:
            del os.environ[name]
        _put_back(handlers)


class _CompileBar:
    """Jittor's own progress goes to stdout, or nowhere when silent; this one to stderr."""

    def __init__(self, message: str, total: int):
        from tqdm import tqdm

        self.bar = tqdm(total=total, desc=message, unit="file", delay=2.0, file=sys.stderr)

    def update(self, index: int) -> None:
        self.bar.update(index + 1 - self.bar.n)
        if self.bar.n == self.bar.total:
            self.bar.close()


@contextlib.contextmanager
def _compiling_shown():
    """Show what Jittor compiles during the block as bars on stderr."""
    import jittor_utils

    before, jittor_utils.DelayProgress = jittor_utils.DelayProgress, _CompileBar
    try:
        yield
    finally:
        jittor_utils.DelayProgress = before


def _flush_denormals() -> None:
    """Make numbers below float32's normal range 0 in this thread and those that it starts.

    Loading one of Jittor's kernels does that to the thread that happens to load it, which depends
    on what was run before, and so would the last bytes of small numbers. glibc's fenv_t holds the
    SSE control register at byte 28.
    """
    if platform.machine() != "x86_64":
        return
    import numpy as np

    for kind in (np.float32, np.float64):
        np.finfo(kind)  # kept by NumPy; later it would warn that the smallest number is 0
    environment = ctypes.create_string_buffer(32)
    with contextlib.suppress(OSError):
        libm = ctypes.CDLL("libm.so.6")
        libm.fegetenv(environment)
        control = int.from_bytes(environment.raw[28:32], "little") | FLUSHED
        environment[28:32] = control.to_bytes(4, "little")  # type: ignore[call-overload]
        libm.fesetenv(environment)


def _import_jittor():
    if "jittor" in sys.modules:
        import jittor

        return jittor, 0.0
    prepare_environment()
    ending.watch()
    if not toolchain.is_compiled():
        log.warning(
            "First start of this installation: Jittor compiles its core, which takes two to five "
            "minutes. Later starts take a second."
        )
    started = time.perf_counter()
    with _process_state_kept():
        try:
            with _compiling_shown():
                import jittor
        except SystemExit as stop:  # Jittor ends with 0 when it renewed a core it had loaded
            raise StartupError(
                "Jittor compiled its core anew, because the compiler, its options or Python's "
                "headers have changed; run the command again"
            ) from stop
        except Exception as error:
            ending.stop_if_asked()
            # Whatever the toolchain did, the user needs one line
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise StartupError(
                f"Jittor could not start: {reason[0]}; see `jstyle doctor`"
            ) from error
    import jittor_utils

    if "log_silent" not in os.environ:
        # log_silent=1 turns Jittor's fatal Python errors into nothing; it was for the import
        jittor_utils.LOG.log_silent = 0
        jittor.flags.log_silent = 0
    ending.tell_crash()
    return jittor, time.perf_counter() - started


if TYPE_CHECKING:
    import jittor as jt

    import_seconds: float
else:
    jt, import_seconds = _import_jittor()
_flush_denormals()
