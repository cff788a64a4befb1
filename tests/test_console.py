"""What a user who mistypes is told: one sentence, the help that helps, the word that was meant, exit code 2."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT, run_module

from console import command, duration, megabytes, next_step
from console.parser import version_in_words

PROGRAMS = ("deepcluster", "explain", "datasets", "supervised", "runs", "benchmarks")

# Typed, the program whose help is named, and what else the sentence must say.
WRONG = [
    ("deepcluster", "deepcluster", "name a command: train, predict"),
    ("deepcluster trian coins", "deepcluster", "did you mean train?"),
    ("deepcluster Train coins", "deepcluster", "did you mean train?"),
    ("deepcluster coins", "deepcluster", "there are train, predict"),
    ("deepcluster --k 9 train coins", "deepcluster", "options follow the command"),
    ("deepcluster train", "deepcluster train", "DATA is missing"),
    ("deepcluster train coins --ephocs 4", "deepcluster train", "did you mean --epochs?"),
    ("deepcluster train coins --epoch=4", "deepcluster train", "did you mean --epochs?"),
    ("deepcluster train coins --epochs", "deepcluster train", "--epochs: needs a value"),
    ("deepcluster train coins --epochs ten", "deepcluster train", "'ten' is not a whole number from 1"),
    ("deepcluster train coins --epochs --k 9", "deepcluster train", "--epochs: needs a value"),
    ("deepcluster train coins --n_clusters 9", "deepcluster train", "did you mean --n-clusters?"),
    ("deepcluster train coins --num-clusters 9", "deepcluster train", "did you mean --k?"),
    ("deepcluster train coins --k many", "deepcluster train", "'many' is not a whole number from 1"),
    ("deepcluster train coins --batch_size 9", "deepcluster train", "did you mean --batch-size?"),
    ("deepcluster train coins -b 9", "deepcluster train", "did you mean --batch?"),
    ("deepcluster train coins --learning-rate .1", "deepcluster train", "did you mean --lr?"),
    ("deepcluster train coins --input-size 64", "deepcluster train", "did you mean --size?"),
    ("deepcluster train coins --size large", "deepcluster train", "'large' is not a number of pixels"),
    ("deepcluster train coins --output-dir x", "deepcluster train", "did you mean --exp?"),
    ("deepcluster train coins --model vgg16", "deepcluster train", "did you mean --arch?"),
    ("deepcluster train coins --preset stabel", "deepcluster train", "did you mean stable?"),
    ("deepcluster train coins --view unroled", "deepcluster train", "did you mean unrolled?"),
    ("deepcluster train coins --clustering kmean", "deepcluster train", "did you mean kmeans?"),
    ("deepcluster train coins --device gpu", "deepcluster train", "did you mean cuda?"),
    ("deepcluster train coins --gpu", "deepcluster train", "did you mean --device?"),
    ("deepcluster train coins --dry", "deepcluster train", "did you mean --dry-run?"),
    ("deepcluster train coins --results x", "deepcluster train", "--results: no such option (`"),
    ("deepcluster train coins --pretrained x", "deepcluster train", "did you mean --weights?"),
    ("deepcluster train coins \u2014epochs 3", "deepcluster train", "type --epochs"),
    ("explain --run exp --patch 8", "explain draw", "--patch: no such option (`"),
    ("datasets paint --any x", "datasets paint", "did you mean --any-angle?"),
    ("deepcluster train my coins", "deepcluster train", "'coins' is one word too many"),
    ("deepcluster predict --run exp --imgaes x --out y", "deepcluster predict", "did you mean --images?"),
    ("deepcluster predict --run exp --images x", "deepcluster predict", "--out is missing"),
    ("deepcluster compare --run exp --lables x", "deepcluster compare", "did you mean --labels?"),
    ("deepcluster pairs --run exp --nearest few", "deepcluster pairs", "'few' is not a whole number"),
    ("explain", "explain draw", "--run/--exp is missing"),
    ("explain --runn exp", "explain draw", "did you mean --run?"),
    ("explain --run exp --rsults x", "explain draw", "did you mean --results?"),
    ("explain --run exp --methods gradcam", "explain draw", "did you mean grad_cam?"),
    ("explain --run exp --pick typcial", "explain draw", "did you mean typical?"),
    ("explain --run exp --clusters 3;4", "explain draw", "a list of clusters like 3,7,12"),
    ("explain --run exp --epoch newest", "explain draw", "'newest' is not a whole number"),
    ("explain --run exp --colors inferno", "explain draw", "did you mean --colours?"),
    ("explain aply --run exp --edits e.csv", "explain", "did you mean apply?"),
    ("explain apply --run exp", "explain apply", "--edits is missing"),
    ("explain deepcluster", "explain", "name one before it: draw, apply"),  # a folder that is there
    ("datasets chekc coins", "datasets", "did you mean check?"),
    ("datasets check coins --seet x.jpg", "datasets check", "did you mean --sheet?"),
    ("datasets paint some/where --number 9", "datasets paint", "did you mean --count?"),
    ("datasets split coins", "datasets split", "OUT is missing"),
    ("supervised train --modle cnn", "supervised train", "did you mean --model?"),
    ("supervised raport --run exp", "supervised", "did you mean report?"),
    ("runs shwo exp", "runs", "did you mean show?"),
    ("runs show", "runs show", "DIR is missing"),
    ("runs sheet thesis.toml --job 2", "runs sheet", "did you mean --jobs?"),
    ("benchmarks trainign", "benchmarks", "did you mean training?"),
]

ALL_AT_ONCE = """
import contextlib, importlib, io, json, sys
from console import command
answers = {}
for typed in json.load(sys.stdin):
    program, *words = typed.split()
    sys.argv, said, code = [program, *words], io.StringIO(), 0
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = said
    try:
        command(importlib.import_module(f"{program}.__main__").main)
    except SystemExit as stop:
        code = stop.code
    sys.stdout, sys.stderr = before
    answers[typed] = code, said.getvalue()
json.dump([answers, "torch" in sys.modules], sys.stdout)
"""


@pytest.fixture(scope="module")
def answered() -> tuple[dict[str, tuple[int, str]], bool]:
    """What each of WRONG is answered, and whether any of them imported torch: one process for all."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE],
        input=json.dumps([typed for typed, _, _ in WRONG]),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    answers, torch_imported = json.loads(done.stdout)
    return answers, torch_imported


@pytest.mark.parametrize(("typed", "helps", "says"), WRONG)
def test_a_mistyped_command_is_answered_in_one_sentence(answered, typed, helps, says):
    code, said = answered[0][typed]
    assert code == 2, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert says in said
    assert re.search(rf"`python -m {helps} --help` (lists them|explains the options)", said), said


def test_no_mistyped_command_waits_for_torch(answered):
    assert not answered[1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_tells_its_version(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program, "--version"])
    with pytest.raises(SystemExit) as stop:
        command(import_module(f"{program}.__main__").main)
    assert stop.value.code in (0, None)
    assert re.match(
        r"deepcluster-explain \d+\.\d+\.\d+( \(commit [0-9a-f]{10}(, with changes)?\))?\n", capsys.readouterr().out
    )


def test_a_copy_without_git_tells_the_commit_it_notes(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    assert "(" not in version_in_words(tmp_path)
    (tmp_path / "COMMIT").write_text("0123456789\n")
    assert version_in_words(tmp_path).endswith(" (commit 0123456789)")


def test_data_that_is_not_there_is_guessed(tmp_path, coins):
    for data, meant in (("pianted", "painted"), (str(coins.parent / "cions"), str(coins))):
        told = run_module("datasets", "prepare", data, cwd=tmp_path)
        assert told.returncode == 2
        assert told.stderr.count("error: ") == 1
        assert f"did you mean {Path(meant)}?" in told.stderr


# Of each command a call with its options, and what runs beside it must accept what it proposes next.
CALLS = [
    "deepcluster train coins --exp e",
    "deepcluster train coins --exp e --k 9 --dry-run",
    "deepcluster predict --run e --images coins.zip --out o.csv",
    "deepcluster features --run e",
    "deepcluster compare --run e --labels l.csv",
    "deepcluster figures --run e",
    "deepcluster pairs --run e",
    "deepcluster import old --data coins --out e",
    "explain draw --run e --results r",
    "explain draw --run e --dry-run",
    "explain apply --run e --edits edits.csv",
    "explain export --run e --out there",
    "explain film --run e --images a.jpg",
    "explain image a.jpg --run e",
    "explain image a.jpg --network torchvision:resnet18",
    "explain maximise --run e",
    "explain dots --run a b",
    "explain audit --run e",
    "explain pixelflip --run e",
    "datasets paint there",
    "datasets check coins",
    "datasets check coins --exclude-out x.csv",
    "datasets prepare coins --size 192 --view coin",
    "datasets prepare mnist:test --mnist-dir digits",
    "datasets split coins there",
    "supervised train",
    "supervised test --run e",
    "supervised ensemble a b",
    "supervised compare a b",
    "supervised compare a",
    "supervised speedrun",
    "supervised report --run e",
]


@pytest.mark.parametrize("typed", CALLS)
def test_what_a_command_proposes_next_can_be_typed(typed, monkeypatch):
    program, *words = typed.split()
    module = import_module(f"{program}.__main__")
    monkeypatch.setattr(sys, "argv", [program, *words])
    python, dash_m, other, *following = map(str, module.next_of(module.build_parser().parse_args(words)))
    assert (python, dash_m) == ("python", "-m")
    assert [other, *following] != [program, *words]
    if following[-1] == "--help":
        return
    if other == "explain" and following[0].startswith("-"):
        following.insert(0, "draw")
    import_module(f"{other}.__main__").build_parser().parse_args(following)


def test_every_command_is_among_those_calls():
    for program in ("deepcluster", "explain", "datasets", "supervised"):
        (commands,) = (
            action
            for action in import_module(f"{program}.__main__").build_parser()._actions
            if action.dest == "command"
        )
        assert set(commands.choices) == {call.split()[1] for call in CALLS if call.split()[0] == program}


def test_what_was_predicted_is_explained_next(tmp_path, coins):
    module = import_module("deepcluster.__main__")
    out = tmp_path / "o.csv"
    out.write_text("image,cluster\na/00.jpg,3\n")
    options = module.build_parser().parse_args(["predict", "--run", "e", "--images", str(coins), "--out", str(out)])
    assert (coins / "a" / "00.jpg") in module.next_of(options)


def test_numbers_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (0.2, 61, 240, 12_600)] == [
        "1 seconds",
        "61 seconds",
        "4 minutes",
        "3.5 hours",
    ]
    assert [megabytes(count) for count in (10, 300_001, 87_357_013, 2_500_000_000)] == [
        "1 kB",
        "301 kB",
        "87 MB",
        "2.5 GB",
    ]


def test_a_script_that_goes_on_by_itself_is_not_told_to(monkeypatch, capsys):
    next_step("python", "-m", "explain")
    monkeypatch.setenv("DEEPCLUSTER_GOES_ON", "1")
    next_step("python", "-m", "explain")
    assert capsys.readouterr().out == "Next: python -m explain\n"
