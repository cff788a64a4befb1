"use strict";
// The overview: sorting its cards.

$("order").addEventListener("change", () => {
  const by = $("order").value;
  const sign = by === "number" ? 1 : -1;
  const cards = [...$("cards").children];
  cards.sort((a, b) => sign * (a.dataset[by] - b.dataset[by]) || a.dataset.number - b.dataset.number);
  $("cards").append(...cards);
});
