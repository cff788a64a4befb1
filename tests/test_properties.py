"""What must hold of any text, table, number and picture (hypothesis); `--fuzz 5000` asks so many of each: minutes."""

import argparse
import dataclasses
import os
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import a_meta
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import runs
from console import UserError, nearest, plain
from datasets.cache import Shard
from datasets.places import POINTS, Place, find_place
from datasets.view import VIEWS, shape_of
from deepcluster.config import STABLE, Config
from deepcluster.epoch import balanced_draws
from deepcluster.models import Arguments
from explain.attribution.registry import METHODS, parse
from machine import processes
from machine.files import FORMULA, harmless, read_csv, spared, write_csv
from machine.reading import Damaged, finite_number, typed, whole_number
from runs.edits import apply_edits, edit_clusters, logits_of, read_clusters_table
from runs.meta import Meta

PROGRAMS = ("deepcluster", "explain", "datasets", "supervised", "runs")
IDS = [f"{i}.jpg" for i in range(8)]
CLUSTERS, EPOCH, OUTPUTS = [0, 0, 1, 1, 2, 2, 3, 3], 3, 4
NEW = (4, 5, 9)  # clusters of the expert's own

names = st.binary(max_size=40).map(os.fsdecode)  # of files: bytes, be they text or not
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("=+-@'\"\t\r\n,;\\\x1b\0 .e01é\u202e")
NUMBERS = st.floats().map(str) | st.integers().map(str) | st.sampled_from(["9" * 16, "9" * 5000])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


def outcome(act, refusal):
    """What an act gives and None, or None and the sentence of its refusal."""
    try:
        return act(), None
    except refusal as error:
        return None, str(error)


# --- words and tables ------------------------------------------------------------------------------------------------


@given(rows=st.lists(st.fixed_dictionaries({"image": names, "note": texts, "value": texts}), min_size=1, max_size=5))
def test_a_table_is_read_as_it_was_written(home, rows):
    write_csv(home / "table.csv", rows)
    assert read_csv(home / "table.csv") == rows


@given(head=st.just(b"") | st.just(b"image,cluster\n"), content=st.binary(max_size=80) | texts.map(str.encode))
@example(head=b"", content=b'\t""\x01')  # of which csv says: '<a tab>' expected
def test_any_file_is_a_table_or_damaged(home, head, content):
    (home / "any.csv").write_bytes(head + content)
    rows, said = outcome(lambda: read_csv(home / "any.csv", separators=",;\t"), Damaged)
    assert said is None or said.isprintable()
    assert all(isinstance(cell, str) for row in rows or () for cell in row.values())


@given(text=names | texts)
@example(text="'=1")
def test_harmless_words_are_harmless_and_come_back(text):
    shown = harmless(text)
    assert shown.isprintable()
    assert not shown.startswith(FORMULA)
    assert spared(shown) == plain(text)


@given(text=texts | NUMBERS)
@example(text="nan")
@example(text="9" * 16)
def test_numbers_in_cells_are_numbers_or_none(text):
    whole, finite = whole_number(text), finite_number(text)
    assert whole is None or 0 <= whole < 10**15
    assert finite is None or np.isfinite(finite)
    assert finite is not None or not re.fullmatch("-?[0-9]{1,300}", text)


@given(word=st.text("abcdefgh-", min_size=5, max_size=12), at=st.integers(0, 11), words=st.lists(texts, max_size=4))
@example(word="abcde", at=1, words=[""])
def test_a_mistyped_word_has_the_right_one_nearest(word, at, words):
    assume(not any(set(other.lower()) & set("abcdefgh-") for other in words))
    assert nearest("", [*words, word]) == ""
    assert nearest(word[:at] + "z" + word[at + 1 :], [*words, word]) == f": did you mean {word}?"


settings_of_methods = st.sampled_from([method for method in METHODS.values() if method.options]).flatmap(
    lambda method: st.builds(
        lambda option, value, sign: f"{method.name}{sign}{option.name}={value}",
        st.sampled_from(method.options),
        NUMBERS | texts | st.sampled_from(["features.0", "last", "epsilon", "blur", "black", "0.5", "16"]),
        st.sampled_from(":~"),
    )
)


@given(text=texts | st.sampled_from([*METHODS]) | settings_of_methods)
@example(text="smooth_grad:samples=4")
def test_any_text_is_a_method_or_refused_in_words(text):
    asked, said = outcome(lambda: parse(text), ValueError)
    assert said is None or re.search("did you mean| is |has no option", said)
    assert asked is None or parse(asked.key) == asked


# --- options ---------------------------------------------------------------------------------------------------------


def kinds_of(parser: argparse.ArgumentParser) -> dict[str, object]:
    """What every option of a program and of its commands makes of a word."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found |= kinds_of(command)
        elif action.type is not None:
            found[f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"] = action.type
    return found


KINDS = {
    kind: name  # of one of the options that are of this kind
    for program in PROGRAMS
    for name, kind in kinds_of(import_module(f"{program}.__main__").build_parser()).items()
    if kind not in (str, Path)  # which take any word
}


@pytest.mark.parametrize("kind", [pytest.param(kind, id=name.replace(" ", "_")) for kind, name in KINDS.items()])
@given(word=texts | NUMBERS)
def test_any_word_behind_an_option_is_taken_or_refused(kind, word):
    outcome(lambda: kind(word), (argparse.ArgumentTypeError, ValueError, TypeError))  # argparse's own


# --- what run.json and its kin hold ----------------------------------------------------------------------------------

SOUND = {
    Meta: dataclasses.asdict(a_meta()),
    Config: STABLE | {"k": 5, "decode_at_most": 146},
    Arguments: {"arch": "alexnet", "size": 64, "k": 5, "sobel": False, "neck": "mlp"},
    Shard: {"images": [[0, 4, 5]], "skipped": [[1, "broken"]]},
}
FITS = {  # what a field may be, told otherwise than `typed` reads it
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float) and abs(value) < 1e300,
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
}


@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: kind.__name__)
def test_what_is_sound_opens(home, kind):
    assert isinstance(typed(kind, SOUND[kind], home / "run.json", ""), kind)


@given(data=st.data(), kind=st.sampled_from(list(SOUND)), value=json_values)
def test_any_json_in_place_of_a_field_fits_or_is_refused(home, data, kind, value):
    field = data.draw(st.sampled_from(dataclasses.fields(kind)))
    content = SOUND[kind] | {field.name: value}
    found, said = outcome(lambda: typed(kind, content, home / "run.json", "restore a copy"), Damaged)
    assert isinstance(found, kind) if said is None else said.isprintable()
    hint = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    if found is not None and re.fullmatch(r"(int|float|str|bool)( \| None)?", hint):
        assert (value is None and "None" in hint) or FITS[hint.split()[0]](value)


@given(kind=st.sampled_from(list(SOUND)), content=json_values)
def test_any_json_in_place_of_a_table_is_refused(home, kind, content):
    assume(not isinstance(content, dict))
    with pytest.raises(Damaged):
        typed(kind, content, home / "run.json", "restore a copy")


# --- an expert's edits -----------------------------------------------------------------------------------------------

images = st.integers(0, len(IDS) - 1)
clusters = st.sampled_from([*range(OUTPUTS), *NEW])


def edit(action, image="", cluster="", value="", note=""):
    row = {"image": image, "cluster": cluster, "action": action, "value": value, "note": note}
    return {"epoch": str(EPOCH)} | {name: str(cell) for name, cell in row.items()}


edits = st.lists(
    st.builds(lambda i, to, note: edit("move", IDS[i], CLUSTERS[i], to, note), images, clusters, texts)
    | st.builds(lambda i, note: edit("wrong", IDS[i], CLUSTERS[i], "", note), images, texts)
    | st.builds(lambda i, note: edit("note", IDS[i], CLUSTERS[i], "", note), images, texts)
    | st.builds(lambda one, other: edit("merge", "", one, other), clusters, clusters)
    | st.builds(lambda one, name: edit("name", "", one, name), clusters, texts),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def run(home):
    made = runs.begin(home / "exp", a_meta(len(IDS)), IDS, None, [])
    made.write_clusters(EPOCH, runs.Clusters(np.array(CLUSTERS), np.linspace(0, 1, len(IDS))))
    return made


@given(asked=edits)
def test_edited_clusters_are_read_as_they_were_written(home, run, asked):
    """`explain apply`, then `--assignments` or the next edits: no image is lost, no cluster, name or word."""
    asked = [*(edit("new", "", number, "0+1") for number in NEW), *asked]
    edited = edit_clusters(run, asked)
    assert all(edited.root[one] == edited.root[other] for one, other in edited.into.items())
    rows, _ = apply_edits(run, asked)
    assert [row["image"] for row in rows] == IDS
    write_csv(home / "edited.csv", rows)
    if (edited.final < 0).all():
        with pytest.raises(UserError, match="puts no image into a cluster"):
            read_clusters_table(home / "edited.csv", run, OUTPUTS)
        return
    start = read_clusters_table(home / "edited.csv", run, OUTPUTS)
    np.testing.assert_array_equal(start.assignment, edited.final)
    assert start.logits == {number: tuple(logits_of(edited, number)) for number in {*edited.final.tolist()} - {-1}}
    assert start.wrong == edited.wrong
    assert start.notes == {image: plain(note) for image, note in edited.notes.items()}
    assert start.names == {
        number: plain(edited.name_of(number)) for number in start.logits if edited.name_of(number)
    }  # fmt: skip


# --- shares and draws ------------------------------------------------------------------------------------------------


@given(total=st.integers(0, 10**6), count=st.integers(1, 300))
def test_shares_are_all_and_once(total, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "world_size", lambda: count)
        shares = [processes.share(total, one) for one in range(count)]
    assert [one.start for one in shares] == [0, *(one.stop for one in shares[:-1])]
    assert shares[-1].stop == total
    sizes = {one.stop - one.start for one in shares}
    assert max(sizes) - min(sizes) <= 1


@given(
    assignment=arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 9)),
    share=st.floats(0.1, 3),
    seed=st.integers(0, 9),
)
def test_draws_give_each_cluster_its_turn(assignment, share, seed):
    total = max(1, int(share * len(assignment)))
    draws = balanced_draws(assignment, total, np.random.default_rng(seed))
    assert len(draws) == total
    each = total // len(np.unique(assignment)) + 1
    assert max(Counter(assignment[draws].tolist()).values()) <= each
    for number, size in Counter(assignment.tolist()).items():
        if size >= each:  # large enough: nobody twice
            assert max(Counter(draws[assignment[draws] == number].tolist()).values(), default=1) == 1


# --- pictures --------------------------------------------------------------------------------------------------------

pictures = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=48).map(lambda side: (*side, 3)))


@given(pixels=pictures)
def test_any_picture_has_a_place_and_every_view(pixels):
    place = find_place(pixels)
    row = place.to_row()
    assert np.isfinite(row).all()
    assert place.radius > 0
    assert 0 <= place.confidence <= 1
    assert place.outline.shape == (POINTS, 2)
    for name, view in VIEWS.items():
        assert view.draw(pixels, place, 32).shape == (*shape_of(name, 32), 3)


@given(row=arrays(np.float32, 6 + 2 * POINTS, elements=st.floats(-1e4, 1e4, width=32), fill=st.nothing()))
def test_a_place_is_read_as_it_was_kept(row):
    np.testing.assert_array_equal(Place.from_row(row).to_row(), row)
