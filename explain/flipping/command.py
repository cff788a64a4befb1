"""One call of `python -m explain pixelflip`: the study of each run, their votes, tables, pictures and a page."""

import argparse
import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_hex
from tqdm import tqdm

import runs
from console import UserError, bar_settings, progress
from datasets.folder import refuse_inside
from datasets.view import COLOURLESS
from explain.attribution import PHOTOGRAPH
from explain.attribution import Asked as Method
from explain.flipping import figures
from explain.flipping.agreement import HEAD, Agreement, Maps, can_read, compare_maps
from explain.flipping.findings import STUDY, STUDY_NAME, Finding, Study, list_findings, vote_studies
from explain.flipping.nets import (
    TOLERANCE,
    Asked,
    Net,
    Where,
    check_alike,
    flips_of,
    make_screen,
    measure_error,
    open_asked,
    open_net,
)
from explain.flipping.study import run_study
from explain.gallery.pages import PAGES
from explain.results import default_results
from machine.device import use_device
from machine.files import locked, refuse_links, write_atomic, write_csv, write_json
from runs import Run
from supervised.evaluate import is_finished, read_result

SHEETS = "sheets"  # in a network's folder: all changed images
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def pixelflip_command(options: argparse.Namespace) -> None:
    """`python -m explain pixelflip`."""
    found = [runs.open_run(path) for path in [options.run, *options.against]]
    if len(found) > len(LETTERS):
        raise UserError(f"--against: {len(found)} runs are too many: name up to {len(LETTERS)}")
    check_alike(found)
    device = use_device(options.device, found[0].meta.stamp.threads)
    nets = [open_net(run, letter, options.patch, device) for run, letter in zip(found, LETTERS, strict=False)]
    split = options.split or "train"
    if options.split is not None and found[0].meta.kind != "supervised":
        raise UserError(
            f"--split: {found[0].path} is a {found[0].meta.kind} run, whose images are one set: leave it out"
        )
    results = options.results or default_results(options.run)
    refuse_inside(results, options.data or found[0].meta.dataset.source, "--results")
    methods = [one for one in options.methods or () if one.name != PHOTOGRAPH]
    for one in methods:
        if one.method.check is not None:
            one.method.check(found[0].meta.view.size, **one.options)
    readable = [[one for one in methods if can_read(net, one)] for net in nets]
    where = Where(split, options.limit, options.data, device, options.workers, options.mnist_dir)
    asked, right = open_asked(found[0], nets[0].epoch, where)
    rights = [right] + [
        right if asked.names is not None else open_asked(net.run, net.epoch, where)[1] for net in nets[1:]
    ]
    grid = flips_of(asked, options.patch)
    folder = results / "pixelflip" / folder_name(asked, split, options)
    refuse_links(results)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "another pixelflip is writing here: wait for it or choose --results"):
        studies = [
            study_net(net, asked, right, grid, options.patch, folder) for net, right in zip(nets, rights, strict=True)
        ]
        votes = vote_studies(studies, precisions(found)) if len(studies) > 2 and asked.names is not None else []
        report = Report(nets, asked, studies, votes, options.patch, folder)
        if methods:
            report.compare(readable)
        report.write()
    report.tell()
    print(f"Open {folder / 'index.html'} in a browser.")


def folder_name(asked: Asked, split: str, options: argparse.Namespace) -> str:
    """What is studied, for a folder of its own: train, test-500, images-8px."""
    name = split if asked.names is not None else "images"
    return name + (f"-{options.patch}px" if options.patch > 1 else "") + (f"-{options.limit}" if options.limit else "")


def study_net(net: Net, asked: Asked, right: np.ndarray, grid: tuple[int, int], patch: int, folder: Path) -> Study:
    """The flips of one network, from what is there or made now; its folder is named by what it holds."""
    own = net_folder(net, folder)
    own.mkdir(exist_ok=True)
    if not (own / "flips.npz").exists():
        error = measure_error(net, asked, patch)
        if error is not None and not error < TOLERANCE:  # nor NaN
            print(f"{net.title}: the fast way is off by {error:.1e}: each flipped image is computed as a whole")
            net = replace(net, fast=None)
        net = replace(net, screen=make_screen(net, asked))
    settings = {"desc": net.title, "unit": " images", "delay": 1, "leave": False}
    with tqdm(total=len(asked.ids), **settings, **bar_settings()) as bar:
        changes = run_study(net, asked, patch, int(np.prod(grid)), own, bar)
    if len(changes.answers) != len(right):
        raise UserError(f"{own}: holds the flips of {len(changes.answers)} images, not of {len(right)}: remove it")
    classes = (
        len(asked.names)
        if asked.names is not None
        else int(max(right.max(), changes.answers.max(), changes.becomes.max(initial=0))) + 1
    )
    return Study(net.title, net.letter, changes, right, classes, grid)


def net_folder(net: Net, folder: Path) -> Path:
    """Of one network's flips: another run or epoch has another."""
    return folder / f"{net.name}-{net.epoch}-{net.run.identity[:8]}"


def precisions(found: list[Run]) -> np.ndarray | None:
    """(M, classes) how often each network is right when it says a class, on validation images; None: not known."""
    if not all(run.meta.kind == "supervised" and is_finished(run) for run in found):
        return None
    return np.array([read_result(run).validation_reliability for run in found])


class Report:
    """Tables, pictures and the page of a study."""

    def __init__(
        self, nets: list[Net], asked: Asked, studies: list[Study], votes: list[Study], patch: int, folder: Path
    ):
        self.nets, self.asked, self.studies, self.votes = nets, asked, studies, votes
        self.patch, self.folder = patch, folder
        self.names = asked.names or [str(i) for i in range(max(study.classes for study in studies))]
        self.is_digits = asked.word == "digit"
        self.findings: list[Finding] = list_findings(studies, self.names, self.is_digits)
        self.agreements: list[Agreement] = []
        self.maps: dict[str, Maps] = {}  # letter -> maps of methods
        self.unread: list[str] = []

    def compare(self, methods: Sequence[Sequence[Method]]) -> None:
        """Hold the flips of each network against the maps of those methods that it can be read by."""
        for net, study, its in zip(self.nets, self.studies, methods, strict=True):
            if not study.is_right.any():
                continue
            agreements, maps = compare_maps(net, self.asked, study, its, self.patch)
            self.agreements += agreements
            self.maps[study.letter] = maps
            if len(its) < max(map(len, methods)) or not its:
                self.unread.append(net.title)

    @property
    def thing(self) -> str:
        """What is flipped, in words."""
        return "pixel" if self.patch == 1 else f"block of {self.patch} x {self.patch} pixels"

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the figures."""
        found = []
        if self.asked.names is not None and len(self.studies) == 2:
            found.append(
                "No vote: between two networks a majority is a coin toss wherever they differ. Name three runs."
            )
        if self.votes:
            found.append(
                "Votes: where as many networks say one class as another, a plain majority takes the first class; the "
                "weights decide there and hardly anywhere else. 1 - instability is measured on these very images, "
                "precision on validation images."
            )
        if self.nets[0].run.meta.view.name == "unrolled":
            found.append(
                "The network sees each coin unrolled, and so do you here: a block is one of that strip, the "
                "centre above, the rim below, around the coin from left to right."
            )
        if self.asked.names is None and self.patch > 1:
            found.append(
                "A block that moves an image shows where the network is upset, not what it goes by: on painted coins "
                "another coin's blocks and a ring halfway out lay on the symbols as often."
            )
        if self.unread:
            found.append(f"{', '.join(self.unread)}: no convolution, so no map of a method that reads one.")
        return found

    def write(self) -> None:
        """Everything."""
        for net, study in zip(self.nets, self.studies, strict=True):
            own = net_folder(net, self.folder)
            sheets = self.draw_sheets(net, study, own)
            write_csv(own / "flips.csv", self.flip_rows(study, sheets), self.flip_columns())
        shares, classes = self.share_table(), self.class_table()
        for name, table in (("shares", shares), ("classes", classes)):
            write_csv(
                self.folder / f"{name}.csv", [dict(zip(table[0], row, strict=True)) for row in table[1:]], table[0]
            )
        for study in self.studies:
            rows = [
                {self.asked.word: name, **dict(zip(self.names, row, strict=False))}
                for name, row in zip(self.names, study.confusion.tolist(), strict=False)
            ]
            write_csv(self.folder / f"confusion-{study.letter}.csv", rows)
        if self.agreements:
            cells = [dict(zip(HEAD, one.cells, strict=True)) for one in self.agreements]
            write_csv(self.folder / "maps.csv", cells, HEAD)
        write_json(self.folder / "findings.json", [vars(one) for one in self.findings])
        meaning = (
            "" if self.asked.names is not None else " Right means that the head says the cluster that it has learnt."
        )
        html = PAGES.get_template("pixelflip.html").render(
            title=", ".join(study.title for study in self.studies),
            thing=self.thing,
            word=self.asked.word,
            covered=f"{self.asked.split[0].upper()}{self.asked.split[1:]}",
            meaning=meaning,
            shares=shares,
            classes=classes,
            notes=self.notes,
            findings=self.findings,
            agreements=[HEAD, *(one.cells for one in self.agreements)] if self.agreements else None,
            sheets=[
                (study.title, int(study.is_changed.sum()), f"{net_folder(net, self.folder).name}/{SHEETS}/index.html")
                for net, study in zip(self.nets, self.studies, strict=True)
                if study.is_changed.any()
            ],
            pictures=self.draw(),
        )
        write_atomic(self.folder / "index.html", html.encode())

    def tell(self) -> None:
        """The shares and findings, in words."""
        print(f"{self.asked.split}; flipped: each {self.thing}; wrong / right and robust / right but changed")
        width = max(len(name) for name in [STUDY_NAME, *(study.title for study in [*self.studies, *self.votes])]) + 2
        for study in [*self.studies, *self.votes]:
            print(f"  {study.title:<{width}}" + " / ".join(f"{share:.2%}" for share in study.shares))
        if self.is_digits:
            print(f"  {STUDY_NAME:<{width}}" + " / ".join(f"{share:.1%}" for share in STUDY))
        for note in self.notes:
            print(note)
        for cells in [HEAD, *(one.cells for one in self.agreements)] if self.agreements else []:
            print("  " + "".join(f"{cell:<{width}}" for cell, width in zip(cells, self.widths(), strict=True)))
        for one in self.findings:
            print(f"{ {True: 'yes', False: 'no', None: 'cannot be told'}[one.holds] }: {one.claim} ({one.measured})")

    def widths(self) -> list[int]:
        """Of the columns of agreements, in letters."""
        return [max(map(len, column)) + 2 for column in zip(HEAD, *(one.cells for one in self.agreements), strict=True)]

    def share_table(self) -> list[list[str]]:
        """Head and a row for each network and vote."""
        table = [
            ["network", "images", "accuracy", "wrong", "right and robust", "right but changed", "flips that change"]
        ]
        for study in [*self.studies, *self.votes]:
            wrong, robust, changed = study.shares
            shares = [f"{share:.4f}" for share in (1 - wrong, wrong, robust, changed)]
            table.append([study.title, str(len(study.right)), *shares, str(int(study.counts.sum()))])
        if self.is_digits:
            wrong, robust, changed = STUDY
            table.append([STUDY_NAME, "60000", *(f"{share:.3f}" for share in (1 - wrong, wrong, robust, changed)), ""])
        return table

    def class_table(self) -> list[list[str]]:
        """Head and a row for each class: of each network and vote, how many right images change, and their share."""
        every = [*self.studies, *self.votes]
        table = [[self.asked.word, *(study.title for study in every)]]
        for number, name in enumerate(self.names):
            cells = []
            for study in every:
                known = number < study.classes and study.per_class[number, 0]
                cells.append(f"{study.rates[number]:.4f}" if known else "")
            table.append([name, *cells])
        return table

    def flip_columns(self) -> list[str]:
        """Of flips.csv."""
        return ["image", self.asked.word, "flips", "becomes", "smallest_margin", "sheet"]

    def flip_rows(self, study: Study, sheets: Mapping[int, str]) -> list[dict[str, Any]]:
        """A row for each image that is right and changed; its smallest margin: own logit minus the new.

        `sheets`: on which the image of a row of the study is drawn.
        """
        rows = []
        image, becomes = study.changes.image[study.counts], study.changes.becomes[study.counts]
        lead = study.changes.lead[study.counts]
        bounds = np.flatnonzero(np.diff(image, prepend=-1, append=-1))
        for begin, end in pairwise(bounds.tolist()):
            row = int(image[begin])
            counted = Counter(becomes[begin:end].tolist())
            commonest = min(counted, key=lambda one: (-counted[one], one))
            cells = (
                self.asked.ids[row],
                self.names[study.right[row]],
                int(end - begin),
                self.names[commonest],
                f"{-lead[begin:end].max():.6g}",
                sheets[row],
            )
            rows.append(dict(zip(self.flip_columns(), cells, strict=True)))
        return rows

    def draw_sheets(self, net: Net, study: Study, own: Path) -> dict[int, str]:
        """Every changed image with its flips, on sheets of many; a page shows them. Of each image's row its sheet."""
        rows = figures.order_images(study)
        if not len(rows):
            return {}
        folder, by_image = own / SHEETS, figures.flips_by_image(study)
        folder.mkdir(exist_ok=True)
        found: dict[int, str] = {}
        sheets: list[tuple[str, str, int, int, int]] = []
        begins = range(0, len(rows), figures.SHEET)
        for begin in progress(begins, f"{net.title}: drawing", unit="sheets"):
            some = rows[begin : begin + figures.SHEET]
            name = f"sheet-{len(sheets) + 1:03d}.png"
            picture = figures.draw_sheet(study, self.names, some, by_image, self.photographs(some), self.patch)
            write_atomic(folder / name, figures.as_png(picture), durable=False)
            found |= dict.fromkeys(some.tolist(), name)
            ends = [self.names[study.right[row]] for row in (some[0], some[-1])]
            sheets.append((name, " to ".join(dict.fromkeys(ends)), len(some), picture.width, picture.height))
        seen = sorted({int(one) for _, becomes in by_image.values() for one in becomes})
        colours = figures.palette(study.classes)
        html = PAGES.get_template("pixelflip_sheets.html").render(
            title=study.title,
            thing=self.thing,
            word=self.asked.word,
            covered=self.asked.split,
            count=len(rows),
            sheets=sheets,
            colours=[(self.names[one], to_hex(colours[one])) for one in seen],
        )
        write_atomic(folder / "index.html", html.encode())
        return found

    def draw(self) -> list[dict[str, str]]:
        """All pictures, written; for the page."""
        studies, names, word = self.studies, self.names, self.asked.word
        pictures: list[dict[str, str]] = []

        def add(name: str, figure: figures.Figure, caption: str) -> None:
            data = base64.b64encode(figures.save(figure, self.folder, name)).decode()
            pictures.append({"name": name, "data": data, "caption": caption})

        add("shares", figures.draw_shares([*studies, *self.votes], self.is_digits), "Shares of the images.")
        ends, top = figures.brightest(studies), figures.highest(studies)
        classes = figures.shown_classes(studies)
        for study in studies:
            mine = classes[classes < study.classes]
            add(
                f"heat-{study.letter}",
                figures.draw_heat(study, names, word, ends, mine),
                f"{study.title}: share of right images that a flip there changes; bright is unstable. All have "
                "the same scales.",
            )
        for study in studies:
            add(
                f"classes-{study.letter}",
                figures.draw_classes(study, names[: study.classes], word, top),
                f"{study.title}: share of each {word}'s right images that any flip changes, with 95 % intervals.",
            )
        for study in studies:
            mine = classes[classes < study.classes]
            add(
                f"confusion-{study.letter}",
                figures.draw_confusion(study, names[: study.classes], word, mine),
                f"{study.title}: what a flip makes of each {word} most often, by place, and how many flips do.",
            )
        for study in studies:
            rows = figures.choose_images(study)
            if len(rows):
                add(
                    f"images-{study.letter}",
                    figures.draw_images(study, names, rows, self.photographs(rows), self.patch),
                    f"{study.title}: images that flips change, in the colour of what they become. Its sheets have all.",
                )
        for study in studies:
            if study.letter in self.maps:
                maps = self.maps[study.letter]
                images = self.photographs(maps.rows[: figures.COMPARED])
                add(
                    f"maps-{study.letter}",
                    figures.draw_maps(study, names, maps, images, self.patch),
                    f"{study.title}: the margin that each flip costs, and the maps of methods, over the same places.",
                )
        return pictures

    def photographs(self, rows: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) in 0..1; of a relief its height alone, in grey."""
        with torch.inference_mode():
            images = self.asked.load(rows).permute(0, 2, 3, 1).cpu().numpy()
        if self.nets[0].run.meta.view.name in COLOURLESS:
            images = images[..., :1]
        return images.repeat(3 // images.shape[3], 3)
