"""FILE.toml -> the experiments, each checked before any is run."""

import re
import tomllib
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from console import UserError
from machine.files import home_path
from machine.reading import open_regular

# Whose `build_parser` know the options; by name, since `runs` stands below them.
TRAINER, EXPLAINER = "deepcluster.__main__", "explain.__main__"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
FILES = (".html", ".csv", ".png")  # of the sheet's own, which lie beside the experiments' folders
WORDS = {"title": str, "about": str, "all": dict, "explain": dict, "run": list}
# Options that the sheet itself gives, or with which a command would not do all of its work.
OURS = ("exp", "run", "results", "epoch", "assignments", "help", "version", "dry-run", "shard")
# Options that name a file or folder, looked for beside the sheet first.
FILE_OPTIONS = ("exclude", "init", "edits", "table", "mnist-dir")
MOST = 1 << 20  # bytes of a sheet


@dataclass(frozen=True)
class Experiment:
    """One training."""

    name: str
    data: str
    settings: dict[str, Any]  # options of `deepcluster train`, as the sheet has them

    @property
    def words(self) -> list[str]:
        """DATA and options as `python -m deepcluster train` takes them."""
        return [self.data, *to_words(self.settings)]


@dataclass(frozen=True)
class Sheet:
    """A table of experiments."""

    file: Path
    title: str
    about: str
    experiments: list[Experiment]
    explain: dict[str, Any] = field(default_factory=dict)  # options of `explain draw`
    audit: dict[str, Any] | None = None  # options of `explain audit`; None: not audited


def read_sheet(path: Path) -> Sheet:
    """A sheet: `title`, `about`, [all] options of every training, [explain], perhaps [explain.audit], [[run]] each.

    Every [[run]] has a `name`; its `data` and options go before those of [all]. An option is named as
    `python -m deepcluster train --help` names it, without the dashes; true and false are flags. What `data` and
    FILE_OPTIONS name is looked for beside the sheet first.

    Raises:
        UserError: naming the file and what is wrong.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(MOST + 1)
        if len(raw) > MOST:
            raise ValueError(f"more than {MOST >> 20} MB")
        content = tomllib.loads(raw.decode("utf-8-sig"))  # an editor may have put a byte order mark there
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file: name a sheet of experiments (TOML)") from None
    except RecursionError:
        raise UserError(f"{path}: brackets in brackets without end: mend it") from None
    except (OSError, ValueError) as error:  # of which TOMLDecodeError is one, and a number of thousands of digits
        raise UserError(f"{path}: {str(error).splitlines()[0]}: mend it") from None
    for key, value in content.items():
        if key not in WORDS:
            raise UserError(f"{path}: {key}: unknown: a sheet has {', '.join(WORDS)}")
        if not isinstance(value, WORDS[key]):
            raise UserError(f"{path}: {key}: not a {'table' if WORDS[key] is dict else WORDS[key].__name__}: mend it")
    listed = content.get("run", [])
    if not listed or not all(isinstance(one, dict) for one in listed):
        raise UserError(f"{path}: no experiments: write [[run]] and below it name = ..., once for each")
    common, explain = content.get("all", {}), dict(content.get("explain", {}))
    audit = explain.pop("audit", None)
    if audit is not None and not isinstance(audit, dict):
        raise UserError(f"{path}: explain.audit: not a table: write [explain.audit], and below it its options if any")
    explain = _options(path, f"{path}: [explain]", explain)
    audit = None if audit is None else _options(path, f"{path}: [explain.audit]", audit)
    experiments = [_experiment(path, common | one) for one in listed]
    names = [one.name.casefold() for one in experiments]  # which become folders
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two experiments are called {twice!r}: give each a name of its own")
    for one in experiments:
        _check(f"{path}: run {one.name}", TRAINER, ["train", *one.words, "--exp", "exp"])
    for where, command, settings in (("[explain]", "draw", explain), ("[explain.audit]", "audit", audit or {})):
        _check(f"{path}: {where}", EXPLAINER, [command, "--run", "exp", *to_words(settings)])
    return Sheet(path, content.get("title", path.stem), content.get("about", ""), experiments, explain, audit)


def to_words(settings: dict[str, Any]) -> list[str]:
    """Options as the command line takes them."""
    words: list[str] = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name}")
        else:
            words += [f"--{name}", str(value)]
    return words


def _experiment(path: Path, settings: dict[str, Any]) -> Experiment:
    name, data = settings.pop("name", None), settings.pop("data", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{path}: [[run]] name = {name!r}: letters, digits, dots and dashes make a name, up to 40")
    where = f"{path}: run {name}"
    if name.casefold().endswith(FILES):
        raise UserError(f"{where}: is called as a file of the sheet might be: leave the ending out")
    if not isinstance(data, str) or not data:
        raise UserError(f"{where}: no data: write data = a folder, a zip, painted or mnist")
    if data.startswith("-") or "\0" in data:
        raise UserError(f"{where}: data = {data!r}: no folder's name, or write ./ before it")
    return Experiment(name, _beside(path, where, "data", data), _options(path, where, settings))


def _beside(path: Path, where: str, option: str, value: str) -> str:
    """A file or folder as the sheet at `path` names it: seen from the sheet, if it is there."""
    beside = path.parent / home_path(value)
    try:
        return str(beside) if beside.exists() else value
    except OSError as error:  # a name too long, a folder that may not be read
        raise UserError(f"{where}: {option}: {error.strerror}: name another") from None


def _options(path: Path, where: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Options of a table with their names as the command line has them, and files as seen from the sheet at `path`."""
    for key, value in settings.items():
        if not OPTION.fullmatch(key):
            raise UserError(f"{where}: {key!r}: not the name of an option")
        if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and "\0" in value):
            raise UserError(f"{where}: {key}: an option is a word, a number, true or false")
        if key.replace("_", "-") in OURS:
            raise UserError(f"{where}: {key}: the sheet says where all goes, and does all of it: leave it out")
    options = {key.replace("_", "-"): value for key, value in settings.items()}
    files = {name: _beside(path, where, name, str(options[name])) for name in FILE_OPTIONS if name in options}
    return options | files


def _check(where: str, module: str, words: list[str]) -> None:
    """Refuse what a command would refuse, in its words, before anything is run."""
    try:
        import_module(module).build_parser().parse_args(words)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
