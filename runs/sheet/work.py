"""Run the experiments of a sheet: train, explain, audit each, in processes of their own that continue themselves."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from console import UserError, bar_settings, disk_sentence
from machine.files import write_json
from machine.reading import Damaged, read_json
from runs.sheet.plan import Experiment, Sheet, to_words

EXP, RESULTS, FEATURES = "exp", "results", "features.npz"  # in an experiment's folder
SAID, DONE = "log.txt", "finished.json"


class Running:
    """The processes of a sheet: after `stop` no more are started."""

    def __init__(self) -> None:
        self._lock, self._stopped = threading.Lock(), False
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(self, words: list[str], **settings: Any) -> int:
        """Start a process and wait for its end; its exit code, that of an interrupted one where all were stopped."""
        with self._lock:
            if self._stopped:
                return -signal.SIGINT
            process = subprocess.Popen(words, **settings)
            self._processes.add(process)
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
        return code

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.send_signal(signal.SIGINT)  # each keeps what it has finished


def run_all(sheet: Sheet, folder: Path, jobs: int) -> dict[str, str]:
    """Every experiment that is not finished, `jobs` at a time; what failed, and the sentence it ended with."""
    failed: dict[str, str] = {}
    running = Running()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a batch system: as Ctrl-C
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(sheet.experiments), desc="experiments", unit=" experiments", **bar_settings()) as bar,
    ):
        futures = {pool.submit(_run, sheet, one, folder / one.name, jobs, running): one for one in sheet.experiments}
        try:
            for future in as_completed(futures):
                sentence = future.result()
                if sentence is not None:
                    failed[futures[future].name] = sentence
                bar.update()
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            running.stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    return {one.name: failed[one.name] for one in sheet.experiments if one.name in failed}


def steps(sheet: Sheet, one: Experiment, home: Path) -> list[list[str]]:
    """The commands of an experiment, in turn."""
    where = ["--run", str(home / EXP), "--results", str(home / RESULTS)]
    commands = [
        ["deepcluster", "train", *one.words, "--exp", str(home / EXP)],
        ["deepcluster", "features", "--run", str(home / EXP), "--out", str(home / FEATURES)],
        ["explain", "draw", *where, *to_words(sheet.explain)],
    ]
    if sheet.audit is not None:
        commands.append(["explain", "audit", *where, *to_words(sheet.audit)])
    return commands


def _run(sheet: Sheet, one: Experiment, home: Path, jobs: int, running: Running) -> str | None:
    """Do an experiment; the sentence of its failure, None where it went well."""
    try:
        return _do(sheet, one, home, jobs, running)
    except FileExistsError:
        return f"{home}: a file is in the way: move it away"
    except (UserError, OSError) as error:  # a full disk, say: the others are run all the same
        return (disk_sentence(error) if isinstance(error, OSError) else None) or str(error)


def _do(sheet: Sheet, one: Experiment, home: Path, jobs: int, running: Running) -> str | None:
    home.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    commands = steps(sheet, one, home)
    if _done(home) == commands:
        return None
    (home / SAID).unlink(missing_ok=True)  # what an earlier attempt said is over; a link's target is left alone
    for command in commands:
        with (home / SAID).open("ab") as log:
            words = [sys.executable, "-m", *command]
            code = running.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        if code:
            return last_sentence(home / SAID, code)
    write_json(home / DONE, commands)
    return None


def _done(home: Path) -> object:
    """The commands after which an experiment was finished; None where it is not, or what they left is gone."""
    if not (home / EXP / "run.json").exists() or finished_epoch(home) is None:
        return None
    try:
        return read_json(home / DONE, "")
    except (FileNotFoundError, Damaged):
        return None


def last_sentence(path: Path, code: int) -> str:
    """What a command that failed said last."""
    lines = path.read_text("utf-8", "replace").replace("\r", "\n").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"ended with {code}, see {path}"


def finished_epoch(home: Path) -> int | None:
    """The epoch that an experiment's results explain; None where there are none."""
    names = [path.parent.name for path in (home / RESULTS).glob("*/explanations.csv")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def audit_of(home: Path, epoch: int) -> dict[str, list[str]]:
    """Title of each part of the audit -> its sentences; {} where there was none."""
    path = home / RESULTS / str(epoch) / "audit" / "said.json"
    try:
        found = read_json(path, "")
        return {str(title): [str(one) for one in said] for title, said in found["parts"].items()}
    except (FileNotFoundError, Damaged, KeyError, TypeError, AttributeError):
        return {}
