"""FILE.toml -> the experiments, each checked before any is run."""

import re
import tomllib
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from console import UserError

# Whose `build_parser` know the options; by name, since `runs` stands below them.
TRAINER, EXPLAINER = "deepcluster.__main__", "explain.__main__"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
WORDS = {"title": str, "about": str, "all": dict, "explain": dict, "run": list}
OURS = ("exp", "run", "results", "epoch", "assignments")  # options that the sheet itself gives


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
    `python -m deepcluster train --help` names it, without the dashes; true and false are flags. What `data` names
    is looked for beside the sheet first.

    Raises:
        UserError: naming the file and what is wrong.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: name a sheet of experiments (TOML)") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
    experiments = [_experiment(path, common | one) for one in listed]
    names = [one.name.casefold() for one in experiments]  # which become folders
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two experiments are called {twice!r}: give each a name of its own")
    for one in experiments:
        _check(path, f"run {one.name}", TRAINER, ["train", *one.words, "--exp", "exp"], one.settings)
    for where, command, settings in (("[explain]", "draw", explain), ("[explain.audit]", "audit", audit or {})):
        _check(path, where, EXPLAINER, [command, "--run", "exp", *to_words(settings)], settings)
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
    if not isinstance(data, str) or not data:
        raise UserError(f"{path}: run {name}: no data: write data = a folder, a zip, painted or mnist")
    beside = path.parent / Path(data).expanduser()
    if beside.exists():
        data = str(beside)
    return Experiment(name, data, {key.replace("_", "-"): value for key, value in settings.items()})


def _check(path: Path, where: str, module: str, words: list[str], settings: dict[str, Any]) -> None:
    """Refuse what a command would refuse, in its words, before anything is run."""
    ours = next((option for option in OURS if option in settings), None)
    if ours is not None:
        raise UserError(f"{path}: {where}: {ours}: the sheet says where its runs and results are: leave it out")
    if any(not isinstance(value, str | int | float | bool) for value in settings.values()):
        raise UserError(f"{path}: {where}: an option is a word, a number, true or false")
    try:
        import_module(module).build_parser().parse_args(words)
    except UserError as error:
        raise UserError(f"{path}: {where}: {error}") from None
