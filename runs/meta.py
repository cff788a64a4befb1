"""run.json, typed: what a run is made of and what it was made with. Written once, when the run begins."""

import hashlib
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from console import UserError
from console.group import MOST_PROCESSES
from machine.reading import MOST_DECODED, MOST_SIDE, MOST_THREADS, Between, Count, Seed, Side, shown, typed

if TYPE_CHECKING:
    import torch

SCHEMA = 2
# Settings that schema 1 called otherwise.
FORMER_SETTINGS = {"whiten": "whiten_power"}
MEND = "restore a copy, or start a new run"


@dataclass(frozen=True)
class Source:
    """The images of a run, and where they came from."""

    name: str
    source: str  # what datasets.open_dataset was asked for
    key: str  # identifies the content
    limit: Annotated[int | None, Between(1, 1 << 40)]
    images: Count
    excluded: str = ""  # digest of the images that were left out because they were listed; "": none


@dataclass(frozen=True)
class View:
    """What the network sees of an image."""

    size: Side  # in pixels
    center_crop: bool
    decoded_side: Annotated[int, Between(1, 2 * MOST_SIDE)]  # pixels of the shorter side of the decoded image
    decode_at_most: Annotated[int | None, Between(1, MOST_DECODED)] = None  # ... which larger files keep up to this
    name: str = "photograph"  # or a key of datasets.view.VIEWS
    drawn: Annotated[int, Between(1, 1000)] = 1  # ... its version when the run was begun


@dataclass(frozen=True)
class Stamp:
    """The machine and the programs that a run was begun with."""

    threads: Annotated[int, Between(1, MOST_THREADS)]
    device: str = ""
    memory_format: str = "channels_last"
    versions: dict[str, str] = field(default_factory=dict)
    processes: Annotated[int, Between(1, MOST_PROCESSES)] = 1  # that train together


@dataclass(frozen=True)
class Meta:
    """run.json. `model` and `config` are the trainer's own; it checks them when it opens the run."""

    kind: str  # the trainer's package: deepcluster or supervised
    dataset: Source
    view: View
    model: dict[str, Any]
    config: dict[str, Any]
    seed: Seed
    stamp: Stamp
    imported: str | None = None  # file that an imported run was read from

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        content = {"schema": SCHEMA, **asdict(self)}
        return content | content.pop("stamp")

    @classmethod
    def from_json(cls, content: Any, path: Path) -> "Meta":
        """Check and take what run.json at `path` holds, of this schema or an older one.

        Raises:
            UserError: naming what is missing or of another type, or that a newer version wrote it.
        """
        if not isinstance(content, dict) or type(content.get("schema")) is not int:
            raise UserError(f"{path}: not a run.json of this program (it has no schema): start a new run directory")
        if content["schema"] > SCHEMA:
            raise UserError(
                f"{path}: written by a newer version (schema {shown(content['schema'])}, this one reads {SCHEMA}): "
                "update first"
            )
        content = dict(content)
        if content["schema"] == 1:
            _modernise(content)
        content["stamp"] = {name: content[name] for name in Stamp.__dataclass_fields__ if name in content}
        return typed(cls, content, path, MEND)


def make_stamp(device: "torch.device", packages: tuple[str, ...]) -> Stamp:
    """The stamp of a run that begins now on `device` with our source folders `packages`."""
    import torch  # not for who only reads a run

    from machine.device import device_name
    from machine.processes import world_size

    names = ["torch", "torchvision", "numpy", "scikit-learn", "faiss-cpu", "faiss-gpu"]
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # one of the two builds of faiss, or both
            continue
    versions |= {"python": platform.python_version(), "code": code_digest(packages)}
    return Stamp(torch.get_num_threads(), device_name(device), versions=versions, processes=world_size())


def code_digest(packages: tuple[str, ...]) -> str:
    """SHA-256 over our own source files, since a copy need not have a commit."""
    root = Path(__file__).parent.parent
    sha = hashlib.sha256()
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _modernise(content: dict[str, Any]) -> None:
    """Give what schema 1 wrote today's names."""
    config, view = content.get("config"), content.get("view")
    if not isinstance(config, dict):
        return
    config = {FORMER_SETTINGS.get(name, name): value for name, value in config.items()}
    if content.get("kind") == "deepcluster" and isinstance(view, dict):
        config.setdefault("decode_at_most", view.get("decoded_side"))
    content["config"] = config
    content.setdefault("seed", config.get("seed"))


def compare_settings(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, the settings that differ: "--lr 0.01 (now 0.1)"."""
    return [
        f"--{name.replace('_', '-')} {stored.get(name)} (now {value})"
        for name, value in now.items()
        if stored.get(name) != value
    ]
