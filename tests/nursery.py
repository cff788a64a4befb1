"""Commands of a user that begin at once: children of a process that has loaded the libraries (a fork server).

Half of the time of a short command is Python reading torch, scikit-learn and faiss. A child has them, and reads all
that is ours anew: it runs the module as `python -m` does, with its own folder, environment, streams and exit code.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

LIBRARIES = (
    "machine",  # first: it says how the threads that torch loads wait
    *("torch", "torchvision", "faiss", "sklearn.cluster", "sklearn.metrics", "scipy.stats", "scipy.ndimage", "pandas"),
    *("cv2", "PIL.Image", "matplotlib.figure", "matplotlib.backends.backend_agg", "jinja2", "tqdm"),
)
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(list(LIBRARIES))


def begin_child(
    arguments: Sequence[str], cwd: Path, environment: dict[str, str], said: Sequence[str] = (os.devnull, os.devnull)
) -> BaseProcess:
    """`python -m` with these arguments, or `python` with ("-c", program), begun.

    `said` are the files of its stdout and stderr, which may be one.
    """
    child = _server.Process(target=_be, args=(list(arguments), str(cwd), environment, list(said)))
    child.start()
    return child


def run_child(arguments: Sequence[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`python -m` with these arguments, what it said and how it ended."""
    with tempfile.TemporaryDirectory() as scratch:
        said = [Path(scratch) / name for name in ("stdout", "stderr")]
        child = begin_child(arguments, cwd, environment, [str(path) for path in said])
        child.join()
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in said)
    return subprocess.CompletedProcess(list(arguments), child.exitcode or 0, out, err)


def _be(arguments: list[str], cwd: str, environment: dict[str, str], said: list[str]) -> None:
    """In the child: become the command."""
    os.chdir(cwd)
    threads = environment.get("OMP_NUM_THREADS")
    if threads and threads != os.environ.get("OMP_NUM_THREADS"):  # which OpenMP has read before
        import torch

        torch.set_num_threads(int(threads))
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    streams = [
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in said),
    ]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    sys.path[:0] = [cwd, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = arguments
    code = 0
    try:
        if arguments[0] == "-c":
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # what the interpreter does at its end and a child of multiprocessing does not
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)
