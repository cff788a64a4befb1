"""Sheets of pictures: of a cluster its typical coins and means; of all images thumbnails for the map."""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from console import progress
from explain.record import Explanation, is_there
from explain.rendering import contact_sheet, encode, encode_sheet, overlay, read_picture, strip
from machine.files import write_atomic

TYPICAL, STRIP = 8, "_typical.jpg"  # images on a cluster's card, and their file
SHEET = 40  # images on a cluster's contact sheet
VIEWS = 128  # images in memory at a time while means are taken
THUMBNAIL = 48  # pixels, side of an image on the map's sheets
ACROSS = 32  # ... and how many of them are side by side and below one another on a sheet


def write_cluster_pictures(explanation: Explanation) -> None:
    """Of each cluster: contact sheet and strip, most typical first; mean image; mean map. All but the last stay.

    The mean of maps that are all empty is grey, as each of them is.
    """
    subject, scores, record = explanation.subject, explanation.scores, explanation.record
    assignment, present = subject.clusters.assignment, subject.pictures.present
    numbers = np.unique(assignment[present][assignment[present] >= 0])
    for number in progress(numbers, "clusters", unit="clusters"):
        home = explanation.folder / str(number)
        home.mkdir(exist_ok=True)
        members = present[assignment[present] == number]
        members = members[np.argsort(scores.rank[members], kind="stable")]
        if not all(is_there(home / name) for name in ("_sheet.jpg", "_mean.png", STRIP)):
            total = np.zeros((subject.size, subject.size, 3))
            sheet: list[np.ndarray] = []
            for start in range(0, len(members), VIEWS):
                photographs = subject.drawn_on(members[start : start + VIEWS])
                total += photographs.sum(0, dtype=np.float64)
                sheet += list(photographs[: max(0, SHEET - len(sheet))])
            write_atomic(home / "_sheet.jpg", encode_sheet(contact_sheet(sheet)), durable=False)
            write_atomic(home / STRIP, encode_sheet(strip(sheet[:TYPICAL])), durable=False)
            mean = Image.fromarray((total / len(members)).round().astype(np.uint8))
            write_atomic(home / "_mean.png", encode(mean, "png"), durable=False)
        heat = [record.heat[row] for row in members.tolist() if row in record.heat]
        if heat:
            size = subject.size
            cells = torch.from_numpy(np.stack(heat).astype(np.float32).mean(0))[None, None]
            smooth = functional.interpolate(cells, (size, size), mode="bilinear")[0, 0].numpy()
            photograph = np.asarray(read_picture(home / "_mean.png").resize((size, size)))
            drawn = overlay(smooth if smooth.any() else None, photograph, explanation.choice.colours)
            write_atomic(home / f"_mean-{explanation.heat_key}.png", encode(drawn, "png"), durable=False)


def write_thumbnails(explanation: Explanation) -> list[str]:
    """All images small, in sheets of ACROSS x ACROSS: image i is number i % ACROSS^2 of sheet i // ACROSS^2.

    What is there stays; a name says how many of its images there were, so that a sheet is drawn again when more are.

    Returns:
        Names of the sheets in the epoch's folder, "" for one without an image.
    """
    subject, each = explanation.subject, ACROSS**2
    rows, count = subject.pictures.present, len(subject.run.ids)
    names, missing = [], []
    for begin in range(0, count, each):
        inside = rows[(rows >= begin) & (rows < begin + each)]
        names.append(f"_thumbnails-{begin // each:04d}-{len(inside)}.jpg" if len(inside) else "")
        if len(inside) and not is_there(explanation.folder / names[-1]):
            missing.append((names[-1], inside))
    for name, inside in progress(missing, "thumbnails", unit="sheets"):
        sheet = np.zeros((each, THUMBNAIL, THUMBNAIL, 3), np.uint8)
        for start in range(0, len(inside), VIEWS):
            part = inside[start : start + VIEWS]
            small = strip(list(subject.drawn_on(part)), THUMBNAIL)  # (side, images * side, 3)
            sheet[part % each] = small.reshape(THUMBNAIL, len(part), THUMBNAIL, 3).transpose(1, 0, 2, 3)
        picture = sheet.reshape(ACROSS, ACROSS, THUMBNAIL, THUMBNAIL, 3).transpose(0, 2, 1, 3, 4)
        encoded = encode_sheet(picture.reshape(ACROSS * THUMBNAIL, ACROSS * THUMBNAIL, 3))
        write_atomic(explanation.folder / name, encoded, durable=False)
    return names
