"""Dots and line: is the task solved, and does the large dot matter? `python -m explain dots`, its page and pictures."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from console import UserError, progress
from datasets import dots
from explain.dots.answers import CONDITIONS, LIMIT, MOVES, Measured, Share, measure
from explain.dots.figures import draw_examples, draw_measures, draw_moves
from explain.gallery.pages import PAGES, TEMPLATES
from explain.results import DOTS, default_results
from machine.device import use_device
from machine.files import refuse_links, write_atomic, write_csv
from runs import Run
from runs.figures import DPI
from supervised.evaluate import open_finished
from supervised.models import ClassNet
from supervised.trained import class_names, network


@dataclass(frozen=True)
class Group:
    """Runs that were trained on the same pictures with different seeds, and what was measured of each."""

    name: str  # of the data
    runs: list[Run]
    networks: list[ClassNet]
    measured: list[Measured]

    @property
    def is_solved(self) -> bool:
        """Whether each run answers fresh pictures."""
        return all(one.is_solved for one in self.measured)

    @property
    def is_robust(self) -> bool:
        """Whether each run does so whatever is done to the large dot."""
        return all(one.is_robust for one in self.measured)

    def right(self, name: str) -> list[Share]:
        """Of each run under one of CONDITIONS."""
        return [one.right[name] for one in self.measured]


def dots_command(options: argparse.Namespace) -> None:
    """`python -m explain dots`."""
    device = use_device(options.device)
    found = [_open(path) for path in [*options.run, *options.against]]
    parts = [part for part in (slice(len(options.run)), slice(len(options.run), None)) if found[part]]
    names = [_name(found[part]) for part in parts]
    if len({*names}) < len(names):
        raise UserError(f"--against {options.against[0]}: trained on {names[0]} like --run: give all of them to --run")
    scenes = dots.make_scenes(options.images, np.random.default_rng([options.seed, 0]))
    networks = [network(run).to(device) for run in found]
    measured = [
        measure(net, scenes, options.seed) for net in progress(networks, "asking", unit="networks", total=len(found))
    ]
    groups = [Group(name, found[part], networks[part], measured[part]) for name, part in zip(names, parts, strict=True)]
    folder: Path = (options.results or default_results(found[0].path)) / DOTS
    refuse_links(folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "answers.csv", _rows(groups))
    pictures = _draw(groups, scenes, folder)
    write_atomic(folder / "gallery.css", (TEMPLATES / "gallery.css").read_bytes(), durable=False)
    page = PAGES.get_template("dots.html").render(
        groups=[_told(group) for group in groups],
        conditions=CONDITIONS,
        parts=dots.PARTS,
        pictures=pictures,
        images=options.images,
        seed=options.seed,
        moves=MOVES,
        limit=LIMIT,
    )
    write_atomic(folder / "index.html", page.encode())
    for group in groups:
        for sentence in _sentences(group):
            print(sentence)
    print(f"Open {folder / 'index.html'} in a browser; the numbers are in {folder / 'answers.csv'}.")


def _open(path: Path) -> Run:
    """A finished supervised run on dots and line.

    Raises:
        UserError: if it is none, or sees images of another size.
    """
    run = open_finished(path)
    if class_names(run) != list(dots.CLASSES):
        raise UserError(
            f"{path}: trained on {run.meta.dataset.name}: name runs of `supervised train dots` or dots-spoilt"
        )
    if run.meta.view.size != dots.SIDE:
        raise UserError(f"{path}: sees {run.meta.view.size} pixels a side: train it with --size {dots.SIDE}")
    return run


def _name(found: Sequence[Run]) -> str:
    """Of the data that all these runs were trained on.

    Raises:
        UserError: if there are several.
    """
    name = found[0].meta.dataset.name
    for run in found[1:]:
        if run.meta.dataset.name != name:
            raise UserError(
                f"{run.path}: trained on {run.meta.dataset.name}, but {found[0].path} on {name}: "
                "separate them by --run and --against"
            )
    return name


def _rows(groups: Sequence[Group]) -> list[dict[str, object]]:
    """answers.csv: a row for each run and measure; shares with their 95 % interval."""
    rows: list[dict[str, object]] = []
    for group in groups:
        for run, one in zip(group.runs, group.measured, strict=True):
            known = {"run": run.path.resolve().name, "data": group.name, "seed": run.meta.seed}
            shares = {f"right: {name}": share for name, share in one.right.items()}
            shares |= {"changed by one move": one.changed, f"changed by any of {MOVES} moves": one.ever_changed}
            for name, share in shares.items():
                low, high = share.interval
                rows.append(
                    known
                    | {"measure": name, "value": f"{share.value:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}"}
                    | {"count": share.of}
                )
            for part, ratio in one.heat.items():
                rows.append(known | {"measure": f"heat over area: {part}", "value": f"{ratio:.3f}"})
            rows.append(known | {"measure": "maps that are empty", "value": one.empty})
    return rows


def _draw(groups: Sequence[Group], scenes: dots.Scenes, folder: Path) -> list[tuple[str, str]]:
    """Draw all pictures.

    Returns:
        (file, caption) of each.
    """
    pictures = []

    def add(name: str, figure: Figure, caption: str) -> None:
        write_atomic(folder / name, lambda file: figure.savefig(file, format="png", dpi=DPI), durable=False)
        pictures.append((name, caption))

    measured = {group.name: group.measured for group in groups}
    add(
        "measures.png",
        draw_measures(measured),
        "Bars: mean over the runs; points: each run. Left: share right when nothing but the large dot is changed. "
        "Right: Grad-CAM's heat for the network's own answer on a part, over the part's share of the picture; 1: heat "
        "that lies evenly.",
    )
    first = {group.name: group.networks[0] for group in groups}
    add(
        "moves.png",
        draw_moves(first),
        "A picture's line and small dot stay; the colour at a place is the answer when the large dot's centre lies "
        "there. White: there it would touch the small dot or leave the picture. One colour all over: it does not "
        "matter where the large dot is.",
    )
    for name, net in first.items():
        add(
            f"examples-{name}.png",
            draw_examples(net, scenes, name),
            f"{name}: each input with its true class, and Grad-CAM for each class with its logit before softmax; the "
            "answer is bold, red where it is wrong. The three maps of an input share one scale.",
        )
    return pictures


def _told(group: Group) -> dict[str, object]:
    """What the page says of a group."""
    return {
        "name": group.name,
        "own": f"{np.mean([run.read_json('result.json')['test_accuracy'] for run in group.runs]):.4f}",
        "runs": ", ".join(f"{run.path.resolve().name} (seed {run.meta.seed})" for run in group.runs),
        "sentences": _sentences(group),
        "right": {name: _in_words(group.right(name)) for name in CONDITIONS},
        "changed": _in_words([one.changed for one in group.measured]),
        "ever_changed": _in_words([one.ever_changed for one in group.measured]),
        "heat": {part: ", ".join(f"{one.heat[part]:.2f}" for one in group.measured) for part in dots.PARTS},
        "empty": sum(one.empty for one in group.measured),
    }


def _sentences(group: Group) -> list[str]:
    """The two answers, each a yes if it is one for every run."""
    first = next(iter(CONDITIONS))
    worst = min(CONDITIONS, key=lambda name: np.mean([share.value for share in group.right(name)]))
    who = f"{group.name} ({len(group.runs)} run{'s' if len(group.runs) > 1 else ''})"
    solved, robust = ("yes" if answer else "no" for answer in (group.is_solved, group.is_robust))
    changed = _in_words([one.changed for one in group.measured])
    return [
        f"{who}: solved on fresh pictures? {solved}: right for {_in_words(group.right(first))}",
        f"{who}: robust against the large dot? {robust}: at worst ({worst}) right for {_in_words(group.right(worst))}; "
        f"moving it alone changes {changed} of the answers",
    ]


def _in_words(shares: Sequence[Share]) -> str:
    """Mean over the runs, and from the lowest to the highest end of their intervals.

    The runs are asked about the same pictures, so their counts must not be added as if there were more of these.
    """
    low, high = min(share.interval[0] for share in shares), max(share.interval[1] for share in shares)
    return f"{np.mean([share.value for share in shares]):.4f} ({low:.4f} to {high:.4f})"
