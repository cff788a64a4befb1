"""The gallery in a real browser, opened from disk: it works, asks the network for nothing, and file names stay text."""

import csv
import shutil
from pathlib import Path

import pytest
from conftest import photograph, run_module
from playwright.sync_api import sync_playwright

from machine.files import read_csv

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
    explained = run_module("explain", "--run", root / "exp", "--epoch", "all")
    assert explained.returncode == 0, explained.stderr
    return root / "results"


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
    page.keyboard.press("2")
    assert first.locator("img").count() == 1
    assert "-grad_cam.png" in first.locator("img").get_attribute("src")
    page.keyboard.press("0")
    assert first.locator("img").count() == 4
    page.keyboard.press("Enter")
    assert page.locator("#zoom").is_visible()
    for key, method in zip("1234", ("original", "grad_cam", "guided_backprop", "guided_grad_cam"), strict=True):
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
        const [x, y] = map.at(data.spots.find((spot) => spot[0] === 'b/07.jpg'));
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
