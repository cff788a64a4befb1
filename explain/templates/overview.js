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
document.querySelector(".cards").addEventListener("click", (event) => {
  if (event.target.closest("a, button, summary")) return;
  event.target.closest(".card")?.querySelector(".card-link").click();
});
