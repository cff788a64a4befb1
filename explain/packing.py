"""results/ as one zip beside it: a Drive or a mail takes one file, where it drowns in thousands."""

import zipfile
from pathlib import Path
from typing import IO

from console import UserError, progress
from machine.files import write_atomic
from machine.reading import open_regular

TEXT = (".html", ".js", ".css", ".csv", ".json", ".svg", ".md")  # what a zip makes smaller; pictures are packed already


def zip_of(results: Path) -> Path:
    """Where the zip of a folder of explanations goes: results.zip beside results/."""
    home = results.resolve()
    return home.with_name(f"{home.name}.zip")


def name_in_zip(results: Path) -> str:
    """Of the folder; a zip has room for text alone, a disk may have names that are none."""
    return results.resolve().name.encode("utf-8", "replace").decode()


def check_zip(results: Path) -> None:
    """Refuse to write over a zip that is not this folder's, before anything is drawn.

    Raises:
        UserError: if there is one.
    """
    path = zip_of(results)
    if not path.exists() and not path.is_symlink():
        return
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as there:
            ours = f"{name_in_zip(results)}/results.json" in there.namelist()
    except Exception:  # a damaged zip can raise nearly anything
        ours = False
    if not ours:
        raise UserError(
            f"--zip: {path} is there already and holds no explanations: move it, or choose another --results"
        )


def pack(results: Path) -> Path:
    """Write all of a folder but what only a further call would need; returns the zip, whole or as it was before."""
    home, path, name = results.resolve(), zip_of(results), name_in_zip(results)
    files = [
        one
        for one in sorted(home.rglob("*"))
        if one.is_file() and not one.is_symlink() and not any(p.startswith(".") for p in one.relative_to(home).parts)
    ]

    def fill(file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        with zipfile.ZipFile(file, "w", strict_timestamps=False) as packed:  # a disk may have files of 1970
            for one in progress(files, f"packing {path.name}", unit="files"):
                how = zipfile.ZIP_DEFLATED if one.suffix in TEXT else zipfile.ZIP_STORED
                packed.write(one, f"{name}/{one.relative_to(home).as_posix()}", how)

    write_atomic(path, fill)
    return path
