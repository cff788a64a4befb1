"""Where the heat is: its share on the coin and on the symbols, of each method, beside maps that know nothing.

For runs on images whose parts are known (painted coins) or whose coins are found. Maps are drawn back onto the
photograph first, so runs of different views compare. Shares are of the square that the gallery shows.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

import runs
from console import UserError, progress
from console.options import add_machine, add_reading, positive
from explain.attribution import Asked, attribute, parse
from explain.rendering import is_degenerate
from explain.subject import Subject, find_pictures
from machine.device import use_device

METHODS = "grad_cam,hires_cam,layer_cam,guided_backprop,guided_grad_cam"
BATCH = 32
BLOB = 0.5  # sigma of the blob in the middle, in half sides
SYMBOLS = ("field0", "field1", "field2", "field3", "dot")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", "--exp", dest="run", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--methods", default=METHODS, help=f"({METHODS})")
    parser.add_argument("--limit", type=positive, default=200, metavar="N", help="images, drawn evenly (200)")
    add_machine(parser)
    add_reading(parser)


def run(options: argparse.Namespace) -> None:
    device = use_device(options.device)
    methods = [parse(text) for text in options.methods.split(",")]
    for path in options.run:
        trained = runs.open_run(path)
        if trained.meta.kind != "deepcluster":
            raise UserError(f"{path}: not a deepcluster run")
        pictures = find_pictures(trained, None, options.workers, options.mnist_dir, device)
        subject = Subject(trained, trained.checkpoints()[-1], pictures, None, device)
        rows = pictures.present
        if options.limit < len(rows):
            rows = np.sort(np.random.default_rng(0).permutation(rows)[: options.limit])
        print(f"\n{path}: {subject.view} view, {len(rows)} images; share of the heat, mean ± standard error")
        print(f"{'':28}{'coin':>16}{'symbols':>16}{'symbols / their area on the coin':>34}{'empty':>8}")
        for name, shares in measure(subject, rows, methods).items():
            print(f"{name:28}" + line_of(shares))


def measure(subject: Subject, rows: np.ndarray, methods: list[Asked]) -> dict[str, np.ndarray]:
    """Of each method and control (B, 3): share on the coin, on its symbols, and that over their share of the coin.

    The controls: the same methods on the network before its training; the edges of the photograph, which are where a
    symbol is whatever a network learnt; a blob in the middle; all of the coin alike. NaN where a map is empty, and for
    symbols where none are known.
    """
    found: dict[str, list[np.ndarray]] = {}
    axis = np.linspace(-1, 1, subject.size)
    blob = np.exp(-(axis[None] ** 2 + axis[:, None] ** 2) / (2 * BLOB**2))
    for begin in progress(range(0, len(rows), BATCH), "explaining", unit="batches"):
        some = rows[begin : begin + BATCH]
        images, masks = subject.images(some), [masks_of(subject, row) for row in some.tolist()]
        own = subject.clusters.column_of(subject.clusters.assignment[some])
        targets = torch.as_tensor(own, device=subject.device)
        maps: dict[str, np.ndarray] = {}
        for model, before in ((subject.model, ""), (subject.untrained, ", untrained")):
            for one in methods:
                heat = attribute(model, images, targets, [one])[one.key].float().cpu().numpy()
                heat = np.abs(heat) if one.method.kind == "signed" else np.maximum(heat, 0)
                maps[one.title + before] = subject.draw_back(some, heat.sum(1, keepdims=True))[:, 0]
        maps["edges of the photograph"] = np.stack([edges_of(picture) for picture in subject.drawn_on(some)])
        maps["edges of the photograph"] *= np.stack([coin for coin, _ in masks])
        maps["a blob in the middle"] = np.repeat(blob[None], len(some), 0)
        maps["all of the coin"] = np.stack([coin for coin, _ in masks]).astype(np.float64)
        for name, heats in maps.items():
            found.setdefault(name, []).extend(shares_of(heat, *mask) for heat, mask in zip(heats, masks, strict=True))
    return {name: np.array(values) for name, values in found.items()}


def edges_of(picture: np.ndarray) -> np.ndarray:
    """(S, S) strength of the edges of a picture (S, S, 3)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def masks_of(subject: Subject, row: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(size, size) bool of the coin, and of its symbols where they are known, on the square that is shown."""
    dataset, position = subject.pictures.dataset, int(subject.pictures.position[row])
    parts = dataset.mask(position)
    if parts is None:
        coin = dataset.find_places()[position].mask(dataset.decoded.shape[position])
        return subject.cut(row, coin.astype(np.float32), subject.size) > 0.5, None
    symbols = np.any([parts[name] for name in SYMBOLS], axis=0)
    coin, symbols = (subject.cut(row, part.astype(np.float32), subject.size) > 0.5 for part in (parts["coin"], symbols))
    return coin, symbols & coin


def shares_of(heat: np.ndarray, coin: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
    """(3,) of a map from 0: share on the coin, on the symbols, and the latter over the symbols' share of the coin."""
    if is_degenerate(heat) and heat.sum() == 0:
        return np.full(3, np.nan)
    on_coin = float((heat * coin).sum() / heat.sum())
    if symbols is None or not symbols.any():
        return np.array([on_coin, np.nan, np.nan])
    on_symbols = float((heat * symbols).sum() / heat.sum())
    return np.array([on_coin, on_symbols, on_symbols / (symbols.sum() / coin.sum())])


def line_of(shares: np.ndarray) -> str:
    """Mean and standard error of each column, and how many maps are empty."""
    told = []
    for column in shares.T:
        known = column[np.isfinite(column)]
        told.append(f"{known.mean():.3f} ± {known.std() / max(1, len(known)) ** 0.5:.3f}" if len(known) else "-")
    return f"{told[0]:>16}{told[1]:>16}{told[2]:>34}{np.isnan(shares[:, 0]).mean():>8.0%}"
