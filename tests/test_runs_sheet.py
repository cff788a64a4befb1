"""`python -m runs sheet`: a table of experiments is checked, run, continued, and compared on one page."""

import csv
import io
import json
import os
import signal
import sys
import threading
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, call_main, refused, run_module
from nursery import begin_child

from console import UserError
from runs.__main__ import main
from runs.sheet import compare, work
from runs.sheet.compare import Outcome, agreement, match, recommend, silhouette
from runs.sheet.plan import FILE_OPTIONS, OURS, TRAINER, Experiment, Sheet, read_sheet
from runs.sheet.work import DONE

SHEET = """
title = "Two k"
[all]
data = "coins"
size = 64
epochs = 1
batch = 16
view = "photograph"
[explain]
per-cluster = 1
methods = "grad_cam"
[[run]]
name = "few"
k = 3
[[run]]
name = "many"
k = 5
sobel = true
"""


class Begun:
    """As subprocess.Popen, a command that begins at once (nursery)."""

    def __init__(self, words, env, stdout, **_):
        assert words[:2] == [sys.executable, "-m"]
        self.child = begin_child(words[2:], Path.cwd(), env, (stdout.name, stdout.name))

    def wait(self):
        self.child.join()
        return self.child.exitcode


@pytest.fixture(scope="module")
def finished(coins, tmp_path_factory):
    """A sheet that was run whole."""
    home = tmp_path_factory.mktemp("sheet")
    (home / "coins").symlink_to(coins)
    (home / "two.toml").write_text(SHEET)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(work, "subprocess", SimpleNamespace(Popen=Begun, DEVNULL=None))
        patch.setattr(sys, "argv", ["runs", "sheet", str(home / "two.toml"), "--out", str(home / "out")])
        main()
    assert "is recommended" in said.getvalue()
    return home


def test_everything_is_run_and_compared(finished):
    with (finished / "out" / "sheet.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"few", "many"}
    assert float(rows["few"]["ami"]) > 0
    assert {"silhouette", "head_agreement", "with the others", "baseline", "empty maps"} <= set(rows["few"])
    with (finished / "out" / "pairs.csv").open() as file:
        pairs = {row[""]: row for row in csv.DictReader(file)}
    assert float(pairs["few"]["few"]) == 1
    assert pairs["few"]["many"] == pairs["many"]["few"] == rows["few"]["with the others"][:6]
    page = (finished / "out" / "index.html").read_text()
    for words in ("Two k", "few/results/index.html", "_typical.jpg", "over_k.png"):
        assert words in page
    for link in ("few/results/index.html", "many/results/index.html"):
        assert (finished / "out" / link).exists()
    config = json.loads((finished / "out" / "many" / "exp" / "run.json").read_text())["config"]
    assert (config["k"], config["sobel"], config["epochs"]) == (5, True, 1)


def test_what_is_finished_is_not_run_again(finished, monkeypatch, capsys):
    monkeypatch.setattr("runs.sheet.work.subprocess.Popen", None)  # would fail if a command were started
    before = (finished / "out" / "sheet.csv").read_bytes()
    code, said, _ = call_main(
        main, "runs", monkeypatch, capsys, "sheet", finished / "two.toml", "--out", finished / "out"
    )
    assert code == 0
    assert "is recommended" in said
    assert (finished / "out" / "sheet.csv").read_bytes() == before


def test_one_that_fails_stops_no_other(finished, tmp_path):
    """It is named with its own sentence, and what is finished is compared all the same."""
    text = SHEET + '[[run]]\nname = "lost"\ndata = "nowhere"\nk = 2\n'
    (finished / "three.toml").write_text(text)
    result = run_module("runs", "sheet", finished / "three.toml", "--out", finished / "out")
    sentence = refused(result)
    assert "1 of 3 experiments failed" in sentence
    assert "no such folder" in sentence
    assert not (finished / "out" / "lost" / DONE).exists()
    assert "<b>lost</b> failed" in (finished / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = ", "mend it"),
        ("titel = 'x'", "titel: unknown"),
        ("title = 3", "title: not a str"),
        ("[all]\nk = 3", "no experiments"),
        ("[[run]]\nk = 3", "name"),
        ("[[run]]\nname = '../up'\ndata = 'x'", "letters, digits"),
        ("[[run]]\nname = 'a'", "no data"),
        ("[[run]]\nname = 'a'\ndata = 'x'\nkk = 3", "run a: "),
        ("[[run]]\nname = 'a'\ndata = 'x'\nk = 'many'", "run a: "),
        ("[[run]]\nname = 'a'\ndata = 'x'\nexp = 'mine'", "leave it out"),
        ("[[run]]\nname = 'a'\ndata = 'x'\nk = [3]", "a word, a number"),
        ("[explain]\nper-clutser = 3\n[[run]]\nname = 'a'\ndata = 'x'", "[explain]: "),
        ("[explain]\nresults = 'x'\n[[run]]\nname = 'a'\ndata = 'x'", "[explain]: results: the sheet says"),
        ("[explain]\naudit = true\n[[run]]\nname = 'a'\ndata = 'x'", "explain.audit: not a table"),
        ("[explain.audit]\nimages = 0\n[[run]]\nname = 'a'\ndata = 'x'", "[explain.audit]: "),
        ("[[run]]\nname = 'a'\ndata = 'x'\nhelp = true", "leave it out"),
        ("[[run]]\nname = 'a'\ndata = 'x'\n'exp=mine' = true", "not the name of an option"),
        ("[[run]]\nname = 'a'\ndata = '--help'", "data = '--help'"),
        ("[[run]]\nname = 'a'\ndata = \"x\\u0000\"", "data = "),
        (f"[[run]]\nname = 'a'\ndata = '{'x' * 5000}'", "run a: data: "),
        ("[[run]]\nname = 'Sheet.CSV'\ndata = 'x'", "as a file of the sheet"),
        (f"title = {'9' * 5000}", "mend it"),
        (f"title = {'[' * 100_000}", "brackets in brackets"),
        ("[explain]\nclusters = [1, 2]\n[[run]]\nname = 'a'\ndata = 'x'", "clusters: an option is a word"),
        ("[[run]]\nname = 'a'\ndata = 'x'\n[[run]]\nname = 'A'\ndata = 'x'", "two experiments"),
    ],
)
def test_a_careless_sheet_is_refused_before_anything_is_run(tmp_path, monkeypatch, capsys, text, sentence):
    (tmp_path / "bad.toml").write_text(text)
    words = ["sheet", tmp_path / "bad.toml", "--out", tmp_path / "out"]
    code, _, said = call_main(main, "runs", monkeypatch, capsys, *words)
    assert code == 2
    assert sentence in said
    assert str(tmp_path / "bad.toml") in said
    assert not (tmp_path / "out").exists()


def test_a_home_that_is_not_known_is_a_sentence(tmp_path):
    (tmp_path / "bad.toml").write_text("[[run]]\nname = 'a'\ndata = '~nobody-of-this-name/x'")
    with pytest.raises(UserError, match="no such user's home"):
        read_sheet(tmp_path / "bad.toml")


def test_a_byte_order_mark_and_underlines_are_taken(tmp_path):
    (tmp_path / "sheet.toml").write_bytes(
        b"\xef\xbb\xbf[explain]\nper_cluster = 1\n[[run]]\nname = 'a'\ndata = 'x'\nhead_lr = 2.0"
    )
    sheet = read_sheet(tmp_path / "sheet.toml")
    assert sheet.explain == {"per-cluster": 1}
    assert sheet.experiments[0].settings == {"head-lr": 2.0}


def sheet_of(path, *names):
    return Sheet(path / "sheet.toml", "", "", [Experiment(name, "x", {}) for name in names])


def commands_do(monkeypatch, *words):
    """Let every command of a sheet be this program instead."""
    started = []
    real = work.subprocess.Popen

    def popen(_, **settings):
        started.append(real([sys.executable, "-c", *words], **settings))
        return started[-1]

    monkeypatch.setattr(work.subprocess, "Popen", popen)
    return started


def test_a_failure_is_told_in_its_own_words(tmp_path, monkeypatch):
    """Not in those of an earlier call, which stand in the same log; a file in the way fails its experiment alone."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / work.SAID).write_text("error: of last week\n")
    (tmp_path / "two").write_text("mine")
    commands_do(monkeypatch, "raise SystemExit(9)")
    failed = work.run_all(sheet_of(tmp_path, "one", "two"), tmp_path, 1)
    assert failed["one"].startswith("ended with 9")
    assert failed["two"] == f"{tmp_path / 'two'}: a file is in the way: move it away"
    assert (tmp_path / "two").read_text() == "mine"


def test_a_log_that_is_a_link_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "one" / work.SAID).symlink_to(tmp_path / "precious")
    commands_do(monkeypatch, "print('error: it will not do'); raise SystemExit(2)")
    assert work.run_all(sheet_of(tmp_path, "one"), tmp_path, 1) == {"one": "it will not do"}
    assert (tmp_path / "precious").read_text() == "mine"


def test_after_a_stop_nothing_more_is_started(tmp_path, monkeypatch):
    """Children end, and a thread that has just finished a command begins no next one."""
    started = commands_do(monkeypatch, "import time; time.sleep(60)")
    running, codes = work.Running(), []
    waiting = threading.Thread(target=lambda: codes.append(running.run([])))
    waiting.start()
    while not started:
        pass
    running.stop()
    waiting.join(30)
    assert codes
    assert codes[0] != 0
    assert running.run([]) == -signal.SIGINT
    assert len(started) == 1


def test_a_batch_system_that_ends_the_sheet_ends_its_commands(tmp_path, monkeypatch):
    started = commands_do(monkeypatch, "import time; time.sleep(60)")

    def end():
        while not started:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        work.run_all(sheet_of(tmp_path, "one", "two"), tmp_path, 1)
    assert [process.wait(30) != 0 for process in started] == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_files_are_looked_for_beside_the_sheet_first(tmp_path):
    (tmp_path / "out.csv").write_text("image\n")
    run = "[[run]]\nname = 'a'\ndata = 'x'\nexclude = 'out.csv'\ninit = 'elsewhere'\nedits = 'out.csv'\n"
    (tmp_path / "sheet.toml").write_text(f"{run}[explain.audit]\ntable = 'out.csv'")
    sheet = read_sheet(tmp_path / "sheet.toml")
    found = str(tmp_path / "out.csv")
    assert sheet.experiments[0].settings == {"exclude": found, "init": "elsewhere", "edits": found}
    assert sheet.audit == {"table": found}


def test_every_file_of_a_training_is_looked_for_beside_the_sheet():
    parser = import_module(TRAINER).build_parser()
    (commands,) = (action.choices for action in parser._actions if action.dest == "command")
    named = {one.option_strings[0].removeprefix("--") for one in commands["train"]._actions if one.type is Path}
    assert named - {*OURS} <= {*FILE_OPTIONS}


def test_a_sheet_draws_all_shards(tmp_path):
    (tmp_path / "sheet.toml").write_text("[[run]]\nname = 'a'\ndata = 'x'\n[explain]\nshard = '1/2'")
    with pytest.raises(UserError, match="shard: the sheet says"):
        read_sheet(tmp_path / "sheet.toml")


def test_what_a_finished_experiment_left_is_gone_or_damaged(tmp_path):
    home = tmp_path / "one"
    (home / work.RESULTS / "1").mkdir(parents=True)
    (home / work.RESULTS / "1" / "explanations.csv").write_text("image\n")
    (home / DONE).write_text("[]")
    assert work._done(home) is None  # no run: it is trained again
    one = Experiment("one", "x", {})
    with pytest.raises(UserError, match=r"clusters\.csv: it is gone"):
        compare._outcome(one, home)
    (home / work.EXP).mkdir()
    for table, content in (("clusters.csv", "image,cluster\na,seven\n"), ("clusters.csv", "image\na\n")):
        (home / work.EXP / table).write_text(content)
        with pytest.raises(UserError, match="tables are damaged"):
            compare._outcome(one, home)
    (home / work.EXP / "clusters.csv").write_text("image,cluster\na,1\n")
    (home / work.EXP / "log.csv").write_text("epoch\n")
    with pytest.raises(UserError, match="tables are damaged"):
        compare._outcome(one, home)


def test_the_silhouette_of_a_sample_without_the_rare_cluster():
    """None, where every image that was drawn is in one cluster; else the one that can be told."""
    features = np.random.default_rng(0).normal(size=(5000, 2))
    drawn = np.random.default_rng(0).permutation(5000)
    codes = np.zeros(5000, int)
    codes[drawn[-1]] = 1  # not among the 2000
    assert silhouette(features, codes) is None
    codes[drawn[:1000]] = 1
    features[codes == 1] += 100
    assert silhouette(features, codes) > 0.9
    features[drawn[0]] = np.nan
    assert silhouette(features, codes) is None


@pytest.mark.parametrize("name", ["short", "thesis", "architectures"])
def test_the_sheets_that_are_shipped(name):

    sheet = read_sheet(ROOT / "scripts" / "experiments" / f"{name}.toml")
    assert len(sheet.experiments) >= 7
    if name == "thesis":
        for preset in ("paper", "stable"):
            seven = [one.settings for one in sheet.experiments if one.settings["preset"] == preset]
            assert len(seven) == 7
            assert {50, 100} <= {one["k"] for one in seven}
            assert {one["epochs"] for one in seven} == {300, 400}


def outcome(name, clusters, **figures):
    return Outcome(Experiment(name, "x", {}), 1, dict(enumerate(clusters)), figures, None, {})


def test_agreement_matching_and_choice_on_clusters_one_can_count():
    one = outcome("one", [0, 0, 0, 1, 1, 2], settled=0.9, head_agreement=0.5)
    same = outcome("same", [5, 5, 5, 3, 3, 4], settled=0.8, head_agreement=0.9)
    other = outcome("other", [0, 0, 1, 1, 2, 2], settled=0.7, head_agreement=0.4)
    assert agreement(one, same) == 1
    assert agreement(one, other) < 0.7
    part = Outcome(one.experiment, 1, {100: 0}, {}, None, {})
    assert np.isnan(agreement(one, part))
    found = match([one, same, other], 0)
    assert [(m.cluster, m.size) for m in found] == [(0, 3), (1, 2), (2, 1)]
    assert [m.others[0][1:] for m in found] == [(5, 1.0), (3, 1.0), (4, 1.0)]
    assert found[0].others[1][1:] == (0, 2 / 3)
    best, reasons = recommend([one, same, other])  # ranks 1 and 2, 2 and 1, 3 and 3: the first of equals
    assert best == 0
    assert "0.90: the highest of 3" in reasons[0]
    assert reasons[-1] == "As good by these figures: same."
    assert recommend([other, same])[0] == 1
    assert recommend([one]) == (0, ["There is nothing to choose between."])
