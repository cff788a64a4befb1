"""Runs that see coins in a view: chosen by itself, said, refused where it cannot be, and used by all that follows."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import call_main, strike
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_deepcluster_main import call

import runs
from console import UserError
from datasets import look, open_dataset
from datasets.__main__ import main as datasets_main
from datasets.places import place_at
from datasets.view import VIEWS
from deepcluster import cluster, launch, open_run
from deepcluster.__main__ import build_parser
from deepcluster.backbones import smallest_size
from deepcluster.config import suits
from deepcluster.descriptors import facts_of
from deepcluster.features import embed
from deepcluster.launch import check_options, choose_facts, configure, open_in_view
from deepcluster.models import build
from deepcluster.train import reduce
from deepcluster.views import Frames, fixed_view
from explain.__main__ import main as explain
from machine.files import read_csv

CPU = torch.device("cpu")
SETTINGS = {"size": 64, "k": 2, "epochs": 2, "batch": 8, "save_every": 1}
TRAIN = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]


def asked(data, *words):
    return build_parser().parse_args(["train", str(data), "--size", "64", *words])


@pytest.fixture(scope="module")
def trained(struck, tmp_path_factory):
    """With everything that is not named left to itself."""
    exp = tmp_path_factory.mktemp("unrolled") / "exp"
    cluster(struck, exp, **SETTINGS)
    return exp


# --- which view ------------------------------------------------------------------------------------------------------


def test_coins_are_seen_unrolled_unless_something_else_is_asked_for(struck, capsys):
    dataset = open_in_view(asked(struck))
    said = capsys.readouterr().out
    assert said.startswith("view: unrolled, the coin's relief unrolled about its centre")
    assert "(--view photograph leaves them as they are)" in said
    assert "no coin was found" not in said
    assert dataset.view == "unrolled"
    assert {tuple(shape) for shape in dataset.pixels.shape.tolist()} == {(32, 128)}
    for words, view in (
        (["--view", "photograph"], "photograph"),
        (["--view", "coin"], "coin"),
        (["--view", "relief"], "relief"),
        (["--preset", "paper"], "photograph"),
        (["--preset", "paper", "--view", "unrolled"], "unrolled"),
    ):
        options = asked(struck, *words)
        assert open_in_view(options).view == options.view == view
        assert capsys.readouterr().out.startswith("" if view == "photograph" else f"view: {view}, {VIEWS[view].says}")


def test_what_is_no_coin_is_seen_as_it_is_without_a_word(capsys):
    assert open_in_view(asked("dots:test", "--limit", "6")).view == "photograph"
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Eight grey cards and two coins among them."""
    root = tmp_path_factory.mktemp("plain") / "cards"
    root.mkdir()
    for i in range(8):
        card = np.full((80, 100, 3), 100 + 8 * i, np.uint8)
        Image.fromarray(card).save(root / f"{i}.png")
    for i in range(2):
        strike(root / f"coin-{i}.png", 50 + i, i)
    return root


def test_where_hardly_any_coin_is_found_the_photograph_is_seen_and_that_is_said(plain, tmp_path, capsys):
    options = asked(plain)
    dataset = open_in_view(options)
    assert dataset.view == options.view == "photograph"
    assert capsys.readouterr().out == (
        "no coin was found in 8 of 10 photographs: the network sees them as they are (--view unrolled insists)\n"
    )
    assert tuple(dataset.pixels.shape[0]) == (73, 91)  # decoded as for photographs
    config = configure(options, suits(options.preset, dataset))
    assert (config.view, config.neck) == ("photograph", "mlp")

    insisted = open_in_view(asked(plain, "--view", "unrolled"))
    assert "; in 8 of 10 photographs no coin was found, they are seen whole" in capsys.readouterr().out
    assert insisted.view == "unrolled"
    assert [place.found for place in insisted.places] == [False] * 8 + [True] * 2


def test_half_of_the_coins_found_are_enough(plain, monkeypatch):
    monkeypatch.setattr(launch, "MOST_WITHOUT", 0.8)  # eight of ten
    assert open_in_view(asked(plain)).view == "unrolled"
    monkeypatch.setattr(launch, "MOST_WITHOUT", 0.79)
    assert open_in_view(asked(plain)).view == "photograph"


def test_prepare_falls_back_to_the_photograph_as_a_training_does(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path))
    code, said, _ = call_main(datasets_main, "datasets", monkeypatch, capsys, "prepare", plain)
    assert (code, "no coin was found in 8 of 10 photographs" in said) == (0, True)
    assert said.splitlines()[1].endswith("view: photograph")
    made = {path.name for path in (tmp_path / "pixels").iterdir()}
    assert open_in_view(build_parser().parse_args(["train", str(plain)])).view == "photograph"
    assert {path.name for path in (tmp_path / "pixels").iterdir()} == made


def test_the_settings_that_suit_a_view(struck):
    settings = {}
    for view in ("photograph", "coin", "relief", "unrolled"):
        options = asked(struck, "--view", view)
        settings[view] = configure(options, suits(options.preset, open_in_view(options)))
        assert settings[view].rotate == 180
        assert not settings[view].sobel
        assert settings[view].decode_at_most == (73 if view == "photograph" else 128)
    assert [config.neck for config in settings.values()] == ["mlp", "mlp", "mlp", "spectrum"]
    options = asked(struck, "--neck", "mlp")
    assert configure(options, suits(options.preset, open_in_view(options))).neck == "mlp"


def test_the_neck_that_goes_around_is_refused_elsewhere(struck, plain):
    with pytest.raises(UserError, match=r"--neck spectrum: .* use --view unrolled, not coin"):
        check_options(asked(struck, "--neck", "spectrum", "--view", "coin"))
    for data, words in ((plain, []), (struck, ["--preset", "paper"]), ("dots:test", ["--limit", "4"])):
        options = asked(data, "--neck", "spectrum", *words)
        check_options(options)  # the pictures are not known yet
        dataset = open_in_view(options)
        with pytest.raises(UserError, match=r"--neck spectrum: .* but the view is the photograph"):
            configure(options, suits(options.preset, dataset))


@pytest.mark.parametrize("arch", ["alexnet", "vgg16"])
def test_too_small_a_size_is_told_the_least_of_its_view(struck, arch):
    least = {view: smallest_size(arch, view) for view in ("photograph", "unrolled")}
    assert least["photograph"] != least["unrolled"]
    for view, size in least.items():
        words = ["--view", view, "--arch", arch, "--size"]
        check_options(asked(struck, *words, str(size)))
        with pytest.raises(UserError, match=f"--size {size - 1} is too small for {arch}: use at least {size}$"):
            check_options(asked(struck, *words, str(size - 1)))
    unasked = asked(struck, "--arch", arch, "--size", str(least["unrolled"] - 1))  # coins: it will be unrolled
    with pytest.raises(UserError, match=f"at least {least['unrolled']}$"):
        check_options(unasked)


# --- measured facts beside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "facts"),
    [("size", "size"), ("Color", "colour"), ("colour, size", "size,colour"), ("size,size", "size"), ("none", "")],
)
def test_facts_are_read(struck, words, facts):
    assert asked(struck, "--with", words).facts == facts
    assert configure(asked(struck, "--view", "coin", "--with", words), {}).facts == facts


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--with", "shape"], "'shape' is not size, colour, size,colour or none"),
        (["--with", "size,"], "'size,' is not"),
        (["--with", ""], "'' is not"),
        (["--with", "size", "--with-weight", "0"], "above 0"),
        (["--with", "size", "--with-weight", "much"], "above 0"),
    ],
)
def test_other_facts_are_refused(struck, tmp_path, words, sentence, monkeypatch, capsys):
    code, _, said = call(monkeypatch, capsys, "train", struck, "--exp", tmp_path / "exp", *words)
    assert code == 2
    assert sentence in said


def test_a_run_with_facts_clusters_by_them_and_is_not_continued_without(tmp_path, monkeypatch, capsys):
    for i in range(16):  # one design at all angles on discs of two colours
        strike(tmp_path / "mint" / f"{i:02d}.png", i, 0)
        with Image.open(tmp_path / "mint" / f"{i:02d}.png") as picture:
            tinted = np.asarray(picture) * np.array([(1, 1, 1), (1, 0.75, 0.4)][i % 2])
        Image.fromarray(tinted.astype(np.uint8)).save(tmp_path / "mint" / f"{i:02d}.png")
    settings = SETTINGS | {"epochs": 1}
    colour = np.arange(16) % 2
    with_facts = cluster(tmp_path / "mint", tmp_path / "with", facts="colour", facts_weight=5, **settings)
    found = with_facts.frame()["cluster"].to_numpy()
    assert_array_equal(found == found[0], colour == 0)
    without = cluster(tmp_path / "mint", tmp_path / "without", facts="none", **settings).frame()["cluster"].to_numpy()
    assert not np.array_equal(without == without[0], colour == 0)
    assert with_facts.config.facts == "colour"
    command = ["train", tmp_path / "mint", "--exp", tmp_path / "with", *TRAIN, "--epochs", "1"]
    code, _, sentence = call(monkeypatch, capsys, *command, "--with", "size")
    assert code == 2
    assert "--facts colour (now size), --facts-weight 5.0 (now 1.2)" in sentence
    code, said, _ = call(monkeypatch, capsys, *command, "--facts-weight", "5")  # as the sentence calls it
    assert code == 0
    assert "agree" not in said.split("epochs, ")[0]  # which facts, that was decided when it was begun


def discs_of_two_designs(root, seed, framed=False):
    """Two designs at all angles, the one struck on larger and redder flans; `framed`: size and colour at random."""
    rng = np.random.default_rng(seed)
    for i in range(24):
        kind = i % 2
        large, red = (rng.random(), rng.random()) if framed else (kind, kind)
        strike(root / f"{i:02d}.png", 100 * seed + i, kind)
        with Image.open(root / f"{i:02d}.png") as picture:
            pixels = np.asarray(picture) * np.array([1, 1 - 0.3 * red, 1 - 0.5 * red])
        wide = np.full((200, 240, 3), 55.0) * [1, 1 - 0.3 * red, 1 - 0.5 * red]
        wide[40:160, 40:200] = pixels
        edge = round(40 * large)
        Image.fromarray(wide[edge : 200 - edge, edge : 240 - edge].astype(np.uint8)).save(root / f"{i:02d}.png")
    return root


def test_facts_that_go_with_the_design_are_clustered_beside_it_and_others_not(tmp_path, capsys):
    for name, framed, facts in (("mint", False, "size,colour"), ("camera", True, "")):
        dataset = open_in_view(asked(discs_of_two_designs(tmp_path / name, 3, framed)))
        capsys.readouterr()
        assert choose_facts(dataset, "stable") == facts
        said = capsys.readouterr().out
        assert said.startswith("coins of like design agree in size ")
        assert ("size and colour clustered beside it" if facts else "neither is clustered beside it") in said
        assert choose_facts(dataset, "paper") == ""
        assert choose_facts(open_dataset(str(tmp_path / name), 73), "stable") == ""  # of photographs it is not asked
        assert capsys.readouterr().out == ""


def test_the_defaults_of_unrolled_coins_are_their_own(struck):
    options = build_parser().parse_args(["train", str(struck)])
    dataset = open_in_view(options)
    assert tuple(dataset.pixels.shape[0]) == (48, 192)
    config = configure(options, suits(options.preset, dataset))
    assert (config.size, config.epochs, config.spectrum_epochs, config.facts_weight) == (96, 8, 3, 1.2)
    for words, epochs in ((["--epochs", "4"], 2), (["--epochs", "1"], 0), (["--spectrum-epochs", "5"], 5)):
        assert configure(asked(struck, "--view", "unrolled", *words), {}).spectrum_epochs == epochs
    assert configure(asked(struck, "--view", "photograph"), {}).spectrum_epochs == 0


# --- a run, and what reads it -----------------------------------------------------------------------------------------


def test_the_run_says_what_its_network_saw(trained):
    meta = json.loads((trained / "run.json").read_text())
    assert meta["view"]["name"] == meta["config"]["view"] == meta["model"]["view"] == "unrolled"
    assert meta["config"]["neck"] == meta["model"]["neck"] == "spectrum"
    assert meta["view"]["decode_at_most"] == 128
    assert build(meta["model"]).arguments == meta["model"]


def test_the_same_command_continues_and_another_view_is_refused(trained, struck, monkeypatch, capsys):
    before = (trained / "clusters.csv").read_bytes()
    code, said, _ = call(monkeypatch, capsys, "train", struck, "--exp", trained, *TRAIN)
    assert code == 0
    assert "view: unrolled" in said
    code, _, sentence = call(monkeypatch, capsys, "train", struck, "--exp", trained, *TRAIN, "--view", "photograph")
    assert code == 2
    assert "--view unrolled (now photograph)" in sentence
    assert "--neck spectrum (now mlp)" in sentence
    assert (trained / "clusters.csv").read_bytes() == before


def test_a_run_that_saw_an_earlier_version_of_the_view_is_neither_continued_nor_explained(
    trained, struck, tmp_path, monkeypatch, capsys
):
    """Its network would be shown other pixels than it learnt from."""
    old = tmp_path / "exp"
    shutil.copytree(trained, old)
    meta = json.loads((old / "run.json").read_text())
    assert meta["view"].pop("drawn") == VIEWS["unrolled"].version > 1
    (old / "run.json").write_text(json.dumps(meta))  # as they were before versions were written down
    code, _, sentence = call(monkeypatch, capsys, "train", struck, "--exp", old, *TRAIN)
    assert code == 2
    assert "was begun with version 1 of the view unrolled, which this program draws as version 2" in sentence
    for words in (("draw", "--data", struck), ("audit", "--data", struck), ("image", next(struck.rglob("*.*")))):
        command = (words[0], "--run", old, *words[1:])
        code, _, sentence = call_main(explain, "explain", monkeypatch, capsys, *command)
        assert (code, "the run sees version 1 of the view unrolled" in sentence) == (2, True), words
    command = ("export", "--run", old, "--data", struck, "--out", tmp_path / "out")  # which shows the network nothing
    assert call_main(explain, "explain", monkeypatch, capsys, *command)[0] == 0
    code, _, sentence = call(
        monkeypatch, capsys, "predict", "--run", old, "--images", struck, "--out", tmp_path / "new.csv"
    )
    assert (code, "the run sees version 1 of the view unrolled" in sentence) == (2, True)


def test_a_run_that_fell_back_to_the_photograph_continues_so(plain, tmp_path, monkeypatch, capsys):
    cluster(plain, tmp_path / "exp", **(SETTINGS | {"epochs": 1}))
    assert runs.open_run(tmp_path / "exp").meta.view.name == "photograph"
    monkeypatch.setattr(launch, "MOST_WITHOUT", 1.0)  # today's default would be another
    code, said, _ = call(monkeypatch, capsys, "train", plain, "--exp", tmp_path / "exp", *TRAIN, "--epochs", "1")
    assert code == 0
    assert "view:" not in said


def test_features_and_predictions_are_of_the_view(trained, struck, tmp_path, monkeypatch, capsys):
    run = open_run(trained)
    dataset = look(open_dataset(str(struck), 73, at_most=128), "unrolled", 64)
    wanted = embed(run.network(), Frames(dataset.pixels, CPU), run.config, "")
    features = run.features(device="cpu")
    assert features.shape == (24, 512)
    assert_allclose(features, wanted.features, rtol=1e-4, atol=1e-5)
    assert_array_equal(run.images([3]), fixed_view(Frames(dataset.pixels, CPU), np.array([3]), 64, False, "unrolled"))

    out = tmp_path / "features.npz"
    assert call(monkeypatch, capsys, "features", "--run", trained, "--out", out, "--device", "cpu")[0] == 0
    with np.load(out) as written:
        assert_allclose(written["features"], features, rtol=1e-4, atol=1e-5)
        assert written["images"].tolist() == dataset.ids

    moved = tmp_path / "coins-elsewhere"
    for i in (0, 1, 5):
        name = dataset.ids[i]
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).write_bytes((struck / name).read_bytes())
    table = tmp_path / "new.csv"
    assert call(monkeypatch, capsys, "predict", "--run", trained, "--images", moved, "--out", table)[0] == 0
    with table.open() as file:
        new = {row["image"]: row for row in csv.DictReader(file)}
    old = {row["image"]: row for row in read_csv(trained / "clusters.csv")}
    assert len(new) == 3
    for name, row in new.items():
        assert row["cluster"] == old[name]["predicted"]
        assert float(row["probability"]) == pytest.approx(float(old[name]["probability"]), abs=2e-5)


def test_compare_clusters_again_what_the_run_saw(trained, tmp_path, monkeypatch, capsys):
    from deepcluster import compare

    seen = []
    again = compare.cluster_again
    monkeypatch.setattr(compare, "cluster_again", lambda *a, **k: seen.append(again(*a, **k)) or seen[-1])
    ids = open_run(trained).run.ids
    labels = tmp_path / "labels.csv"
    labels.write_text("image,type\n" + "".join(f"{name},{name[0]}\n" for name in ids))
    code, said, _ = call(
        monkeypatch, capsys, "compare", "--run", trained, "--labels", labels, "--out", tmp_path / "out", "--within",
        "folder",
    )  # fmt: skip
    assert code == 0
    assert "24 of 24 images" in said
    (clustered,) = seen
    run = open_run(trained)
    facts = facts_of(open_dataset(run.run.meta.dataset.source, 73, at_most=128), run.config)
    wanted = reduce(torch.from_numpy(run.features(device="cpu")), run.config, facts)
    assert_allclose(clustered[compare.THIS].features, wanted, atol=2e-3)


def test_turning_a_coin_changes_its_features_less_than_another_design_does():
    """Of actual pictures, each turned as a whole, before any training.

    The map has 16 cells in a turn. By quarter turns the features stay, to a hundredth of the way to another design; by
    two cells, 45 degrees, for which pixels are resampled, to a fifth; between two cells they go up to half of that way,
    which training has to make up for.
    """
    net = build({"arch": "alexnet", "size": 128, "k": 2, "sobel": False, "neck": "spectrum", "view": "unrolled"}, 3)
    net.eval()
    side, place = 201, place_at(100, 100, 80, confidence=1.0)

    def struck_coin(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        picture = np.full((side, side), 120, np.uint8)
        for _ in range(8):
            ends = rng.normal(100, 32, (2, 2)).astype(int)
            cv2.line(picture, ends[0].tolist(), ends[1].tolist(), int(rng.choice([70, 180])), 6, cv2.LINE_AA)
        return cv2.GaussianBlur(picture, (0, 0), 1.5)

    @torch.no_grad()
    def embedded(picture: np.ndarray) -> np.ndarray:
        drawn = VIEWS["unrolled"].draw(np.repeat(picture[..., None], 3, 2), place, 128)
        pixels = torch.from_numpy(drawn).permute(2, 0, 1)[None].float()
        return net.embed((pixels / 255 - 0.45) / 0.225)[0].numpy()

    ratios = {}
    for seed in range(4):
        own, other = embedded(struck_coin(seed)), embedded(struck_coin(seed + 10))
        for degrees in (7, 33, 45, 90, 161, 270):
            to = cv2.getRotationMatrix2D((100, 100), degrees, 1)
            turned = cv2.warpAffine(
                struck_coin(seed), to, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            ratios[seed, degrees] = np.linalg.norm(embedded(turned) - own) / np.linalg.norm(other - own)
    print(ratios)
    assert max(ratio for (_, degrees), ratio in ratios.items() if degrees % 90 == 0) < 0.01
    assert max(ratio for (_, degrees), ratio in ratios.items() if degrees == 45) < 0.2
    assert max(ratios.values()) < 0.6
