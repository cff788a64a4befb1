"""What a stranger's folder, a bad disk, a sync program or a careless call may not do. A kind of attack, a test."""

import json
import os
import subprocess
import sys
import threading
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, a_meta, call_main, photograph, refused, run_module
from PIL import Image

import runs
from console import UserError, plain
from datasets import cache, decoding, folder, open_dataset
from datasets.decoding import BadImage, decode
from deepcluster.config import PRESETS, read_config
from explain.record import file_names
from explain.scores import project
from machine.files import (
    FORMULA,
    harmless,
    home_path,
    locked,
    read_csv,
    refuse_links,
    spared,
    sweep,
    waiting_for,
    write_atomic,
    write_csv,
)
from machine.reading import Damaged, read_json, read_npz
from runs.meta import Meta
from runs.tensors import load_tensors, save_tensors


@pytest.fixture
def run(tmp_path):
    return runs.begin(tmp_path / "exp", a_meta(3), ["a.jpg", "b.jpg", "c.jpg"], None, [])


# --- links -----------------------------------------------------------------------------------------------------------


def test_no_link_in_a_received_folder_makes_us_write_elsewhere(tmp_path):
    victim, home = tmp_path / "victim", tmp_path / "results"
    victim.write_text("precious")
    home.mkdir()
    (home / f".results.json.{os.getpid()}.tmp").symlink_to(victim)
    write_atomic(home / "results.json", b"ours")
    (home / "index.html").symlink_to(victim)
    write_atomic(home / "index.html", b"ours")
    assert not (home / "index.html").is_symlink()
    (home / ".lock").symlink_to(victim)
    with pytest.raises(UserError, match="a link to another file"), locked(home, "busy"):
        pass
    with pytest.raises(UserError, match="a link to another file"), waiting_for(home / ".lock"):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("place", ["clusters", "checkpoints", "figures"])
def test_links_among_a_runs_folders_are_refused(run, tmp_path, place):
    (tmp_path / "outside").mkdir()
    (run.path / place).rmdir()
    (run.path / place).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=f"{place}: a link to another folder"):
        runs.open_run(run.path)
    with pytest.raises(UserError, match="a link to another folder"), run.hold():
        pass


def test_links_among_epochs_and_clusters_are_refused(tmp_path):
    (tmp_path / "results" / "2").mkdir(parents=True)
    (tmp_path / "results" / "2" / "0").symlink_to(tmp_path)
    with pytest.raises(UserError, match="2/0: a link to another folder"):
        refuse_links(tmp_path / "results")
    (tmp_path / "short").symlink_to(tmp_path / "results")  # the folder itself is its owner's affair
    (tmp_path / "results" / "2" / "0").unlink()
    refuse_links(tmp_path / "short")


def test_scratch_of_a_killed_writer_goes_and_that_of_a_living_one_stays(tmp_path):
    old, new = tmp_path / ".log.csv.12.tmp", tmp_path / ".log.csv.13.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name]


# --- names and words ---------------------------------------------------------------------------------------------


def test_a_carriage_return_in_a_name_survives_every_table(tmp_path):
    names = ["a\rb.jpg", "\r", "c\r\nd.jpg", "plain.jpg"]
    run = runs.begin(tmp_path / "exp", a_meta(4), names, None, [("Icon\r", "not an image")])
    assert runs.open_run(run.path).ids == names
    write_csv(run.path / "clusters.csv", [{"image": name, "cluster": 0} for name in names])
    assert [row["image"] for row in run.table()] == names
    assert read_csv(run.path / "skipped.csv") == [{"file": "Icon\r", "reason": "not an image"}]
    assert (run.path / "images.csv").read_bytes().startswith(b'image\n"a\rb.jpg"\n')


def test_formulas_and_escapes_are_harmless_where_people_look(tmp_path):
    for text in ('=cmd|"/C calc"!A0', "+1", "-1", "@x", "\t=1"):
        assert not harmless(text).startswith(FORMULA)
        assert harmless(text).isprintable()
    assert harmless("=1+1") == "'=1+1"
    assert spared(harmless("=1+1")) == "=1+1"
    assert harmless("croix à l'anille") == spared("croix à l'anille") == "croix à l'anille"
    assert plain("\x1b[2J\udcff\n") == r"\x1b[2J\udcff\n"
    run = runs.begin(tmp_path / "exp", a_meta(2), ["=1.jpg", "b.jpg"], None, [])
    run.write_clusters(1, runs.Clusters(np.array([0, 0]), np.zeros(2)))
    edits = [("name", "", "=HYPERLINK(1)", ""), ("note", "=1.jpg", "", "\x1b]0;x\x07\nsecond line")]
    rows = [
        {"epoch": 1, "image": image, "cluster": 0, "action": action, "value": value, "note": note}
        for action, image, value, note in edits
    ]
    write_csv(tmp_path / "edits.csv", rows)
    done = run_module("explain", "apply", "--run", run.path, "--edits", tmp_path / "edits.csv")
    assert done.returncode == 0, done.stderr
    table = read_csv(run.path / "clusters-edited.csv")
    assert [row["image"] for row in table] == run.ids  # exactly
    assert {row["name"] for row in table} == {"'=HYPERLINK(1)"}
    log = (run.path / "clusters-edited.log").read_text()
    assert "\x1b" not in log
    assert len(log.splitlines()) == 4


def test_names_that_are_no_text_and_obeyed_by_terminals_can_be_printed(tmp_path):
    """Under an ordinary UTF-8 locale, whose streams refuse lone surrogates."""
    home = tmp_path / os.fsdecode(b"M\xfcnzen\x1b[31m")
    photograph(home / "a.jpg", 0)
    (home / os.fsdecode(b"\xff.jpg")).write_bytes(b"nothing")
    done = run_module("datasets", "check", home, "--sheet", tmp_path / "s.jpg", PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert r"M\udcfcnzen\x1b[31m: 1 usable images, 1 files" in done.stdout


def test_two_pictures_never_share_a_file():
    ids = ["a b.jpg", "a+b.jpg"]
    ids.append(f"{file_names(ids)[0]}.jpg")
    assert len(set(file_names(ids))) == 3
    assert file_names(["plain.jpg", "folder/x.jpg"]) == ["plain", "folder_x"]


# --- photographs -------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_listed_and_passed_over(tmp_path):
    photograph(tmp_path / "in" / "good.jpg", 1)
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    (tmp_path / "in" / "zero.jpg").symlink_to("/dev/zero")
    with (tmp_path / "in" / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 40)  # of zeros, on no disk
    dataset = open_dataset(str(tmp_path / "in"), 32)
    assert dataset.ids == ["good.jpg"]
    assert dict(dataset.skipped) == {
        "pipe.jpg": "not a regular file",
        "zero.jpg": "not a regular file",
        "sparse.jpg": "larger than 4 GB",
    }
    with pytest.raises(BadImage, match="not a regular file"):
        decode(tmp_path / "in" / "pipe.jpg")


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 1000)
    at_once, most = 0, 0
    before, counting = decoding._colours, threading.Lock()

    def count(image):
        nonlocal at_once, most
        with counting:
            at_once += 1
            most = max(most, at_once)
        try:
            return before(image)
        finally:
            with counting:
                at_once -= 1

    monkeypatch.setattr(decoding, "_colours", count)
    for i in range(16):
        photograph(tmp_path / f"{i}.jpg", i, side=400)
    assert len(open_dataset(str(tmp_path), 300, workers=8)) == 16
    assert most == 1


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "RGB"])
def test_a_large_picture_takes_little_more_memory_than_its_pixels(tmp_path, mode):
    """Before, 149 megapixels took 4,032 MiB at 16 bits and 3,465 MiB in RGBA: 28 and 24 bytes a pixel."""
    side = 5000
    Image.new(mode, (side, side)).save(tmp_path / "flat.png")
    program = """
import resource, sys
from pathlib import Path
from datasets.decoding import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decode(Path(sys.argv[1]), 73).shape == (73, 73, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, tmp_path / "flat.png"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 11 * side * side


def test_strips_change_no_pixel(monkeypatch):
    rng = np.random.default_rng(0)
    deep = Image.fromarray(rng.integers(0, 2**16, (70, 50)).astype(np.uint16))
    clear = Image.fromarray(rng.integers(0, 256, (70, 50, 4)).astype(np.uint8))
    whole = [np.asarray(decoding._colours(image)) for image in (deep, clear)]
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    np.testing.assert_array_equal(whole[0], (np.asarray(deep) / 65535 * 255 + 0.5).astype(np.uint8))
    np.testing.assert_array_equal(whole[1], np.asarray(white))
    monkeypatch.setattr(decoding, "STRIP", 130)
    for image, before in zip((deep, clear), whole, strict=True):
        np.testing.assert_array_equal(np.asarray(decoding._colours(image)), before)


@pytest.mark.parametrize("damage", ["short bin", "no bin", "empty json", "no json", "other json", "whole gone"])
def test_a_damaged_pixel_cache_heals(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path / "cache"))
    for i in range(3):
        photograph(tmp_path / "in" / f"{i}.jpg", i)
    before = open_dataset(str(tmp_path / "in"), 32)
    last = before.pixels[2].copy()  # the file it is mapped from is about to shrink
    (entry,) = (tmp_path / "cache" / "pixels").iterdir()
    pixels, vouching = entry / "00000.bin", entry / "00000.json"
    content = json.loads(vouching.read_text())
    wrong = json.dumps({"images": [[0, 32, 32]] * 3, "skipped": []})
    {
        "short bin": lambda: pixels.write_bytes(pixels.read_bytes()[:100]),
        "no bin": pixels.unlink,
        "empty json": lambda: vouching.write_text(""),
        "no json": vouching.unlink,
        "other json": lambda: vouching.write_text(wrong),
        "whole gone": lambda: [path.unlink() for path in (pixels, vouching)],
    }[damage]()
    again = open_dataset(str(tmp_path / "in"), 32)
    assert again.ids == before.ids
    np.testing.assert_array_equal(again.pixels[2], last)
    assert json.loads(vouching.read_text()) == content


def test_an_entry_of_the_cache_is_made_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for i in range(50):
            archive.writestr(f"{i}.jpg", b"x" * 1000)
    made, barrier, errors = [], threading.Barrier(8), []
    check = folder._check_size
    monkeypatch.setattr(folder, "_check_size", lambda *asked: (made.append(1), check(*asked)))

    def unpack() -> None:
        try:
            barrier.wait()
            assert len(folder.list_files(folder.unpack(tmp_path / "in.zip"))) == 50
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=unpack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(made) == 1
    home = tmp_path / "cache" / "unpacked"
    assert len(list(home.iterdir())) == 1
    (home / "other.partial").mkdir()  # of a killed process
    cache.made_once(home / "other", lambda partial: (partial / "new").touch())
    assert [path.name for path in (home / "other").iterdir()] == ["new"]
    assert not (home / "other.partial").exists()


def test_a_full_disk_of_the_cache_is_named_and_decoding_continues(tmp_path, monkeypatch, small_disk):
    disk = small_disk("64k")
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(disk / "cache"))
    for i in range(4):
        photograph(tmp_path / "in" / f"{i}.jpg", i)
    with pytest.raises(UserError, match=rf"no space left for the cache {disk}/cache: set DEEPCLUSTER_CACHE"):
        open_dataset(str(tmp_path / "in"), 96)
    small_disk("16m")
    assert len(open_dataset(str(tmp_path / "in"), 96)) == 4


def test_notes_of_what_was_read_that_are_damaged_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path / "cache"))
    photograph(tmp_path / "in" / "a.jpg", 0)
    first = cache.content_digests(tmp_path / "in", ["a.jpg"])
    (notes,) = (tmp_path / "cache" / "digests").iterdir()
    whole = notes.read_bytes()
    for damage in (b"7", b"[]", b"", b'{"a.jpg": 7}', whole[:-9]):
        notes.write_bytes(damage)
        assert cache.content_digests(tmp_path / "in", ["a.jpg"]) == first
        assert notes.read_bytes() == whole


def a_zip(path: Path, **names: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return path


def test_zips_that_cannot_be_unpacked_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path / "cache"))
    both = a_zip(tmp_path / "both.zip", **{"a": b"x", "a/1.jpg": b"x"})
    with pytest.raises(UserError, match=r"both\.zip.*a file and a folder of one name"):
        folder.unpack(both)
    long = a_zip(tmp_path / "long.zip", **{"n" * 300 + ".jpg": b"x"})
    with pytest.raises(UserError, match=r"long\.zip.*too long"):
        folder.unpack(long)
    raw = bytearray(a_zip(tmp_path / "locked.zip", **{"a.jpg": b"x"}).read_bytes())
    raw[6] |= 1  # says that it is encrypted, in both places
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    with pytest.raises(UserError, match=r"it is encrypted.*without a password"):
        folder.unpack(tmp_path / "locked.zip")
    monkeypatch.setattr(folder, "LARGE", 1 << 16)
    with pytest.raises(UserError, match="200 times its size"):
        folder.unpack(a_zip(tmp_path / "bomb.zip", **{"a.jpg": bytes(1 << 22)}))
    with pytest.raises(UserError, match="points outside"):
        folder.unpack(a_zip(tmp_path / "drive.zip", **{"C:/a.jpg": b"x"}))
    colon = a_zip(tmp_path / "colon.zip", **{"scan 12:30.jpg": b"x"})
    assert folder.list_files(folder.unpack(colon)) == ["scan 12:30.jpg"]
    assert not list((tmp_path / "cache" / "unpacked").glob("*.partial"))


# --- runs --------------------------------------------------------------------------------------------------------


def test_of_two_trainings_begun_together_one_is_refused(tmp_path):
    """Each looks, opens its images, and begins; 50 times."""
    for attempt in range(50):
        path, barrier = tmp_path / str(attempt), threading.Barrier(2)
        ended: list[object] = []

        def start(seed: int, path: Path = path, barrier: threading.Barrier = barrier, ended: list = ended) -> None:
            try:
                assert runs.find_begun(path, "deepcluster") is None
                barrier.wait()
                with runs.hold(path):
                    ended.append(runs.begin(path, a_meta(2, seed=seed), [f"{seed}", "x"], None, []))
            except UserError as error:
                ended.append(error)

        threads = [threading.Thread(target=start, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (won,) = [one for one in ended if isinstance(one, runs.Run)]
        (lost,) = [one for one in ended if isinstance(one, UserError)]
        assert "another training" in str(lost)
        assert runs.open_run(path).meta == won.meta
        assert runs.open_run(path).ids == won.ids


def test_a_run_that_was_half_begun_is_none_and_is_begun_again(tmp_path):
    """As an import, or `--k auto`, that is killed before run.json."""

    def killed(run: runs.Run) -> None:
        run.write_table("k.csv", [{"k": 2}])
        run.write_table("clusters.csv", [{"image": "a"}])
        run.write_log([{"epoch": 3}])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.begin(tmp_path, a_meta(1), ["a"], None, [], killed)
    assert runs.find_begun(tmp_path, "deepcluster") is None
    run = runs.begin(tmp_path, a_meta(1), ["a"], None, [], lambda run: run.write_log([{"epoch": 4}]))
    assert runs.open_run(tmp_path).epochs() == run.epochs() == [4]


@pytest.mark.parametrize("part", range(16))
def test_a_cut_checkpoint_is_one_sentence(run, part):
    path = run.path / "checkpoints" / "epoch_0001.pt"
    save_tensors(path, {"epoch": 1, "model": {}, "state": {"w": torch.rand(200, 20)}})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * part // 16])
    with pytest.raises(Damaged, match="damaged"):
        run.checkpoint(1)


def test_copies_that_sync_programs_make_are_left_alone(run):
    for name in ("epoch_0002.pt", "epoch_0002 (1).pt", "epoch_0002 - Copy.pt", "epoch_x.pt"):
        (run.path / "checkpoints" / name).touch()
    assert run.checkpoints() == [2]


@pytest.mark.parametrize(
    "change",
    [{name: value} for name in ("threads", "seed") for value in (-1, "two", 1e3, None, True, 10**9 * 10**12)]
    + [{"view": a_meta().to_json()["view"] | {"size": size}} for size in (0, -5, "64", 100_000, float("nan"), True)]
    + [{"dataset": a_meta().to_json()["dataset"] | {"source": source}} for source in (7, None, [])]
    + [{"dataset": a_meta().to_json()["dataset"] | {"limit": 0}}, {"schema": True}, {"schema": float("inf")}],
    ids=str,
)
def test_absurd_values_in_a_run_json_are_named(tmp_path, change):
    with pytest.raises(UserError, match=r"run\.json"):
        Meta.from_json(a_meta().to_json() | change, tmp_path / "run.json")


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "none"}, {"preset": []}, {"size": 10**6}, {"size": "64"}, {"k": -1}, {"k": 10**12}, {"lr": "x"},
        {"lr": float("nan")}, {"lr": 1e300}, {"sobel": 1}, {"pca": 0}, {"epochs": True}, {"momentum": 2}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_settings_in_a_run_json_are_named(change):
    stored = PRESETS["stable"] | {"k": 5, "decode_at_most": 146}
    assert read_config(stored, Path("run.json")).k == 5
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        read_config(stored | change, Path("run.json"))


def test_readers_believe_no_number_in_a_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(3))
    assert read_npz(path, {"a": ("f", (3,))}, "mend")["a"].shape == (3,)
    for wanted in ({"b": ("f", (3,))}, {"a": ("i", (3,))}, {"a": ("f", (4,))}, {"a": ("f", (3, None))}):
        with pytest.raises(Damaged, match=r"a\.npz: damaged .*: mend"):
            read_npz(path, wanted, "mend")
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    with pytest.raises(Damaged, match="larger than the file"):
        read_npz(path, {"a": ("f", (None,))}, "mend")
    for text in ("[" * 100_000, "{", "", "1" * 5000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(Damaged, match=r"a\.json: damaged"):
            read_json(tmp_path / "a.json", "mend")
    (tmp_path / "a.csv").write_text('a,b\n1,"' + "x" * 2_000_000)
    with pytest.raises(Damaged, match=r"a\.csv: damaged .line"):
        read_csv(tmp_path / "a.csv")
    os.mkfifo(tmp_path / "pipe")
    for read in (read_csv, lambda path: read_json(path, ""), lambda path: read_npz(path, {}, ""), load_tensors):
        with pytest.raises(Damaged, match="not a regular file"):
            read(tmp_path / "pipe")


def test_seeds_beyond_32_bits_are_drawn_with_and_explained():
    points = np.random.default_rng(0).normal(size=(20, 5))
    np.testing.assert_array_equal(project(points, "pca", 5_000_000_000), project(points, "pca", 705_032_704))


# --- calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["datasets", "check", ""], "an empty name"),
        (["datasets", "check", "~nobody-at-all/photos"], "no such user's home"),
        (["datasets", "check", "painted:²"], "COUNT a number from"),
        (["datasets", "check", "painted:0"], "COUNT a number from"),
        (["datasets", "check", "painted:99999999999999999999"], "COUNT a number from"),
        (["datasets", "paint", "OUT", "--count", "1" + "0" * 20], "at most"),
        (["datasets", "prepare", "painted", "--size", "100000"], "a number of pixels from 1 to 4096"),
        (["datasets", "prepare", "painted:14", "--size", "1"], "too small for the view unrolled: use at least 2"),
        (["datasets", "prepare", "painted:14", "--decode-at-most", "50"], "at least the 96 pixels of --size"),
        (["runs", "sheet", "."], "name a sheet of experiments"),
        (["deepcluster", "train", "x", "--size", "100000"], "a number of pixels from 1 to 4096"),
        (["deepcluster", "train", "x", "--seed", str(2**65)], "a whole number from 0"),
        (["deepcluster", "train", "x", "--wd", "nan"], "'nan' is not a number"),
        (["deepcluster", "train", "x", "--wd", "1e300"], "up to a billion"),
        (["deepcluster", "train", "x", "--lr", "1e30"], "up to a billion"),
        (["deepcluster", "train", "x", "--whiten", "nan"], "'nan' is not a number"),
        (["explain", "draw", "--run", "x", "--target", "²"], "the number of a cluster"),
        (["explain", "draw", "--run", "x", "--target", "9" * 5000], "the number of a cluster"),
        (["explain", "audit", "--run", "x", "--shard", "9/8"], "not a shard like 3/8"),
        (["datasets", "check", "x", "--workers", "-3"], "a whole number from 1"),
    ],
)
def test_absurd_options_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    given = [str(tmp_path / "out") if one == "OUT" else one for one in arguments]
    monkeypatch.chdir(tmp_path)
    main = import_module(f"{arguments[0]}.__main__").main
    code, _, sentence = call_main(main, arguments[0], monkeypatch, capsys, *given[1:])
    assert code == 2
    assert words in sentence


def test_a_cache_nobody_knows_of_is_one_sentence(monkeypatch):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", "~nobody-at-all")
    with pytest.raises(UserError, match="no such user's home"):
        cache.cache_root()
    monkeypatch.delenv("DEEPCLUSTER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UserError, match="set DEEPCLUSTER_CACHE"):
        cache.cache_root()
    with pytest.raises(UserError, match="an empty name"):
        home_path("")


def test_nothing_is_written_among_the_photographs(tmp_path):
    photograph(tmp_path / "photos" / "a.jpg", 0)
    for command in (["deepcluster", "train", "."], ["datasets", "check", "."]):
        assert "among the photographs" in refused(run_module(*command, cwd=tmp_path / "photos"))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("closed", ["| true", ">&-", "2>&-", ">&- 2>&-"])
def test_work_goes_on_though_nobody_reads(tmp_path, closed):
    """A reader that has gone (`| head -1`) or closed streams: the work is done all the same, and nothing is lost."""
    photograph(tmp_path / "in" / "a.jpg", 0)
    command = f"'{sys.executable}' -m datasets check in --sheet s.jpg {closed}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr  # nor a traceback
    assert (tmp_path / "s.jpg").stat().st_size > 100


@pytest.mark.parametrize("package", ["datasets", "deepcluster", "explain", "runs", "supervised"])
def test_ctrl_c_before_the_work_is_one_line(package):
    """What takes long to import is imported where Ctrl-C is caught."""
    program = f"import sys, {package}.__main__; print(*sorted({{'torch', 'sklearn', 'pandas'}} & sys.modules.keys()))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
