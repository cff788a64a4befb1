"""A folder of photographs, or one zip of it -> file names in a stable order, and labels where sub-folders name them."""

import errno
import hashlib
import os
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from console import UserError, disk_sentence, plain, progress
from datasets.cache import made_once
from machine.files import cache_root, home_path
from machine.reading import open_regular

RATIO, LARGE = 200, 1 << 30  # a zip that unpacks to so many times its size, and to more than this, is a bomb


def list_files(root: Path) -> list[str]:
    """Every file below `root`, as paths relative to it with `/`, sorted by code point: the same on every machine."""
    names = []
    for folder, _, files in os.walk(root):
        relative = Path(folder).relative_to(root)
        names += [(relative / name).as_posix() for name in files]
    return sorted(names)


def class_labels(ids: list[str]) -> list[str] | None:
    """The first folder of each id, if there are at least two such folders; an image in the root has the label ''."""
    labels = [name.split("/", 1)[0] if "/" in name else "" for name in ids]
    return labels if len(set(labels) - {""}) > 1 else None


def unpack(archive: Path) -> Path:
    """Unpack a zip to the local cache, once per content, and return the folder.

    No path leaves the target: absolute names, drive letters and `..` are refused. A zip that holds a single
    top folder is entered, so that ids are the same as for the folder itself.
    Raises: UserError for a damaged or hostile zip and for one that does not fit on the disk.
    """

    def fill(folder: Path) -> None:
        try:
            with zipfile.ZipFile(archive) as content:
                entries = [entry for entry in content.infolist() if not entry.is_dir()]
                _check_size(archive, sum(entry.file_size for entry in entries), folder)
                for entry in progress(entries, f"unpacking {archive.name}", unit="files"):
                    _extract(content, entry, folder, archive)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                reason = "a file and a folder of one name"
            elif error.errno == errno.ENAMETOOLONG:
                reason = "a name that is too long for this disk"
            elif error.errno is not None and disk_sentence(error) is not None:
                raise
            else:
                reason = str(error.strerror or error)
            raise UserError(f"{archive}: damaged or unreadable zip ({reason}): make it again") from None
        except UserError:
            raise
        except Exception as error:  # a damaged zip makes zipfile and its decoders raise nearly anything
            locked = "encrypted" in str(error)
            reason = "it is encrypted" if locked else str(error)[:120] or type(error).__name__
            raise UserError(
                f"{archive}: damaged or unreadable zip ({reason}): make it again{' without a password' * locked}"
            ) from None

    return _single_folder(made_once(cache_root() / "unpacked" / _file_digest(archive), fill))


def refuse_inside(path: Path, data: str, option: str) -> None:
    """Refuse to write among the photographs: what is written there would be data the next time.

    Args:
        path: that is written.
        data: the DATA that is read.
        option: that names `path`.

    Raises:
        UserError: if `path` is DATA or lies in it.
    """
    if data and home_path(data).is_dir() and path.resolve().is_relative_to(home_path(data).resolve()):
        raise UserError(
            f"{option} {path}: lies in {data}, among the photographs, and would be taken for some of them: name a "
            "place outside"
        )


def _check_size(archive: Path, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{archive}: unpacks to {size / 1e9:.1f} GB but {folder.parent} has {free / 1e9:.1f} GB free: free some "
            "space or set DEEPCLUSTER_CACHE to a larger disk"
        )
    if size > LARGE and size > RATIO * archive.stat().st_size:
        raise UserError(
            f"{archive}: unpacks to {size / 1e9:.1f} GB, more than {RATIO} times its size, which photographs never do: "
            "make it again"
        )


def _extract(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, archive: Path) -> None:
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise UserError(
            f"{archive}: the entry {plain(name)!r} points outside the archive: make the zip again without it"
        )
    path = target.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with content.open(entry) as source, path.open("wb") as destination:  # a link in the zip becomes a plain file
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile("an entry is larger than it says")
            destination.write(block)


def _single_folder(home: Path) -> Path:
    while True:
        inside = [path for path in home.iterdir() if path.name not in ("__MACOSX", ".DS_Store")]
        if len(inside) != 1 or not inside[0].is_dir():
            return home
        home = inside[0]


def _file_digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
