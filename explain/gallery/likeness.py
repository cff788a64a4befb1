"""Are a cluster's coins alike in size, in colour? Measured on the photographs, beside random sets of as many coins."""

from pathlib import Path

import numpy as np

from datasets.places import VERSION
from datasets.view import COLOURLESS, PHOTOGRAPH
from deepcluster.descriptors import FACTS, ruler_and_colour
from explain.record import Explanation
from explain.subject import Subject
from machine.files import write_atomic
from machine.reading import Damaged, read_npz
from machine.seeds import derive_seed

KEPT = ".size-and-colour.npz"
ALIKE = 0.5  # spread of a cluster's coins over that of all coins, up to which they are called alike
FEWEST = 8  # coins whose spread says something
DRAWS = 199  # random sets of as many coins: each must spread wider, so chance alone calls one set in 200 alike at most
INTERVAL = (0.025, 0.975)
SAYS = {  # fact -> what is alike, and what is measured of it
    "size": ("size", "their radii spread"),
    "colour": ("colour", "the colours of centre and ring, less the ground's, spread"),
}


def size_and_colour(explanation: Explanation) -> np.ndarray | None:
    """The five numbers of each coin (`deepcluster.descriptors`), kept for the next call on the same pixels.

    Returns:
        (N, 5) float64, each of mean 0 and deviation 1 over the images that are there; NaN: image gone, or no coin found
        in it. None for photographs seen as they are, where no coin is looked for.
    """
    subject, path = explanation.subject, explanation.folder / KEPT
    if subject.view == PHOTOGRAPH:
        return None
    key = np.frombuffer(f"{subject.pictures.dataset.pixels_key} {VERSION}".encode(), np.uint8)
    present, found = subject.pictures.present, np.full((len(subject.run.ids), 5), np.nan)
    try:
        kinds = {"present": ("iu", (None,)), "key": ("iu", (None,)), "numbers": ("f", (len(present), 5))}
        kept = read_npz(path, kinds, "")
        if np.array_equal(kept["present"], present) and np.array_equal(kept["key"], key):
            found[present] = kept["numbers"]
            return found
    except (FileNotFoundError, Damaged):
        pass  # not measured yet, or damaged, or of other images
    found[present] = _measure(subject, present)
    _keep(path, present, key, found[present])
    return found


def _measure(subject: Subject, present: np.ndarray) -> np.ndarray:
    dataset, at = subject.pictures.dataset, subject.pictures.position[present]
    places = [dataset.find_places()[i] for i in at.tolist()]
    numbers = ruler_and_colour(dataset.decoded.take(at), places).astype(np.float64)
    numbers[[not place.found for place in places]] = np.nan
    return numbers


def _keep(path: Path, present: np.ndarray, key: np.ndarray, numbers: np.ndarray) -> None:
    write_atomic(path, lambda file: np.savez(file, present=present, key=key, numbers=numbers), durable=False)


def say_alike(numbers: np.ndarray | None, subject: Subject, members: np.ndarray) -> list[str]:
    """A sentence for each of size and colour in which the coins of a cluster are alike.

    They are, where at least FEWEST coins spread half as wide as all coins do, or less (ALIKE), and narrower than each
    of DRAWS random sets of as many. Spread: the root of the mean variance of the fact's numbers.

    Args:
        numbers: as `size_and_colour` gives them.
        subject: of whose run the sentences say whether the fact was clustered.
        members: images of the cluster.
    """
    if numbers is None:
        return []
    known = numbers[np.isfinite(numbers).all(1)]
    own = numbers[members][np.isfinite(numbers[members]).all(1)]
    if len(own) < FEWEST:
        return []
    rng = np.random.default_rng(derive_seed(subject.seed, 0, "sets of as many coins"))
    found = []
    for name, columns in FACTS.items():
        varying = [column for column in columns if known[:, column].std() > 0]
        if not varying:
            continue
        whole = _spread(known[:, varying])
        ratio = _spread(own[:, varying]) / whole
        if ratio > ALIKE:
            continue
        sets = rng.integers(0, len(known), (DRAWS, len(own)))
        chance = np.array([_spread(known[rows][:, varying]) for rows in sets]) / whole
        if ratio < chance.min():
            low, high = np.quantile(chance, INTERVAL)
            what, measured = SAYS[name]
            found.append(
                f"Its coins are alike in {what}{_clustered(subject, name)}: {measured} {ratio:.2f} times as wide as "
                f"those of all coins (random sets of as many: {low:.2f} to {high:.2f} times)."
            )
    return found


def _clustered(subject: Subject, name: str) -> str:
    """Whether a fact had a say in the clusters: '' where that is not known, as of those edited by hand."""
    if subject.clusters.digest is not None or "facts" not in subject.run.meta.config:
        return ""
    if name in str(subject.run.meta.config["facts"]).split(","):
        return ", which was clustered beside the design"
    if name == "colour" and subject.view not in COLOURLESS:
        return ", which the network sees"
    return ", of which neither network nor clustering was told"


def _spread(values: np.ndarray) -> float:
    """(n, d) -> root of the mean variance of the columns."""
    return float(np.sqrt(values.var(0).mean()))
