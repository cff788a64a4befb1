"""A folder of photographs, or one zip of it -> file names in a stable order, and labels where sub-folders name them."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from console import UserError, progress
from datasets.cache import cache_root


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
    home = cache_root() / "unpacked" / _file_digest(archive)
    if not home.is_dir():
        partial = home.with_name(f"{home.name}.{os.getpid()}.tmp")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            with zipfile.ZipFile(archive) as content:
                entries = [entry for entry in content.infolist() if not entry.is_dir()]
                size = sum(entry.file_size for entry in entries)
                free = shutil.disk_usage(partial).free
                if size > free:
                    raise UserError(
                        f"{archive}: unpacks to {size / 1e9:.1f} GB but {partial.parent} has {free / 1e9:.1f} GB free: "
                        "free some space or set DEEPCLUSTER_CACHE to a larger disk"
                    )
                for entry in progress(entries, f"unpacking {archive.name}", unit="files"):
                    _extract(content, entry, partial, archive)
            os.rename(partial, home)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{archive}: damaged or unreadable zip ({error}): make it again") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _single_folder(home)


def _extract(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, archive: Path) -> None:
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise UserError(f"{archive}: the entry {name!r} points outside the archive: make the zip again without it")
    path = target.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open(entry) as source, path.open("wb") as destination:  # a link in the zip becomes a plain file
        shutil.copyfileobj(source, destination, 1 << 20)


def _single_folder(home: Path) -> Path:
    while True:
        inside = [path for path in home.iterdir() if path.name not in ("__MACOSX", ".DS_Store")]
        if len(inside) != 1 or not inside[0].is_dir():
            return home
        home = inside[0]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
