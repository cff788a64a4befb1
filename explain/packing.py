"""results/ as one zip or in few files beside it: a Drive or a mail drowns in thousands.

A page from disk may read no neighbouring file but as an image, a style or a classic script. So few files that open as
they are hold their pictures in scripts, as text (base64), a third larger than the pictures are.
"""

import base64
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from console import UserError, progress
from explain.gallery.pages import CLUSTERS
from explain.rendering import SUFFIX
from machine.files import refuse_links, write_atomic
from machine.reading import Damaged, open_regular, read_csv, read_json, whole_number

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
    files = [*files_of(home)]

    def fill(file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        with zipfile.ZipFile(file, "w", strict_timestamps=False) as packed:  # a disk may have files of 1970
            for one in progress(files, f"packing {path.name}", unit="files"):
                how = zipfile.ZIP_DEFLATED if one.suffix in TEXT else zipfile.ZIP_STORED
                packed.write(one, f"{name}/{one.relative_to(home).as_posix()}", how)

    write_atomic(path, fill)
    return path


EACH = 96  # images whose pictures of one method are one script
MARK = "packed.json"  # in a packed folder: of which run it is


def packed_folder(results: Path) -> Path:
    """Where a gallery in few files goes: results-packed/ beside results/."""
    home = results.resolve()
    return home.with_name(f"{home.name}-packed")


def check_packed(results: Path, run: str) -> None:
    """Refuse to write into a folder that is there and no packed gallery of this run, before anything is drawn.

    Args:
        results: the gallery.
        run: its run's identity.
    """
    path = packed_folder(results)
    try:
        whose = run if not path.exists() or not any(path.iterdir()) else read_json(path / MARK, "")["run"]
    except (Damaged, OSError, TypeError, KeyError):
        whose = None
    if whose != run or path.is_symlink():
        what = "the packed gallery of another run" if isinstance(whose, str) and whose != run else "no packed gallery"
        raise UserError(f"--few-files: {path} is there already and holds {what}: move it, or choose another --results")


def pack_pictures(results: Path, run: str) -> Path:
    """Copy a gallery into few files, which open from disk as it does; returns their folder.

    Args:
        results: the gallery; nothing in it is changed.
        run: its run's identity.
    """
    home, out = results.resolve(), packed_folder(results)
    out.mkdir(exist_ok=True)
    refuse_links(out)
    write_atomic(out / MARK, json.dumps({"run": run}).encode())
    epochs = [path.parent for path in home.glob("*/explanations.csv") if whole_number(path.parent.name) is not None]
    held: set[Path] = set()  # pictures that are in scripts
    kept = {out / MARK}
    for epoch in sorted(epochs):
        scripts = [*write_packs(epoch, out / epoch.name, held)]
        kept |= {*scripts, out / epoch.name / CLUSTERS}
    for path in progress([*files_of(home)], f"packing {out.name}", unit="files"):
        if path in held or path.name == "results.json":  # without it no call takes the copy for a gallery to draw in
            continue
        copy = out / path.relative_to(home)
        if copy not in kept:
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(copy, path.read_bytes(), durable=False)
            kept.add(copy)
    for path in out.rglob("_pictures-*.js"):  # no other file: an edits.csv may have been saved here
        if path not in kept:
            path.unlink()  # of an earlier packing, whose clusters were others
    return out


def write_packs(epoch: Path, out: Path, held: set[Path]) -> Iterator[Path]:
    """The scripts of an epoch's pictures and the page's index of them; adds to `held` what is in them."""
    if not (epoch / CLUSTERS).is_file():
        raise Damaged(epoch, f"{CLUSTERS} is gone", f"explain with --epoch {epoch.name} again")
    methods: dict[str, dict[str, list[tuple[str, Path]]]] = {}  # cluster -> method -> name and file, in their order
    order: dict[str, list[str]] = {}  # cluster -> names
    for row in read_csv(epoch / "explanations.csv"):
        for key, cell in row.items():
            cluster, _, file = cell.rpartition("/")
            end = next((f"-{key}{suffix}" for suffix in SUFFIX.values() if file.endswith(f"-{key}{suffix}")), None)
            if (
                end is None
                or whole_number(cluster) is None
                or not (epoch / cell).is_file()
                or (epoch / cell).is_symlink()
            ):
                continue
            names = order.setdefault(cluster, [])
            if not names or names[-1] != file.removesuffix(end):
                names.append(file.removesuffix(end))
            methods.setdefault(cluster, {}).setdefault(key, []).append((file.removesuffix(end), epoch / cell))
    for cluster, by_method in progress(methods.items(), f"packing epoch {epoch.name}", len(methods), unit="clusters"):
        (out / cluster).mkdir(parents=True, exist_ok=True)
        chunk_of = {name: at // EACH for at, name in enumerate(order[cluster])}
        for key, pictures in by_method.items():
            for chunk in sorted({chunk_of[name] for name, _ in pictures}):
                inside = {name: path for name, path in pictures if chunk_of[name] == chunk}
                name = f"_pictures-{key}-{chunk:04d}.js"
                texts = {one: base64.b64encode(path.read_bytes()).decode() for one, path in inside.items()}
                script = f"takePack({json.dumps(f'{cluster}/{name}')}, {json.dumps(texts)});\n"
                write_atomic(out / cluster / name, script.encode(), durable=False)
                held |= {*inside.values()}
                yield out / cluster / name
    out.mkdir(exist_ok=True)  # also of an epoch without pictures
    index = f"const packs = {json.dumps({'each': EACH, 'files': order})};\n"
    write_atomic(out / CLUSTERS, (epoch / CLUSTERS).read_bytes() + index.encode(), durable=False)


def files_of(home: Path) -> Iterator[Path]:
    """All files of a folder but links and what only a further call would need."""
    for one in sorted(home.rglob("*")):
        hidden = any(part.startswith(".") for part in one.relative_to(home).parts)
        if one.is_file() and not one.is_symlink() and not hidden:
            yield one
