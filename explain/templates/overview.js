"use strict";
// The overview: sorting its cards, either way; the choice is remembered.

const WORST = { number: 1, trouble: -1, doubtful: -1, empty: -1, size: -1, overlap: 1, purity: 1 }; // 1: ascending is first shown

function sortCards(by, reversed) {
  const sign = WORST[by] * (reversed ? -1 : 1);
  const cards = [...$("cards").children];
  cards.sort((a, b) => sign * (a.dataset[by] - b.dataset[by]) || a.dataset.number - b.dataset.number);
  $("cards").append(...cards);
  $("direction").textContent = sign > 0 ? "↑ lowest first" : "↓ highest first";
  $("direction").setAttribute("aria-pressed", String(reversed));
  remember("order", { by, reversed });
}

const kept = recall("order", { by: "number", reversed: false });
if ([...$("order").options].some((option) => option.value === kept.by)) {
  $("order").value = kept.by;
  sortCards(kept.by, kept.reversed);
} else sortCards("number", false);
$("order").addEventListener("change", () => sortCards($("order").value, false));
$("direction").addEventListener("click", () =>
  sortCards($("order").value, $("direction").getAttribute("aria-pressed") !== "true"),
);
// The clusters that the expert made, as far as a page from disk can show them.
function drawMade() {
  const cards = edits.made().map((number) => {
    const pictures = edits.movedTo(number).filter((coin) => coin.file).slice(0, TYPICAL);
    const cells = pictures.map((coin) => drawnPicture(coin, "original", { className: "cell" }));
    const link = make("a", { className: "card-link", href: clusterHref(number) }, make("b", {}, `${group[0].toUpperCase()}${group.slice(1)} ${number}`));
    const size = edits.sizeOf(number);
    const head = make("p", { className: "card-head" }, link, make("span", { className: "name" }, edits.nameOf(number)), make("span", { className: "card-size" }, `${size} image${size === 1 ? "" : "s"}`));
    return make("li", { className: "card" }, head, make("div", { className: "typical" }, ...cells));
  });
  $("made-section").hidden = !cards.length;
  $("made-cards").replaceChildren(...cards);
}

const TYPICAL = 8; // images on a card
document.addEventListener("edits", drawMade);
drawMade();
document.querySelector("main").addEventListener("click", (event) => {
  if (event.target.closest("a, button, summary")) return;
  event.target.closest(".card")?.querySelector(".card-link").click();
});
