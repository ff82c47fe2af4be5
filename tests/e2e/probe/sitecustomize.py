"""Lets a command write its Python stacks when SIGUSR1 comes, whatever it computes: Python imports
this at its start where the folder is on PYTHONPATH."""

import faulthandler
import os
import signal

FOLDER = os.environ.get("JSTYLE_SIGNALS_STACKS")
if FOLDER and os.path.isdir(FOLDER):
    _FILE = open(os.path.join(FOLDER, str(os.getpid())), "w")  # noqa: SIM115
    faulthandler.register(signal.SIGUSR1, _FILE, all_threads=False)
