"""The gallery in a real browser, opened from disk: it works, asks the network for nothing, and file names stay text."""

import base64
import csv
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from conftest import photograph, run_module
from playwright.sync_api import sync_playwright

import runs
from benchmarks.hand import correct
from console import UserError
from deepcluster.baselines import verdict
from explain import packing
from explain.rendering import OPAQUE
from machine.files import read_csv, write_csv
from runs.edits import apply_edits, read_edits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="about a real browser, and none is installed: `bash scripts/test.sh` installs chromium on Debian as "
    "root (CI does)",
)

STRANGE = ["<img src=x onerror=alert(1)>.jpg", "quo\"te's & more.jpg", "m\u00fcnze 100%#1?.jpg", "new\nline, comma.jpg"]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> Path:
    """A gallery of 84 photographs, some with names that are traps, and its run."""
    root = tmp_path_factory.mktemp("gallery")
    for i in range(80):
        photograph(root / "coins" / "ab"[i % 2] / f"{i:02d}.jpg", i, hue=i % 2)
    for i, name in enumerate(STRANGE):
        photograph(root / "coins" / "a" / name, 90 + i)
    arguments = [
        "--exp",
        root / "exp",
        "--view",
        "photograph",
        "--size",
        "64",
        "--k",
        "2",
        "--epochs",
        "2",
        "--save-every",
        "1",
        "--batch",
        "16",
    ]
    trained = run_module("deepcluster", "train", root / "coins", *arguments)
    assert trained.returncode == 0, trained.stderr
    ids = runs.open_run(root / "exp").ids
    write_csv(root / "coins.csv", [own_row(i, name) for i, name in enumerate(ids) if i % 7])
    explained = run_module("explain", "--run", root / "exp", "--epoch", "all", "--table", root / "coins.csv")
    assert explained.returncode == 0, explained.stderr
    assert "12 of 84 images have no row in coins.csv" in explained.stdout
    return root / "results"


MINTS = ["Tolosa", "<svg onload=alert(3)>", '=HYPERLINK("x")']


def own_row(i: int, name: str) -> dict[str, str]:
    """What a user's own table says of an image: the weight as a French spreadsheet writes it."""
    return {
        "photo": name,
        "mint": MINTS[i % 3] if i % 5 else "?",
        "weight": f"{3 + (i * 37 % 84) / 100:.2f}".replace(".", ","),
    }


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page that fails the test on any console or page error, dialog, or request but for the gallery's files."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: "ABORTED" in request.failure or wrong.append(f"failed: {request.url}"))
    local = ("file:", "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(local) or wrong.append(request.url))

    def answer(dialog):
        if dialog.type == "alert":
            wrong.append(dialog.message)
            dialog.dismiss()
        else:
            dialog.accept()

    page.on("dialog", answer)
    yield page
    context.close()
    assert wrong == []


def cluster_of(gallery: Path, name: str) -> str:
    rows = read_csv(gallery / "2" / "explanations.csv")
    return next(row["cluster"] for row in rows if row["image"] == name)


def largest(gallery: Path) -> str:
    rows = [row["cluster"] for row in read_csv(gallery / "2" / "explanations.csv")]
    return max(rows, key=rows.count)


def open_page(page, path: Path) -> None:
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")


def broken_images(page) -> list[str]:
    return page.evaluate(
        "[...document.images].filter(i => i.complete && i.getAttribute('src') && !i.naturalWidth).map(i => i.src)"
    )


def test_an_epoch_shares_no_script_with_one_that_another_version_explained(gallery):
    for path in gallery.rglob("*.html"):
        used = [
            (path.parent / name).resolve()
            for name in re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', path.read_text())
        ]
        assert len(used) > 5
        assert all(one.is_file() for one in used)
        home = gallery / (path.relative_to(gallery).parts[0] if path.parent != gallery else "2")
        assert [one.name for one in used if not one.is_relative_to(home)] == ["originals.js"]


def test_every_page_loads(page, gallery):
    for path in sorted(gallery.rglob("*.html")):
        open_page(page, path)
        assert page.locator("h1").is_visible()
        assert page.evaluate("[...document.images].every(image => image.hasAttribute('alt'))")
        assert broken_images(page) == []


def test_from_the_overview_to_a_coin_and_through_the_methods_by_keyboard(page, gallery):
    open_page(page, gallery / "index.html")
    assert "84 images of coins in 2 clusters" in page.locator("h1").inner_text()
    assert page.locator(".card").count() == 2
    page.select_option("#order", "size")
    sizes = [int(card.get_attribute("data-size")) for card in page.locator(".card").all()]
    assert sizes == sorted(sizes, reverse=True)
    page.locator(".card a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".coin")
    first = page.locator(".coin").first
    assert first.locator("img").count() == 4
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.position") == "1"
    page.keyboard.press("4")
    assert first.locator("img").count() == 1
    assert "-grad_cam.png" in first.locator("img").get_attribute("src")
    page.keyboard.press("0")
    assert first.locator("img").count() == 4
    page.keyboard.press("Enter")
    assert page.locator("#zoom").is_visible()
    for key, method in zip("1234", ("original", "guided_backprop", "guided_grad_cam", "grad_cam"), strict=True):
        page.keyboard.press(key)
        assert f"-{method}.png" in page.locator("#zoom-image").get_attribute("src")
    title = page.locator("#zoom-title").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#zoom-title").inner_text() != title
    page.keyboard.press("ArrowLeft")
    assert page.locator("#zoom-title").inner_text() == title
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    assert page.evaluate("document.activeElement.dataset.position") == "1"


def test_sorting_and_coins_that_come_when_scrolled_to(page, gallery):
    number = largest(gallery)
    rows = [row for row in read_csv(gallery / "2" / "explanations.csv") if row["cluster"] == number]
    page.set_viewport_size({"width": 500, "height": 400})
    open_page(page, gallery / "2" / number / "index.html")
    names = {
        "rank": [row["image"] for row in rows],
        "atypical": [row["image"] for row in reversed(rows)],
        "margin": [row["image"] for row in sorted(rows, key=lambda row: round(float(row["margin"]), 5))],
    }
    for order, wanted in names.items():
        page.select_option("#sort", order)
        caption = page.locator(".coin .caption").first.text_content()
        assert wanted[0] in caption
    for _ in range(40):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)
    assert page.locator(".coin").count() == len(rows)


def test_names_stay_text_everywhere(page, gallery):
    for name in (f"a/{name}" for name in STRANGE):
        open_page(page, gallery / "2" / cluster_of(gallery, name) / "index.html")
        page.select_option("#sort", "name")
        page.evaluate("page.more(1e6)")
        captions = page.locator(".coin .caption").all_text_contents()
        assert any(name in caption for caption in captions), name
    open_page(page, gallery / "2" / "map.html")
    page.fill("#q", "onerror")
    assert page.locator("#found a").all_text_contents() == [f"a/{STRANGE[0]}"]
    page.locator("#found a").click()
    page.wait_for_selector("#zoom[open]")
    assert page.locator("#zoom-title").text_content() == f"a/{STRANGE[0]}"
    page.keyboard.press("Escape")
    page.fill("#cluster-name", "<img src=x onerror=alert(2)>")
    assert page.locator("h1").text_content().endswith("<img src=x onerror=alert(2)>")
    assert page.locator("h1 img").count() == 0


def test_search_from_the_overview_and_the_map_lead_to_the_coin(page, gallery):
    open_page(page, gallery / "index.html")
    page.fill("#q", "07.jpg")
    page.keyboard.press("Enter")
    page.wait_for_selector("#found a")
    assert page.locator("#found a").all_text_contents() == ["b/07.jpg"]
    x, y = page.evaluate(
        """() => {
        const [x, y] = map.at(spots.find((spot) => spot[0] === 'b/07.jpg'));
        const box = $('map').getBoundingClientRect();
        return [box.left + x, box.top + y];
        }"""
    )
    page.mouse.move(x, y)
    assert "b/07.jpg" in page.locator("#tip").text_content()
    page.mouse.click(x, y)
    page.wait_for_selector("#zoom[open]")
    assert page.locator("#zoom-title").text_content() == "b/07.jpg"


def test_edits_survive_pages_round_trip_and_apply(page, gallery, tmp_path):
    rows = read_csv(gallery / "2" / "explanations.csv")
    wrong, moved = f"a/{STRANGE[3]}", f"a/{STRANGE[1]}"
    target = next(row["cluster"] for row in rows if row["cluster"] != cluster_of(gallery, moved))

    open_page(page, gallery / "2" / cluster_of(gallery, moved) / "index.html")
    page.evaluate("name => page.enlarge(page.coins.findIndex(coin => coin.id === name))", moved)
    page.select_option("#zoom-move", target)
    page.fill("#zoom-note", 'it says "axe", clearly')
    page.keyboard.press("Escape")
    page.fill("#cluster-name", "tête, gauche")
    open_page(page, gallery / "2" / cluster_of(gallery, wrong) / "index.html")
    page.evaluate("name => page.enlarge(page.coins.findIndex(coin => coin.id === name))", wrong)
    page.keyboard.press("w")
    assert page.locator("#zoom-wrong").is_checked()
    page.keyboard.press("Escape")
    open_page(page, gallery / "index.html")  # kept from page to page
    assert page.locator("#edit-count").text_content() == "3 edits"
    assert "tête, gauche" in page.locator("#cards").text_content()
    with page.expect_download() as download:
        page.click("#save-edits")
    saved = tmp_path / "edits.csv"
    download.value.save_as(saved)
    assert download.value.suggested_filename == "edits.csv"
    with saved.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert {(row["action"], row["image"], row["value"], row["note"]) for row in written} == {
        ("name", "", "tête, gauche", ""), ("move", moved, target, 'it says "axe", clearly'), ("wrong", wrong, "", ""),
    }  # fmt: skip

    page.click("#clear-edits")
    assert page.locator("#edit-count").text_content() == "no edits"
    page.set_input_files("#load-edits", saved)
    page.wait_for_function("document.getElementById('edit-count').textContent === '3 edits'")
    with page.expect_download() as download:
        page.click("#save-edits")
    assert Path(download.value.path()).read_bytes() == saved.read_bytes()
    open_page(page, gallery / "1" / "index.html")  # another epoch has edits of its own
    assert page.locator("#edit-count").text_content() == "no edits"
    page.set_input_files("#load-edits", saved)
    page.wait_for_selector("#message:not([hidden])")
    assert "epoch 2" in page.locator("#message").text_content()
    for row, words in ((f"1,,{target},new,,", f"{target} is no new"), (f"1,x,{target},move,999,", "no cluster 999")):
        (tmp_path / "bad.csv").write_text(f"epoch,image,cluster,action,value,note\n{row}\n")
        page.set_input_files("#load-edits", tmp_path / "bad.csv")
        page.wait_for_function("words => $('message').textContent.includes(words)", arg=words)
        assert page.locator("#edit-count").text_content() == "no edits"

    exp = gallery.parent / "exp"
    applied = run_module("explain", "apply", "--run", exp, "--edits", saved)
    assert applied.returncode == 0, applied.stderr
    after = {row["image"]: row for row in read_csv(exp / "clusters-edited.csv")}
    assert after[moved]["cluster"] == target
    assert after[wrong]["cluster"] == ""
    result = run_module(
        "explain", "--run", exp, "--assignments", exp / "clusters-edited.csv", "--results", tmp_path / "edited"
    )
    assert result.returncode == 0, result.stderr
    table = {row["image"]: row for row in read_csv(tmp_path / "edited" / "2" / "explanations.csv")}
    assert table[moved]["cluster"] == target
    assert wrong not in table
    assert len(table) == 83
    assert "tête, gauche" in (tmp_path / "edited" / "index.html").read_text()
    open_page(page, gallery / "index.html")
    page.set_input_files("#load-edits", saved)
    page.wait_for_function("$('edit-count').textContent === '3 edits'")
    open_page(page, tmp_path / "edited" / "index.html")  # where they are done already
    assert page.locator("#edit-count").text_content() == "no edits"
    page.set_input_files("#load-edits", saved)
    page.wait_for_function("$('message').textContent.includes('here they are edited')")

    again = next(row["image"] for row in rows if row["image"] not in (moved, wrong) and row["cluster"] != target)
    open_page(page, tmp_path / "edited" / "2" / table[again]["cluster"] / "index.html")  # a second round
    page.evaluate("([name, to]) => hand.move([page.coins.find(coin => coin.id === name)], to)", [again, int(target)])
    with page.expect_download() as download:
        page.click("#save-edits")
    second = tmp_path / "second.csv"
    download.value.save_as(second)
    digest = page.evaluate("BASE")
    assert second.read_text().splitlines()[1:] == [
        f"2,,,of,{digest},",
        f"2,{again},{table[again]['cluster']},move,{target},",
    ]
    page.click("#clear-edits")
    page.set_input_files("#load-edits", second)
    page.wait_for_function("$('edit-count').textContent === '1 edit'")
    open_page(page, gallery / "index.html")
    page.set_input_files("#load-edits", second)
    page.wait_for_function("$('message').textContent.includes('a gallery of edited clusters')")
    both, _ = apply_edits(runs.open_run(exp), read_edits(second))
    after = {row["image"]: row for row in both}
    assert [after[name]["cluster"] for name in (moved, again, wrong)] == [int(target), int(target), ""]
    assert "tête, gauche" in {row["name"] for row in both}


def test_dark_and_small_screens_are_legible(browser, gallery):
    for width, scheme in ((390, "light"), (390, "dark"), (1400, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        for path in (
            gallery / "index.html",
            gallery / "2" / largest(gallery) / "index.html",
            gallery / "2" / "map.html",
        ):
            open_page(page, path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, path)
            colours = page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
            light = [sum(map(int, colour[4:-1].split(","))) for colour in colours]
            assert (light[0] < light[1]) == (scheme == "dark")
            assert abs(light[0] - light[1]) > 450
        page.close()


def test_five_thousand_coins_stay_few_nodes(page, gallery):
    open_page(page, gallery / "2" / largest(gallery) / "index.html")
    seconds = page.evaluate(
        """() => { const one = data.coins[0];
        data.coins = Array.from({length: 5000}, (_, i) => ({...one, id: `coin ${i}`, rank: i + 1}));
        const begin = performance.now(); page.sort(); return (performance.now() - begin) / 1000; }"""
    )
    assert page.locator(".coin").count() <= 240
    print(f"5,000 coins sorted and shown in {seconds:.2f} s")


def test_the_caveat_stands_beside_with_the_runs_own_figure(page, gallery):
    for path in (gallery / "index.html", gallery / "2" / largest(gallery) / "index.html"):
        open_page(page, path)
        line = page.locator(".caveat").inner_text()
        assert "random weights (Adebayo et al. 2018)" in " ".join(line.split())
        page.click(".caveat .more")
        text = page.locator(".caveat").inner_text()
        assert "the network before its training correlate with" in " ".join(text.split())
        assert "Grad-CAM's by" in text
    page.click("#caveat-away")
    assert not page.locator(".caveat").is_visible()
    open_page(page, gallery / "index.html")  # dismissed for all pages
    assert not page.locator(".caveat").is_visible()


def rows_of(gallery: Path) -> list[dict[str, str]]:
    return read_csv(gallery / "2" / "explanations.csv")


def test_the_overview_begins_with_the_sentence_that_ended_the_training(page, gallery):
    run = runs.open_run(gallery.parent / "exp")
    baselines = run.read_json("baselines.json")
    ami = float(run.log()[-1]["ami"])
    open_page(page, gallery / "index.html")
    assert page.locator("#verdict").inner_text() == verdict(ami, baselines)
    bars = page.locator(".bars tr").all_inner_texts()
    assert len(bars) == 1 + len(baselines)
    assert f"{ami:.2f}" in bars[0]
    assert page.locator(".verdict.good, .verdict.bad").count() == 1
    doubtful = [row for row in rows_of(gallery) if float(row["margin"]) < 0]
    said = page.locator(".counts").inner_text()
    assert (f"{len(doubtful)} of 84: the network disagrees" in said) == bool(doubtful)
    facts = page.locator(".fact").all_inner_texts()
    assert {"k 2", "size 64 px", "seed 31", "epochs 2"} <= {*facts}
    for link in page.locator("main a[href$='.csv'], main a[href$='.png']").all():
        assert (gallery / link.get_attribute("href")).is_file()


def test_cards_are_of_one_size_and_their_order_is_remembered_both_ways(page, gallery):
    open_page(page, gallery / "index.html")
    cells = page.evaluate("[...document.querySelectorAll('.cell')].map(c => [c.clientWidth, c.clientHeight])")
    assert len({tuple(cell) for cell in cells}) == 1
    assert cells[0][0] == cells[0][1]
    assert page.locator(".card").first.locator(".cell").count() == 8
    orders = {}
    for direction in ("first", "second"):
        page.select_option("#order", "purity") if direction == "first" else page.click("#direction")
        orders[direction] = [card.get_attribute("data-number") for card in page.locator(".card").all()]
    values = [float(card.get_attribute("data-purity")) for card in page.locator(".card").all()]
    assert values == sorted(values, reverse=True)
    if len({*values}) == 2:
        assert orders["first"] == orders["second"][::-1]
    open_page(page, gallery / "index.html")  # remembered
    assert page.locator("#order").input_value() == "purity"
    assert [card.get_attribute("data-number") for card in page.locator(".card").all()] == orders["second"]
    page.locator(".card .mean").first.click()  # the whole card leads there
    page.wait_for_selector(".coin")


def test_a_coin_that_the_network_would_put_elsewhere_says_so(page, doubtful_gallery):
    rows = [row for row in read_csv(doubtful_gallery / "2" / "explanations.csv") if float(row["margin"]) < 0]
    assert rows
    assert all("disagrees" in row["flags"].split(";") for row in rows)
    row = rows[0]
    open_page(page, doubtful_gallery / "2" / row["cluster"] / "index.html")
    page.select_option("#apart", "disagrees")
    mine = [one for one in rows if one["cluster"] == row["cluster"]]
    assert page.locator(".coin").count() == len(mine)
    card = page.locator(".coin", has_text=row["image"]).first
    chip = card.locator(".disagrees")
    assert chip.inner_text() == f"the network would say {row['rival']}"
    assert chip.get_attribute("href").endswith(f"/{row['rival']}/index.html")
    assert chip.locator("img").evaluate("img => img.complete && img.naturalWidth > 0")
    assert f"closer to cluster {row['rival']}" in card.inner_text()
    probability = float(row["probability"])
    assert ("here < 1 %" if probability < 0.005 else f"here {round(probability * 100)} %") in card.inner_text()

    open_page(page, doubtful_gallery / "2" / "doubtful.html")
    page.click('[data-doubt="disagrees"]')
    assert page.locator(".doubt").count() == len(rows)
    shown = page.locator(".doubt .id").all_text_contents()
    assert [row["image"] for row in sorted(rows, key=lambda one: float(one["probability"]))] == shown
    assert page.url.endswith("#disagrees")
    first = page.locator(".doubt").first
    assert first.locator("a img").count() == 4  # photograph, map, and the two clusters
    assert broken_images(page) == []
    first.focus()
    page.keyboard.press("r")
    assert "→ cluster" in first.inner_text()
    assert page.locator("#edit-count").inner_text() == "1 edit"
    page.keyboard.press("Control+z")
    assert page.locator("#edit-count").inner_text() == "no edits"


def test_maps_on_one_scale_are_as_strong_as_the_table_says(page, gallery):
    number = largest(gallery)
    peaks = {row["image"]: float(row["grad_cam.peak"]) for row in rows_of(gallery) if row["cluster"] == number}
    open_page(page, gallery / "2" / number / "index.html")
    assert "scaled to its own most" in page.locator("#scale-said").inner_text()
    page.keyboard.press("c")
    assert page.locator("#scale").is_checked()
    strengths = page.evaluate(
        """() => [...document.querySelectorAll('.coin')].map((card) => {
        const canvas = card.querySelector('canvas');
        if (!canvas) return null;
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let most = 0;
        for (let i = 3; i < pixels.length; i += 4) most = Math.max(most, pixels[i]);
        return [page.coins[card.dataset.position].id, most];
        }).filter(Boolean)"""
    )
    assert len(strengths) > 10
    most = max(peaks.values())
    for name, opacity in strengths:  # the small map's own maximum is a little below the map's
        assert opacity <= 255 * OPAQUE * peaks[name] / most + 3
        assert opacity >= 255 * OPAQUE * peaks[name] / most * 0.6 - 3
    open_page(page, gallery / "2" / number / "index.html")
    assert page.locator("#scale").is_checked()  # remembered
    page.locator(".coin").first.click()
    page.keyboard.press("4")
    assert (
        "on the common scale" in page.locator("#zoom-caption").inner_text()
        or "empty" in page.locator("#zoom-caption").inner_text()
    )


def test_the_enlarged_coin_beside_its_map_and_its_original_file(page, gallery):
    name = f"a/{STRANGE[2]}"
    open_page(page, gallery / "2" / cluster_of(gallery, name) / "index.html")
    page.evaluate("name => page.enlarge(page.coins.findIndex(coin => coin.id === name))", name)
    boxes = [page.locator(one).bounding_box() for one in ("#zoom-photograph", "#zoom-image")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert abs(boxes[0]["width"] - boxes[1]["width"]) < 2
    page.keyboard.press("s")  # one over the other
    boxes = [page.locator(one).bounding_box() for one in ("#zoom-photograph", "#zoom-image")]
    assert boxes[0] == boxes[1]
    page.locator("#zoom-slider").fill("10")
    assert "90%" in page.locator("#zoom-over").evaluate("node => getComputedStyle(node).clipPath").replace(" - ", "")
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    page.keyboard.press("Enter")
    file = page.locator("#zoom-original a").evaluate("link => link.href")
    assert Path(url2pathname(urlparse(file).path)) == (gallery.parent / "coins" / name)
    page.keyboard.press("g")
    assert page.locator("#zoom-pictures.grid").count() == 1
    page.keyboard.press("?")
    assert page.locator("#key-list").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.wait_for_function("document.querySelector('h1').textContent !== ''")
    assert cluster_of(gallery, name) not in page.url.rsplit("/", 2)[1]


def test_a_method_stays_chosen_and_the_page_where_it_is(page, gallery):
    page.set_viewport_size({"width": 700, "height": 500})
    open_page(page, gallery / "2" / largest(gallery) / "index.html")
    page.evaluate("page.more(1e6)")
    page.evaluate("document.querySelectorAll('.coin')[20].scrollIntoView({behavior: 'instant'})")
    page.wait_for_timeout(200)
    first = "[...document.querySelectorAll('.coin')].findIndex(card => card.getBoundingClientRect().bottom > 60)"
    count, seen = page.locator(".coin").count(), page.evaluate(first)
    for key in "231":
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        assert page.locator(".coin").count() == count
        top = page.evaluate(f"document.querySelectorAll('.coin')[{seen}].getBoundingClientRect().top")
        assert -400 < top < 500, (key, top)
    page.keyboard.press("2")
    open_page(page, gallery / "2" / largest(gallery) / "index.html")
    assert page.locator('[data-method="guided_backprop"]').get_attribute("aria-pressed") == "true"


def test_a_map_of_very_many_images_and_values_is_searched_too(page, gallery):
    open_page(page, gallery / "2" / "map.html")
    page.evaluate("() => map.specks($('map').getContext('2d'), map.visible(0), 1, 2)")  # as it draws some thousand dots
    page.locator("#q").fill("b/0")
    page.wait_for_function("$('found').querySelectorAll('img').length === $('found').children.length")
    page.locator("#q").fill("")
    page.evaluate(
        "() => spots.push(...Array.from({length: 300}, (_, i) => [...spots[i % 84].slice(0, 6), `v${i}`, -1, i]))"
    )
    lines = page.evaluate(
        "() => map.paintWords((spot) => spot[6], (word) => word === 'v299', () => {}).map((one) => one.textContent)"
    )
    assert len(lines) == 202  # 200 of the 302 values, the one that was chosen, and how many others there are
    assert lines[-1] == "other values, to be searched for101"


def test_many_coins_are_selected_moved_and_taken_back(page, gallery):
    number = largest(gallery)
    [other] = {row["cluster"] for row in rows_of(gallery)} - {number}
    open_page(page, gallery / "2" / number / "index.html")
    size = int(page.locator(".facts [data-cluster-size]").first.inner_text().split()[0])
    cards = page.locator(".coin")
    cards.nth(1).click(modifiers=["Control"])
    cards.nth(4).click(modifiers=["Shift"])
    assert page.locator("#hand-count").inner_text() == "4 selected"
    page.keyboard.press("m")
    page.fill("#pick-text", other)
    choice = page.locator(f'#pick-list button[data-number="{other}"]')
    assert "images" in choice.inner_text()
    assert choice.locator("img").get_attribute("src").endswith(f"/{other}/_typical.jpg")
    page.keyboard.press("Enter")
    assert page.locator(".coin.wrong").count() == 4
    assert page.locator("#edit-count").inner_text() == "4 edits"
    assert page.locator(".facts [data-cluster-size]").first.inner_text() == f"{size - 4} images"
    page.fill("#hand-note", "another die")
    page.click("#hand-clear")
    open_page(page, gallery / "2" / other / "index.html")  # seen where they went
    assert page.locator("#moved-list li").count() == 4
    assert broken_images(page) == []
    open_page(page, gallery / "index.html")
    page.click("#edit-count")
    assert page.locator("#edit-rows li").count() == 4
    assert "another die" in page.locator("#edit-rows li").first.inner_text()
    page.locator("#edit-rows button").first.click()
    assert page.locator("#edit-rows li").count() == 3
    page.click("#edit-list-close")
    assert page.locator("#edit-count").inner_text() == "3 edits"
    page.click("#clear-edits")
    assert page.locator("#edit-count").inner_text() == "no edits"
    page.click("#undo-edit")
    assert page.locator("#edit-count").inner_text() == "3 edits"
    page.click("#undo-edit")  # and the one that was taken back
    page.click("#undo-edit")  # the reason of all
    page.click("#undo-edit")
    assert page.locator("#edit-count").inner_text() == "no edits"


def test_all_from_here_on_and_the_name_in_the_list_of_targets(page, gallery):
    number = largest(gallery)
    [other] = {row["cluster"] for row in rows_of(gallery)} - {number}
    open_page(page, gallery / "2" / other / "index.html")
    page.fill("#cluster-name", "harp")
    open_page(page, gallery / "2" / number / "index.html")
    assert "harp" in page.locator(f'#zoom-move option[value="{other}"]').text_content()
    page.locator(".coin").nth(2).focus()
    page.keyboard.press(" ")
    page.click("#hand-onwards")
    chosen = int(page.locator("#hand-count").inner_text().split()[0])
    assert chosen == page.evaluate("data.coins.length") - 2
    page.click("#hand-rival")
    assert page.locator("#edit-count").inner_text() == f"{chosen + 1} edits"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert page.locator("#edit-count").inner_text() == "no edits"


@pytest.fixture(scope="module")
def doubtful_gallery(gallery) -> Path:
    """The same run, a third of its images explained in a cluster that they are not in: the network disagrees."""
    exp = gallery.parent / "exp"
    rows = read_csv(exp / "clusters.csv")
    numbers = sorted({row["cluster"] for row in rows})
    for i, row in enumerate(rows):
        if i % 3 == 0:
            row["cluster"] = numbers[1 - numbers.index(row["cluster"])]
    write_csv(exp.parent / "swapped.csv", [{"image": row["image"], "cluster": row["cluster"]} for row in rows])
    out = exp.parent / "doubtful"
    result = run_module("explain", "--run", exp, "--assignments", exp.parent / "swapped.csv", "--results", out)
    assert result.returncode == 0, result.stderr
    return out


def test_a_new_cluster_of_a_selection_is_named_seen_replayed_and_taken_back(page, gallery, tmp_path):
    number = largest(gallery)
    size = sum(row["cluster"] == number for row in rows_of(gallery))
    made = str(page_outputs(page, gallery))
    open_page(page, gallery / "2" / number / "index.html")
    assert not page.locator("#made-link").is_visible()
    cards = page.locator(".coin")
    for at in (0, 2, 3):
        cards.nth(at).click(modifiers=["Control"])
    moved = sorted(cards.nth(at).locator(".id").text_content() for at in (0, 2, 3))
    page.keyboard.press("+")
    assert f"3 images are now cluster {made}" in page.locator("#message").inner_text()
    assert page.locator(".facts [data-cluster-size]").first.inner_text() == f"{size - 3} images"
    page.click("#message a")
    page.wait_for_selector(".guest")
    assert sorted(page.evaluate("page.coins.map(coin => coin.id)")) == moved
    assert broken_images(page) == []
    page.fill(f"#name-{made}", "owl, left")
    page.reload()  # kept
    assert page.locator(f"#name-{made}").input_value() == "owl, left"
    assert page.locator("#made-link").inner_text() == "Your new clusters (1)"
    open_page(page, gallery / "index.html")
    assert "owl, left" in page.locator("#made-cards .card").inner_text()
    assert "3 images" in page.locator("#made-cards .card").inner_text()
    page.click("#edit-count")
    assert (
        f"cluster {made} is new, made of 3 images and is called “owl, left”" in page.locator("#edit-rows").inner_text()
    )
    page.click("#edit-list-close")

    open_page(page, gallery / "2" / number / "index.html")  # one more joins it, chosen by picture and name
    page.locator(".coin").nth(5).click(modifiers=["Control"])
    page.keyboard.press("m")
    choice = page.locator(f'#pick-list button[data-number="{made}"]')
    assert "owl, left" in choice.inner_text()
    assert "3 images" in choice.inner_text()
    assert choice.locator("img").evaluate("img => img.decode().then(() => img.naturalWidth > 0)")
    page.fill("#pick-text", "owl")
    page.keyboard.press("Enter")
    with page.expect_download() as download:
        page.click("#save-edits")
    saved = tmp_path / "edits.csv"
    download.value.save_as(saved)
    assert f"2,,{made},new,{number}," in saved.read_text().splitlines()

    exp = gallery.parent / "exp"
    rows, _ = apply_edits(runs.open_run(exp), read_edits(saved))
    there = {row["image"]: row for row in rows if row["cluster"] == int(made)}
    assert {*moved} < there.keys()
    assert len(there) == 4
    assert {(row["logits"], row["name"]) for row in there.values()} == {(number, "owl, left")}

    page.click("#clear-edits")
    page.set_input_files("#load-edits", saved)  # from a file: pictures are looked up
    page.wait_for_function("[...edits.coins.values()].length === 4 && [...edits.coins.values()].every(one => one.file)")
    open_page(page, gallery / "2" / "made.html")
    assert page.locator(".guest img").count() == 4
    assert broken_images(page) == []
    page.locator(".guest").first.focus()
    page.keyboard.press(" ")
    page.keyboard.press("w")  # back where it came from
    assert page.locator(".guest").count() == 3
    page.get_by_role("button", name="undo: put all back").click()
    assert page.locator("#edit-count").inner_text() == "no edits"
    page.click("#undo-edit")
    assert page.locator(".guest").count() == 3


def test_what_was_moved_to_has_a_key_and_clusters_merge(page, gallery):
    number = largest(gallery)
    [other] = {row["cluster"] for row in rows_of(gallery)} - {number}
    size = {one: sum(row["cluster"] == one for row in rows_of(gallery)) for one in (number, other)}
    open_page(page, gallery / "2" / number / "index.html")
    cards = page.locator(".coin")
    cards.nth(0).click(modifiers=["Control"])
    page.keyboard.press("m")
    page.fill("#pick-text", other)
    page.keyboard.press("Enter")
    assert page.locator("#hand-targets button").all_inner_texts() == [f"→ {other} A"]
    cards.nth(1).click(modifiers=["Control"])  # the first is done: a new selection
    assert page.locator("#hand-count").inner_text() == "1 selected"
    cards.nth(2).click(modifiers=["Control"])
    page.keyboard.press("a")
    assert page.locator("#edit-count").inner_text() == "3 edits"
    cards.nth(3).click(modifiers=["Control"])
    page.keyboard.press("+")
    made = str(page.evaluate("outputs"))
    page.reload()  # keys stay with their clusters
    cards.nth(4).focus()
    page.keyboard.press("d")
    assert f"→ cluster {made}" in cards.nth(4).inner_text()
    assert page.evaluate("edits.sizeOf(+edits.made()[0])") == 2

    page.select_option("#cluster-merge", made)  # one of the network's into a new one
    assert page.evaluate("made => edits.sizeOf(made)", int(made)) == size[number] - 3
    open_page(page, gallery / "2" / "map.html")
    shown = [text.split() for text in page.locator("#colours button").all_inner_texts()]
    assert shown == [[other, str(size[other] + 3)], [made, str(size[number] - 3)]]
    page.click("#undo-edit")
    open_page(page, gallery / "2" / "made.html")
    page.select_option(f"#merge-{made}", other)  # and a new one into one of the network's
    open_page(page, gallery / "2" / other / "index.html")
    assert page.locator(".facts [data-cluster-size]").first.inner_text() == f"{size[other] + 5} images"
    assert page.locator("#merged-here a").inner_text() == f"cluster {made}"
    with page.expect_download() as download:
        page.click("#save-edits")
    rows, _ = apply_edits(runs.open_run(gallery.parent / "exp"), read_edits(Path(download.value.path())))
    assert sum(row["cluster"] == int(other) for row in rows) == size[other] + 5


def page_outputs(page, gallery: Path) -> int:
    """The number of the first new cluster."""
    open_page(page, gallery / "2" / "made.html")
    assert "There are none yet" in page.locator("#none").inner_text()
    return page.evaluate("outputs")


def test_a_cluster_is_split_by_the_networks_features(page, gallery):
    number = largest(gallery)
    open_page(page, gallery / "2" / number / "index.html")
    halves = page.evaluate("[0, 1].map(side => data.coins.filter(coin => coin.half === side).map(coin => coin.id))")
    assert 0 < len(halves[1]) <= len(halves[0])
    page.click("#split")
    assert page.locator("#half-title-1").inner_text().startswith(f"{len(halves[1])} image")
    assert page.locator("#half-list-1 img").count() == min(12, len(halves[1]))
    page.wait_for_function(
        "[...document.querySelectorAll('#halves img')].every(img => img.complete && img.naturalWidth)"
    )
    page.click("#half-make-1")
    assert page.locator(".coin.wrong").count() == page.evaluate("page.coins.filter(coin => coin.half === 1).length")
    page.evaluate("page.more(1e6)")
    assert page.locator("#edit-count").inner_text() == f"{len(halves[1]) + 1} edits"
    page.click("#split")
    assert page.locator("#half-make-0").is_disabled()  # all that is left is one half
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    assert page.locator("#edit-count").inner_text() == "no edits"


def place_of(page, name: str) -> list[float]:
    """Where an image is on the screen, on the map."""
    return page.evaluate(
        """name => {
        const [x, y] = map.at(spots.find((spot) => spot[0] === name));
        const box = $('map').getBoundingClientRect();
        return [box.left + x, box.top + y];
        }""",
        name,
    )


def test_the_map_zooms_where_the_pointer_is_pans_and_shows_larger_pictures(page, gallery):
    open_page(page, gallery / "2" / "map.html")
    page.wait_for_function("map.drawn.pictures + map.drawn.dots === spots.length")
    legend = page.locator("#colours button").all_inner_texts()
    sizes = {row["cluster"]: 0 for row in rows_of(gallery)}
    for row in rows_of(gallery):
        sizes[row["cluster"]] += 1
    assert [text.split() for text in legend] == [[number, str(sizes[number])] for number in sorted(sizes, key=int)]
    x, y = map(round, place_of(page, "b/07.jpg"))
    small = page.evaluate("map.side()")
    page.mouse.move(x, y)
    page.mouse.wheel(0, -900)
    assert page.evaluate("map.zoom") > 3
    assert page.evaluate("map.side()") > 1.5 * small
    there = place_of(page, "b/07.jpg")
    assert there == pytest.approx([x, y], abs=4)  # it stayed under the pointer
    page.mouse.down()
    page.mouse.move(x + 60, y - 40, steps=3)
    page.mouse.up()
    assert place_of(page, "b/07.jpg") == pytest.approx([there[0] + 60, there[1] - 40], abs=1)
    assert page.url.endswith("map.html")  # a drag is no click
    page.mouse.wheel(0, -1500)
    page.wait_for_function("map.drawn.own > 0")  # so large that the image's own file is drawn
    page.click("#zoom-all")
    assert page.evaluate("[map.zoom, map.x, map.y]") == [1, 0, 0]
    page.click("#colours button >> nth=0")
    assert page.evaluate("map.found.size") == sizes[min(sizes, key=int)]


def test_two_fingers_zoom_the_map(browser, gallery):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    open_page(page, gallery / "2" / "map.html")
    box = page.locator("#map").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = context.new_cdp_session(page)
    for kind, apart in (("touchStart", 30), ("touchMove", 60), ("touchMove", 90)):
        points = [{"x": middle[0] + side * apart, "y": middle[1], "id": i} for i, side in enumerate((-1, 1))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.evaluate("map.zoom") == pytest.approx(3, rel=0.05)
    assert page.evaluate("map.x") == pytest.approx(box["width"] / 2 * (1 - 3), abs=12)  # about the fingers' middle
    context.close()


def test_a_lasso_selects_what_it_encircles_for_every_edit(page, gallery):
    number = largest(gallery)
    [other] = {row["cluster"] for row in rows_of(gallery)} - {number}
    open_page(page, gallery / "2" / "map.html")
    box = page.locator("#map").bounding_box()
    left, top, width, height = (box[name] for name in ("x", "y", "width", "height"))
    inside = page.evaluate(
        """() => spots.filter((spot) => map.at(spot)[0] < map.width * 0.6 && map.at(spot)[1] < map.height * 0.7)
        .map((spot) => spot[0]).sort()"""
    )
    assert 0 < len(inside) < 84
    page.keyboard.press("l")
    corners = [(6, 6), (0.6 * width, 6), (0.6 * width, 0.7 * height), (6, 0.7 * height)]
    page.mouse.move(left + 6, top + 6)
    page.mouse.down()
    for x, y in corners[1:]:
        page.mouse.move(left + x, top + y, steps=4)
    page.mouse.up()
    assert page.evaluate("[...hand.chosen.keys()].sort()") == inside
    assert page.locator("#hand-count").inner_text() == f"{len(inside)} selected"
    assert page.locator("#selected-list .guest").count() == len(inside)
    page.keyboard.press("m")
    page.fill("#pick-text", other)
    page.keyboard.press("Enter")
    stay = sum(row["cluster"] == other for row in rows_of(gallery) if row["image"] in inside)
    assert page.locator("#edit-count").inner_text() == f"{len(inside) - stay} edits"
    before = sum(row["cluster"] == other for row in rows_of(gallery))
    shown = page.locator("#colours button", has_text=other).first.inner_text().split()
    assert shown == [other, str(before + len(inside) - stay)]  # the legend counts them where they are now
    page.keyboard.press("+")
    made = page.evaluate("outputs")
    assert page.locator("#colours button").last.inner_text().split() == [str(made), str(len(inside))]
    page.reload()
    assert page.locator("#edit-count").inner_text() == f"{len(inside) + 1} edits"
    page.click("#undo-edit")
    page.click("#undo-edit")
    assert page.locator("#edit-count").inner_text() == "no edits"
    page.fill("#q", "b/0")
    page.click("#select-found")
    assert page.evaluate("[...hand.chosen.keys()].every(id => id.startsWith('b/0'))")
    page.keyboard.press("Escape")  # in the search field: nothing happens to it
    page.focus("#map")
    page.keyboard.press("Escape")
    assert not page.locator("#hand").is_visible()


def test_the_most_similar_coins_lie_beside_the_enlarged_one(page, gallery):
    number = largest(gallery)
    open_page(page, gallery / "2" / number / "index.html")
    page.locator(".coin").first.click()
    buttons = page.locator("#zoom-alike-list button")
    assert buttons.count() == 6
    own = page.locator("#zoom-title").text_content()
    named = [button.get_attribute("title").rsplit(", cluster ", 1) for button in buttons.all()]
    assert len({name for name, _ in named} - {own}) == 6
    assert all(cluster_of(gallery, name) == cluster for name, cluster in named)
    page.keyboard.press("v")
    page.keyboard.press("v")
    assert buttons.nth(1).get_attribute("aria-pressed") == "true"
    sources = [page.locator(one).evaluate("img => img.src") for one in ("#zoom-photograph", "#zoom-image")]
    files = [Path(url2pathname(urlparse(source).path)) for source in sources]
    assert files == [gallery.parent / "coins" / name for name in (own, named[1][0])]  # the photographs themselves
    boxes = [page.locator(one).bounding_box() for one in ("#zoom-photograph", "#zoom-image")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.wait_for_function("$('zoom-image').complete && $('zoom-photograph').complete")
    assert broken_images(page) == []
    page.keyboard.press("4")  # back to a map
    assert "-grad_cam.png" in page.locator("#zoom-image").get_attribute("src")


def test_own_columns_filter_sort_and_stand_in_the_zoom(page, gallery):
    ids = runs.open_run(gallery.parent / "exp").ids
    known = {name: own_row(i, name) for i, name in enumerate(ids) if i % 7}
    number = largest(gallery)
    inside = [row["image"] for row in rows_of(gallery) if row["cluster"] == number]
    open_page(page, gallery / "2" / number / "index.html")
    page.select_option("#own-column", label="mint")
    mints = [known[name]["mint"] for name in inside if name in known]
    options = page.locator("#own-word option").all_text_contents()
    assert f"{MINTS[1]} ({mints.count(MINTS[1])})" in options
    page.select_option("#own-word", label=f"{MINTS[2]} ({mints.count(MINTS[2])})")
    shown = sorted(page.evaluate("page.coins.map(coin => coin.id)"))
    assert shown == sorted(name for name in inside if known.get(name, {}).get("mint") == MINTS[2])
    assert f"mint {MINTS[2]}" in page.locator(".coin .caption").first.text_content()
    page.select_option("#own-column", label="weight")  # a second filter, on top
    page.fill("#own-most", "3.4")
    light = [name for name in shown if float(known[name]["weight"].replace(",", ".")) <= 3.4]
    assert sorted(page.evaluate("page.coins.map(coin => coin.id)")) == light
    page.keyboard.press("w")  # typed into the field: no edit
    assert page.locator("#edit-count").inner_text() == "no edits"
    for _ in range(2):
        page.locator("#own-filters button").first.click()
    assert page.evaluate("page.coins.length") == len(inside)
    page.select_option("#sort", label="weight, highest first")
    weights = page.evaluate("page.coins.map(coin => coin.own[1])")
    there = [weight for weight in weights if weight is not None]
    assert there == sorted(there, reverse=True)
    assert weights[len(there) :] == [None] * (len(inside) - len(there))  # what is not known comes last
    page.locator(".coin").first.click()
    first = page.locator("#zoom-title").text_content()
    facts = page.locator("#zoom-own").locator("dt, dd").all_text_contents()
    assert facts[-2:] == ["weight", str(there[0]).removesuffix(".0")]
    assert ("mint" in facts) == (known[first]["mint"] != "?")
    page.select_option("#zoom-move", index=0)
    open_page(page, gallery / "2" / "doubtful.html")
    assert page.locator("#own-column option").count() == 3


def test_own_columns_colour_the_map_and_are_searched(page, gallery, doubtful_gallery):
    ids = runs.open_run(gallery.parent / "exp").ids
    mints = ["" if not i % 7 or not i % 5 else MINTS[i % 3] for i in range(len(ids))]
    for results in (gallery, doubtful_gallery):  # the second was explained without the option, in other clusters
        open_page(page, results / "2" / "map.html")
        page.select_option("#colour-by", label="mint")
        lines = page.locator("#colours li").all_inner_texts()
        count = {mint or "not known": mints.count(mint) for mint in {*mints}}
        assert {line.rsplit(maxsplit=1)[0].strip(): int(line.split()[-1]) for line in lines} == count
    tints = page.evaluate("[...new Set(map.tints.values())].length")
    assert tints == 4
    line = page.locator("#colours button", has_text="HYPERLINK")
    line.click()
    assert page.evaluate("map.found.size") == mints.count(MINTS[2])
    page.locator("#colours button", has_text="HYPERLINK").click()
    assert page.evaluate("map.found.size") == len(ids)
    page.fill("#q", "mint: tolosa")
    assert page.evaluate("map.found.size") == mints.count(MINTS[0])
    page.select_option("#list-by", label="weight, lowest first")
    listed = page.locator("#found li").all_inner_texts()
    weights = [float(text.rsplit("weight ", 1)[1]) for text in listed]
    assert weights == sorted(weights)
    assert len(weights) == mints.count(MINTS[0])
    page.fill("#q", "")
    page.select_option("#colour-by", label="weight")
    assert page.locator("#colours .ramp").is_visible()
    known = page.evaluate(
        "spots.filter(spot => map.coin(spot).own[1] !== null).map(spot => [map.coin(spot).own[1], map.tints.get(spot)])"
    )
    dark = [colour for weight, colour in known if weight <= sorted(weight for weight, _ in known)[0]]
    assert dark == ["rgb(68 1 84)"]  # viridis begins so
    page.select_option("#colour-by", label="label")
    assert page.locator("#colours li").all_inner_texts() == ["a\n44", "b\n40"]
    page.locator("#colours button").first.click()
    assert page.evaluate("map.found.size") == 44

    rows = {row["image"]: row for row in rows_of(gallery)}
    at = next(i for i, mint in enumerate(mints) if mint == MINTS[2])
    assert rows[ids[at]]["own.mint"] == "'" + MINTS[2]  # a spreadsheet computes nothing
    assert float(rows[ids[at]]["own.weight"]) == float(own_row(at, "")["weight"].replace(",", "."))


def test_what_the_browser_kept_may_be_damaged_or_too_much(page, gallery):
    number = largest(gallery)
    open_page(page, gallery / "2" / number / "index.html")
    steps = '{"coins": [], "clusters": [], "steps": [5, null, {}, {"coins": []}]}'
    for kept in ("{", '{"coins": 5}', '{"coins": [[1, null]], "clusters": []}', steps, "7"):
        page.evaluate("kept => localStorage.setItem(KEY, kept)", kept)
        page.reload()
        assert page.locator(".coin").count() > 0
        assert page.locator("#edit-count").text_content() == "no edits"
        page.keyboard.press("Control+z")
    assert "damaged" in page.locator("#message").text_content()
    page.evaluate("() => localStorage.removeItem(KEY)")
    page.reload()
    # room for the edits, but not for all the steps that led there
    page.evaluate(
        "() => { const put = Storage.prototype.setItem; Storage.prototype.setItem = function (name, text) {"
        " if (text.length > 2500) throw new Error('full'); put.call(this, name, text); }; }"
    )
    for _ in range(20):
        page.evaluate("() => hand.toggleWrong(data.coins.slice(0, 2))")
    page.evaluate("() => hand.toggleWrong([data.coins[0]])")
    assert page.locator("#message").is_hidden()
    page.reload()
    assert page.locator("#edit-count").text_content() == "1 edit"
    page.evaluate("() => edits.clear()")


def test_numbers_are_numbers_and_any_name_has_an_address(page, gallery):
    number = largest(gallery)
    open_page(page, gallery / "2" / number / "index.html")
    for row in (
        ["2", "", "Infinity", "new", "", ""],
        ["2", "", "1e9", "new", "", ""],
        ["2", "", number, "merge", "0x0", ""],
    ):
        said = page.evaluate(
            "row => { try { edits.take([row]); return ''; } catch (error) { return error.message; } }", row
        )
        assert "is not the number of a cluster" in said
    assert (
        page.evaluate("() => inAddress('m\\udcfcnze \\u00e9 \\ud83e\\ude99.jpg')")
        == "m%fcnze%20%C3%A9%20%F0%9F%AA%99.jpg"
    )


def test_a_gallery_in_few_files_shows_the_same(page, gallery, monkeypatch):
    monkeypatch.setattr(packing, "EACH", 10)
    before = {path: path.stat().st_mtime_ns for path in gallery.rglob("*")}
    out = packing.pack_pictures(gallery, "a run")
    (out / "2" / "0" / "_pictures-old-0000.js").write_text("of an earlier packing")
    (out / "edits.csv").write_text("saved here by a user")
    assert packing.pack_pictures(gallery, "a run") == out
    assert {path: path.stat().st_mtime_ns for path in gallery.rglob("*")} == before
    assert (out / "edits.csv").exists()
    assert not [*out.rglob("*-original.png"), *out.rglob("*old*"), *out.rglob("results.json")]
    number = largest(gallery)
    there = [row for row in rows_of(gallery) if row["cluster"] == number]
    assert len([*(out / "2" / number).glob("_pictures-grad_cam-*.js")]) == -(-len(there) // 10)

    open_page(page, out / "2" / number / "index.html")
    page.wait_for_function("document.querySelector('.coin img').naturalWidth > 0")
    page.evaluate("page.more(1e6)")
    for at in (0, len(there) - 1):  # the last is in another script
        image = page.locator(".coin").nth(at).locator("img").last
        image.scroll_into_view_if_needed()
        page.wait_for_function("image => image.src && image.naturalWidth > 0", arg=image.element_handle())
        name = page.evaluate("at => page.coins[at].id", at)
        row = next(row for row in there if row["image"] == name)
        content = base64.b64decode(image.get_attribute("src").partition("base64,")[2])
        assert content == (gallery / "2" / row["grad_cam"]).read_bytes()
    page.locator(".coin").nth(3).click()
    page.keyboard.press("4")
    page.wait_for_function("['zoom-image', 'zoom-photograph'].every(id => $(id).naturalWidth > 0)")
    for path, images in (("index.html", ".card img"), ("2/map.html?q=b%2F0", "#found img")):
        page.goto(f"{out.as_uri()}/{path}")
        page.wait_for_function("some => [...document.querySelectorAll(some)].some(one => one.naturalWidth)", arg=images)
        assert broken_images(page) == []
    packing.check_packed(gallery, "a run")
    with pytest.raises(UserError, match="holds the packed gallery of another run"):
        packing.check_packed(gallery, "another")
    for pack in (out / "2" / number).glob("_pictures-*.js"):
        pack.write_text("")  # as a disk leaves it that lost its power
    open_page(page, out / "2" / number / "index.html")
    page.wait_for_function("$('message').textContent.includes('--few-files writes it again')")
    shutil.rmtree(out)


def test_correcting_takes_less_than_two_actions_an_image(browser, doubtful_gallery):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    rows = read_csv(doubtful_gallery / "2" / "explanations.csv")
    work = correct(context.new_page(), doubtful_gallery / "2", "all that there is")
    context.close()
    assert 2 < work.moved < len(rows) / 2
    assert work.right == work.images == len(rows)
    assert work.actions["click"] >= 2
    assert work.actions.total() < 2 * work.moved
