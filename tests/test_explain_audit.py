"""`python -m explain audit`: measured once, continued after a stop, shown in the gallery; where the heat is."""

import json
import os
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, call_main, run_module
from killed import contents
from nursery import begin_child

from console import UserError
from datasets.painted import TYPES, paint
from deepcluster import by_heart, cluster
from explain.__main__ import main
from explain.audit import command, faithfulness, findings, localisation, randomisation, stability
from explain.audit.controls import partners_of
from explain.audit.findings import (
    BETTER,
    BY_LUCK,
    SHARED,
    TOO_FEW,
    Figure,
    Finding,
    Measured,
    compare_with,
    correct_for_number,
    mean_of,
    share_of,
    what_is_said,
    write_findings,
)
from explain.audit.localisation import canonical, deciding_fields, shares_of
from explain.audit.page import draw_beside, save
from explain.audit.parts import PARTS
from explain.results import check_results
from machine.files import locked, read_csv, taken, write_json


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    root = tmp_path_factory.mktemp("painted") / "set"
    paint(root, 28, seed=3)
    return root / "images"


@pytest.fixture(scope="module")
def trained(painted, tmp_path_factory):
    exp = tmp_path_factory.mktemp("audited") / "exp"
    cluster(painted, exp, size=64, k=3, epochs=1, batch=8)
    return exp


@pytest.fixture(scope="module")
def audited(trained):
    """What the audit of a small run wrote, beside its gallery."""
    results = trained.parent / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_heart, "SHOWN", 32)
        patch.setattr(randomisation, "DRAWS", 2)
        patch.setattr(faithfulness, "FEW", 4)  # most of the time goes there; its figures have a file of tests
        patch.setattr(stability, "FEW", 6)
        for words in (
            ["--run", trained, "--per-cluster", "2"],
            ["audit", "--run", trained, "--images", "12", "--shuffled", "1"],
        ):
            patch.setattr(
                "sys.argv", ["python -m explain", *map(str, words), "--results", str(results), "--device", "cpu"]
            )
            main()
    return results


def audit(monkeypatch, capsys, *words):
    return call_main(
        main, "explain", monkeypatch, capsys, "audit", "--device", "cpu", "--images", "12", "--shuffled", "1", *words
    )


def test_every_part_is_measured_and_told(audited):
    rows = read_csv(audited / "1" / "audit" / "audit.csv")
    assert {row["part"] for row in rows} == {part.name for part in PARTS} - {
        "counterfactual",
        "retraining",
    }  # not `painted` itself; one run
    maps = {row["of"] for row in rows if row["part"] == "localisation"}
    assert {"HiRes-CAM", "HiRes-CAM, untrained", "HiRes-CAM, another image's map", "a blob in the middle"} <= maps
    page = (audited / "1" / "audit" / "index.html").read_text()
    for part in PARTS:
        assert part.title in page
    assert "times that a method was held against every control" in page
    said = json.loads((audited / "1" / "audit" / "said.json").read_text())
    assert list(said["parts"]) == [part.title for part in PARTS]
    assert "Guided Backprop" in said["methods"]


def test_the_gallery_repeats_what_was_found(audited):
    said = json.loads((audited / "1" / "audit" / "said.json").read_text())
    overview = (audited / "1" / "index.html").read_text()
    assert "The audit" in overview
    assert "Not audited yet" not in overview
    assert said["methods"]["Guided Backprop"][0] in overview  # in the caveat


def test_measured_once(trained, audited, monkeypatch, capsys):
    monkeypatch.setattr(localisation, "measure_shares", None)  # would fail if it were measured again
    before = (audited / "1" / "audit" / "audit.csv").read_bytes()
    (audited / "1" / "audit" / "audit.csv").unlink()
    code, said, _ = audit(monkeypatch, capsys, "--run", trained, "--results", audited)
    assert code == 0
    assert "Where the heat is:" in said
    assert "chance alone gives at most" in said
    assert (audited / "1" / "audit" / "audit.csv").read_bytes() == before


def test_a_damaged_part_is_measured_again(trained, audited, monkeypatch, capsys):
    path = audited / "1" / "audit" / ".localisation.json"
    before = json.loads(path.read_text())
    path.write_text(path.read_text()[:-20])
    assert audit(monkeypatch, capsys, "--run", trained, "--results", audited)[0] == 0
    again = json.loads(path.read_text())
    assert again | {"seconds": 0} == before | {"seconds": 0}  # the same figures


class StandIn:
    """A part that counts how often it is measured, and can be stopped."""

    about, drawn, leaves, compares, in_pieces = "", (), None, False, ""

    def __init__(self, name):
        self.name = self.title = name
        self.module, self.times, self.stopped = self, 0, False

    def measure(self, sample, asked):
        if self.stopped:
            raise KeyboardInterrupt
        self.times += 1
        return Measured([Finding(self.name, "x", "", float(len(sample.rows)))])

    def conclude(self, measured):
        return [f"{measured.findings[0].value:.0f} images"]


def test_stopped_it_continues_with_the_next_part(trained, tmp_path, monkeypatch, capsys):
    first, second = parts = (StandIn("first"), StandIn("second"))
    monkeypatch.setattr(command, "PARTS", parts)
    words = ["--run", trained, "--results", tmp_path / "results"]
    second.stopped = True
    audit(monkeypatch, capsys, *words)
    assert (first.times, second.times) == (1, 0)
    second.stopped = False
    code, said, _ = audit(monkeypatch, capsys, *words)
    assert code == 0
    assert said.count("12 images") == 2
    assert (first.times, second.times) == (1, 1)
    assert audit(monkeypatch, capsys, *words, "--seed", "2")[0] == 0  # other images
    assert (first.times, second.times) == (2, 2)
    draw = ["draw", "--per-cluster", "1", "--methods", "grad_cam", "--device", "cpu"]
    assert call_main(main, "explain", monkeypatch, capsys, *draw, *words)[0] == 0  # explained afterwards
    assert "12 images" in (tmp_path / "results" / "1" / "index.html").read_text()


FEW = ["--images", "3", "--shuffled", "0", "--methods", "grad_cam", "--device", "cpu"]


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """An audit of three images by one process, into new results; not to be changed."""
    results = tmp_path_factory.mktemp("alone") / "results"
    done = run_module("explain", "audit", "--run", trained, "--results", results, *FEW)
    assert done.returncode == 0, done.stderr
    return results


def test_two_processes_share_an_audit(trained, alone, tmp_path):
    """As torchrun starts them; what they leave is what one does, but for the time it took."""
    results, environment = tmp_path / "results", os.environ | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2"}
    words = ["explain", "audit", "--run", str(trained), "--results", str(results), *FEW]
    said = [tmp_path / f"{rank}.txt" for rank in range(2)]
    both = [
        begin_child(words, ROOT, environment | {"RANK": str(rank)}, [str(said[rank]), os.devnull]) for rank in range(2)
    ]
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    texts = [path.read_text() for path in said]
    assert all(f"shard {number} of 2 has measured its share" in text for number, text in enumerate(texts, 1))
    assert sum("in a browser" in text for text in texts) == 1
    assert contents(results) == contents(alone)


def test_a_shard_leaves_what_others_measure_and_takes_up_what_killed_ones_left(
    trained, alone, tmp_path, monkeypatch, capsys
):
    results, measured = tmp_path / "results", faithfulness.measure_piece
    folder = results / "1" / "audit"
    pieces = folder / command.PIECES
    words = ["audit", "--run", trained, "--results", results, *FEW]

    def stop_at_the_second(sample, asked, row):
        if any(pieces.glob("*.json")):
            raise KeyboardInterrupt
        return measured(sample, asked, row)

    monkeypatch.setattr(faithfulness, "measure_piece", stop_at_the_second)
    assert call_main(main, "explain", monkeypatch, capsys, *words)[0] == 130
    (first,) = pieces.glob("faithfulness-*.json")
    monkeypatch.setattr(faithfulness, "measure_piece", measured)
    with ExitStack() as held:  # as another that measures these
        held.enter_context(locked(folder, "", shared=True))
        for name in ("claims", *(f"faithfulness-{row}" for row in range(28))):
            assert held.enter_context(taken(pieces / f"{name}.lock"))
        code, said, _ = call_main(main, "explain", monkeypatch, capsys, *words, "--shard", "1/2")
        assert code == 0
        assert "other shards are still measuring: the last one makes the page" in said
        assert "another audit is measuring here" in call_main(main, "explain", monkeypatch, capsys, *words)[2]
    done = {path: path.stat().st_mtime_ns for path in folder.glob(".*.json")}
    assert {path.name for path in done} == {f".{part.name}.json" for part in PARTS} - {
        ".claims.json",
        ".faithfulness.json",
    }
    assert [path.name for path in pieces.glob("*.json")] == [first.name]
    code, said, _ = call_main(main, "explain", monkeypatch, capsys, *words, "--shard", "2/2")  # the others are gone
    assert code == 0
    assert "in a browser" in said
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert not pieces.exists()
    assert contents(results) == contents(alone)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "original"], "name a method that makes maps"),
        (["--table", "nowhere.csv"], "no such file"),
        (["--images", "0"], "--images"),
        (["--epoch", "7"], "7"),
        (["--epoch", "all"], "--epoch all"),
    ],
)
def test_careless_calls(trained, tmp_path, monkeypatch, capsys, words, sentence):
    code, _, said = audit(monkeypatch, capsys, "--run", trained, "--results", tmp_path / "results", *words)
    assert code == 2
    assert sentence in said


def test_a_file_where_the_folder_of_the_audit_would_be(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "results" / "1").mkdir(parents=True)
    (tmp_path / "results" / "1" / "audit").write_text("mine")
    code, _, said = audit(monkeypatch, capsys, "--run", trained, "--results", tmp_path / "results")
    assert code == 2
    assert "audit: a file is in the way" in said
    assert (tmp_path / "results" / "1" / "audit").read_text() == "mine"


def test_the_audit_of_another_run_is_not_written_over(tmp_path):
    """Also where nothing was drawn yet, so that no results.json tells whose the folder is."""
    folder = tmp_path / "1" / "audit"
    folder.mkdir(parents=True)
    for damaged in ("[]", "{}", '{"asked": 3}', "{"):
        (folder / ".damaged.json").write_text(damaged)
        check_results(tmp_path, SimpleNamespace(identity="theirs"))
    write_json(folder / ".claims.json", {"asked": {"run": "theirs"}})
    check_results(tmp_path, SimpleNamespace(identity="theirs"))
    with pytest.raises(UserError, match="audit of another run"):
        check_results(tmp_path, SimpleNamespace(identity="mine"))


MEASURED = Measured(
    [Finding("randomisation", "x", "Grad-CAM", 0.5)],
    {"cascade": Figure("A title", "layer", "rank", {"Grad-CAM": ([0.0, 1.0, 2.0], [1.0, float("nan"), 0.5])})},
    ["Nothing else."],
    1.5,
)


def keep(path, **changes):
    write_json(path, {"asked": {}, **command._to_json(MEASURED), **changes})
    return command._read(path, {})


def test_a_part_is_kept_whose_curve_is_not_known_everywhere(tmp_path):
    """As that of maps that are empty where a layer is random: it was measured again at every call."""
    kept = keep(tmp_path / "part.json")
    assert kept is not None
    assert kept.missing == ["Nothing else."]
    np.testing.assert_equal(kept.figures["cascade"].lines["Grad-CAM"], MEASURED.figures["cascade"].lines["Grad-CAM"])
    np.testing.assert_equal(kept.findings[0].low, float("nan"))


FIGURE = {"title": "t", "across": "a", "up": "u", "lines": {"m": [[0.0], [1.0]]}}
ROW = {
    "part": "p", "measure": "m", "of": "o", "value": 1.0, "low": None, "high": None, "n": 3, "control": "",
    "control_value": None, "p": None, "verdict": "",
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"findings": [ROW | {"value": "0.5"}]},
        {"findings": [ROW | {"of": 7}]},
        {"findings": [ROW | {"part": None}]},
        {"findings": [ROW | {"n": "three"}]},
        {"findings": [ROW | {"of": "half a letter \ud800"}]},
        {"findings": [{"part": "p"}]},
        {"findings": {"part": "p"}},
        {"figures": {"../../../elsewhere": FIGURE}},
        {"figures": {"x": FIGURE | {"lines": {"m": [[0.0, 1.0], [1.0]]}}}},
        {"figures": {"x": FIGURE | {"lines": {"m": [[0.0]]}}}},
        {"figures": {"x": FIGURE | {"title": None}}},
        {"missing": "Nothing"},
        {"seconds": None},
    ],
)
def test_a_part_that_someone_changed_is_measured_again(tmp_path, changes):
    sound = {"findings": [ROW], "figures": {"x": FIGURE}}
    assert keep(tmp_path / "part.json", **sound) is not None
    assert keep(tmp_path / "part.json", **(sound | changes)) is None


def test_names_of_an_own_table_are_drawn_as_they_are(tmp_path):
    """A $ begins no formula, a long name takes not the whole picture."""
    rows = [Finding("confounders", "$m^$", name, 0.5) for name in ("$\\frac$", "price in $ and $_", "x" * 5000)]
    assert (tmp_path / save(draw_beside("$m^$", rows, []), tmp_path, "picture", "", "")["name"]).exists()


def test_an_own_column_is_no_cluster_and_no_formula(tmp_path):
    rows = [
        Finding("confounders", "AMI with the clusters", "find 7", 0.5, verdict="The clusters follow it."),
        Finding("confounders", SHARED, "cluster 3", 0.5, verdict="All 5 have no prefix"),
        Finding("confounders", "AMI with the clusters", "=cmd|x (own table)", 0.5),
    ]
    assert what_is_said(rows, {}).groups == {"3": ["All 5 have no prefix"]}
    write_findings(tmp_path, rows)
    assert [row["of"][0] for row in read_csv(tmp_path / "audit.csv")] == ["f", "c", "'"]


def test_shares_of_a_map_that_one_can_count():
    heat = np.zeros((4, 4))
    heat[0, 0], heat[3, 3] = 3, 1
    masks = {"left": np.zeros((4, 4), bool), "all": np.ones((4, 4), bool), "none": np.zeros((4, 4), bool)}
    masks["left"][:, :2] = True
    found = shares_of(heat, masks)
    assert found["left"] == (0.75, 1.0, found["left"][2])
    assert found["all"] == (1.0, 1.0, 1.0)
    assert "none" not in found
    masks["left"][:] = False
    masks["left"][3, 3] = masks["left"][3, 2] = True
    assert shares_of(heat, masks)["left"][1:] == (0.0, 0.5)  # of the two warmest pixels one lies there
    assert np.isnan(shares_of(heat * 0, masks)["all"]).all()


def test_the_symbols_that_decide():
    by_name = {one.name: one for one in TYPES}
    assert deciding_fields(by_name["01-axe"].fields, False) == [0]  # its only one
    assert deciding_fields(by_name["04-four-crescents"].fields, False) == [0, 1, 2, 3]  # one an axe: the fifth type
    assert deciding_fields(by_name["05-three-crescents-axe"].fields, False) == [2]  # a crescent: the fourth
    assert deciding_fields(by_name["14-axe-flower-wheel-torc"].fields, False) == []
    assert canonical(("axe", "", "", "")) == canonical(("", "", "axe", ""))


def test_better_means_better_than_each_control_on_the_same_images():
    rng = np.random.default_rng(0)
    easy = rng.random(200)  # most of what varies is the image
    ours, near, far = easy + 0.1, easy + 0.08 + 0.001 * rng.random(200), easy - 1
    found = compare_with(ours, {"near": near, "far": far}, 1)
    assert found.verdict == BETTER
    assert (found.name, found.better) == ("near", True)
    assert compare_with(ours, {"near": near, "same": ours.copy()}, 1).verdict == "no better than same"
    assert compare_with(far, {"near": near}, 1).verdict == "worse than near"
    assert compare_with(far, {"near": near}, 1, higher_is_better=False).verdict == BETTER
    assert compare_with(ours, {}, 1).better is None
    noisy = np.where(np.arange(200) % 2, 5.0, -5.0)  # weaker on the mean than `near`, and not beaten
    assert compare_with(ours, {"near": near, "noisy": noisy}, 1).verdict == "no better than noisy"
    assert compare_with(far, {"near": near, "noisy": noisy}, 1).verdict == "worse than near"
    few = compare_with(ours[:7], {"near": near[:7]}, 1)
    assert (few.verdict, few.better) == (TOO_FEW, None)


def test_verdicts_by_chance_are_counted_and_corrected(monkeypatch):
    """Audits of maps that are no better than one of their controls: some verdict is luck in many of them."""
    monkeypatch.setattr(findings, "FLIPS", 1999)
    rng = np.random.default_rng(5)

    def audit(verdicts=30, lift=0.0):
        found = []
        for number in range(verdicts):
            ours, equal = rng.normal(size=(2, 24)) + rng.normal(size=24)
            beside = compare_with(ours + lift * (number == 0), {"equal": equal, "far": equal - 9}, number)
            found.append(Finding("p", "m", str(number), 0.0, p=beside.p, verdict=beside.verdict))
        return correct_for_number(found)

    lucky = [audit()[1] for _ in range(20)]
    assert all((one.tests, one.by_chance) == (30, pytest.approx(0.75)) for one in lucky)
    assert 0.5 < np.mean([one.better for one in lucky]) / 0.75 < 2  # as many as it says
    assert sum(one.sure > 0 for one in lucky) <= 2  # of 20 audits, at 5 %
    corrected, luck = audit(lift=2.0)
    assert corrected[0].verdict == BETTER  # what is there survives
    assert luck.sure >= 1
    fallen = [one for found in (audit()[0] for _ in range(3)) for one in found if one.verdict == BY_LUCK]
    assert all(one.p > 0.05 for one in fallen)
    assert fallen


def test_few_values_have_no_interval_and_ones_and_zeros_one_of_their_own():
    mean, low, high, n = mean_of([1.0, np.nan, 3.0], 1)
    assert (mean, n) == (2.0, 2)
    assert np.isnan([low, high]).all()
    rng = np.random.default_rng(0)
    held = [low <= 0 <= high for _, low, high, _ in (mean_of(rng.normal(size=10), i) for i in range(400))]
    assert 0.92 <= np.mean(held) <= 0.98  # as often as it says
    share, low, high, n = share_of([1] * 8 + [0] * 2 + [np.nan])
    assert (share, n) == (0.8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # Wilson's, as tables have it
    assert share_of(np.zeros(80))[1:3] == (0.0, pytest.approx(0.0458, abs=1e-4))


def test_partners_are_of_another_cluster_where_there_is_one():
    rng = np.random.default_rng(0)
    clusters = np.array([0, 0, 1, 1, 2])
    for _ in range(20):
        assert (clusters[partners_of(clusters, rng)] != clusters).all()
        alike = partners_of(np.zeros(4, int), rng)
        assert (alike != np.arange(4)).all()
    assert partners_of(np.zeros(1, int), rng).tolist() == [0]
