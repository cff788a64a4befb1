"""Command lines: argparse whose complaint is one sentence that names the right help and the nearest word."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from console import UserError, nearest

ROOT = Path(__file__).parent.parent
COMMIT = "COMMIT"  # in a copy without git: names the commit it was made from (scripts/make_colab_zip.sh writes it)
LONG_DASHES = ("\u2013", "\u2014", "\u2212")  # what a word processor makes of two hyphens
NUMBER = re.compile(r"-\d+$|-\d*\.\d+(e-?\d+)?$|-\d+e-?\d+$", re.IGNORECASE)

# What other programs call an option, and what it may be called here; the first that a command has is meant.
ELSEWHERE = {
    "clusters": ("--k",),
    "n-cluster": ("--k",),
    "num-clusters": ("--k",),
    "nclusters": ("--k",),
    "b": ("--batch",),
    "bs": ("--batch",),
    "gpu": ("--device",),
    "cuda": ("--device",),
    "cpu": ("--device",),
    "image-size": ("--size",),
    "input-size": ("--size",),
    "img": ("--size",),
    "learning-rate": ("--lr",),
    "model": ("--arch",),
    "network": ("--arch",),
    "backbone": ("--arch",),
    "threads": ("--workers",),
    "j": ("--workers",),
    "dir": ("--exp", "--out", "--results"),
    "o": ("--out", "--exp", "--results"),
    "output": ("--out", "--results", "--exp"),
    "output-dir": ("--out", "--results", "--exp"),
    "save-dir": ("--out", "--results", "--exp"),
    "name": ("--exp",),
    "max-images": ("--limit",),
    "n": ("--limit", "--per-cluster"),
    "method": ("--methods",),
    "cmap": ("--colours",),
    "colors": ("--colours",),
    "random-state": ("--seed",),
    "number": ("--count",),
    "pretrained": ("--weights",),
    "checkpoint": ("--init",),
}


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations; `passes_on`: leaves options that it does not know to its caller."""

    def __init__(self, *arguments: Any, passes_on: bool = False, **keywords: Any):
        super().__init__(*arguments, **({"allow_abbrev": False} | keywords))
        self._commands: Any = None
        self._passes_on = passes_on

    def commands(self) -> Any:
        """Where the commands of a program are added, one of which must be named; the program gets --version."""
        self.add_argument("--version", action=Version, help="print the version, and the commit if it is known")
        self._commands = self.add_subparsers(dest="command", required=True, parser_class=Parser)
        return self._commands

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's, but what is not known is refused before what is missing, and by the command it was said to."""
        words = sys.argv[1:] if args is None else list(args)
        if not self._passes_on:
            self._refuse_unknown(words)
        found, rest = super().parse_known_args(words, namespace)
        if rest and self._commands is None and not self._passes_on:
            self.error(f"{rest[0]!r} is one word too many: a name with spaces in it is put into quotes")
        return found, rest

    def error(self, message: str) -> NoReturn:
        missing = re.match(r"the following arguments are required: (.*)", message)
        if missing and missing[1] == "command":
            message = f"name a command: {', '.join(self._commands.choices)}"
        elif missing:
            message = f"{missing[1]} is missing"
        message = message.removeprefix("argument ").replace("expected one argument", "needs a value")
        what = "lists them" if self._commands is not None else "explains the options"
        raise UserError(f"{message} (`{self.prog} --help` {what})")

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """Refuse the first option that is none of ours, naming the nearest."""
        for word in words:
            if word == "--" or (self._commands is not None and not word.startswith("-")):
                return  # what follows is data, or a command's own
            if word.startswith(LONG_DASHES) and word.lstrip("".join(LONG_DASHES)).partition("=")[0] in self._bare():
                self.error(
                    f"{word}: begins with a long dash, as texts have it: type --{word.lstrip(''.join(LONG_DASHES))}"
                )
            if self._is_unknown(word):
                if self._commands is not None:
                    self.error(f"{word}: options follow the command ({', '.join(self._commands.choices)})")
                self.error(f"{word.partition('=')[0]}: no such option{self._suggest(word.partition('=')[0])}")

    def _is_unknown(self, word: str) -> bool:
        """Whether argparse would take a word for an option that it has not."""
        if not word.startswith("-") or len(word) == 1 or " " in word or NUMBER.match(word):
            return False
        known = self._option_string_actions
        return not (word.partition("=")[0] in known or (word[1] != "-" and word[:2] in known))

    def _suggest(self, option: str) -> str:
        """The option that was meant, as the end of a sentence."""
        offered = [
            name for action in self._actions if action.help != argparse.SUPPRESS for name in action.option_strings
        ]
        plain = option.strip("-").replace("_", "-").lower()
        for name in ELSEWHERE.get(plain, ()):
            if name in offered:
                return f": did you mean {name}?"
        bare = self._bare()
        return nearest(plain, bare, bare.__getitem__)

    def _bare(self) -> dict[str, str]:
        """The options that are offered, without their dashes."""
        offered = [
            name for action in self._actions if action.help != argparse.SUPPRESS for name in action.option_strings
        ]
        return {name.strip("-").replace("_", "-"): name for name in reversed(offered) if len(name) > 2}

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of the choices, naming the nearest."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        said = f"{value!r} is none of {', '.join(choices)}{nearest(str(value), choices)}"
        if self._commands is not action:
            raise argparse.ArgumentError(action, said)
        if os.path.exists(str(value)):
            said = f"{value!r} is no command: name one before it: {', '.join(choices)}"
        self.error(said.replace("is none of", "is no command; there are", 1))


class Version(argparse.Action):
    """Prints which version this is, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version_in_words())
        parser.exit()


def version_in_words(root: Path = ROOT) -> str:
    """Name, version and, where it is known, the commit of this checkout and whether files differ from it."""
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commit = commit_of(root)
    return f"{project['name']} {project['version']}" + (f" (commit {commit})" if commit else "")


def commit_of(root: Path) -> str:
    """The commit of a checkout, and whether files differ from it, or that which a copy notes; '': not known."""
    if (root / ".git").exists():
        try:
            git = ["git", "-C", str(root)]
            name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
            changes = subprocess.run(
                [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
            )
            return name.stdout.strip() + (", with changes" if changes.stdout.strip() else "")
        except (OSError, subprocess.CalledProcessError):  # no git here
            return ""
    try:
        return (root / COMMIT).read_text(encoding="utf-8").strip()[:80]
    except (OSError, UnicodeDecodeError):
        return ""
