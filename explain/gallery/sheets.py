"""Pictures of a cluster as a whole: contact sheet, strip and means."""

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
