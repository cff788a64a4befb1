"use strict";
// The clusters that the expert made: their coins are seen here, named, and moved on.

const page = {
  coins: [], // of all sections, in their order

  draw() {
    const focused = document.activeElement?.id; // a name or a list of targets that is drawn anew
    const numbers = edits.made();
    this.coins = numbers.flatMap((number) => edits.movedTo(number));
    $("none").hidden = numbers.length > 0;
    let position = 0;
    const sections = numbers.map((number) => {
      const coins = edits.movedTo(number);
      const name = make("input", { type: "text", maxLength: 200, id: `name-${number}`, value: edits.nameOf(number) });
      name.addEventListener("input", () => edits.cluster(number, { name: name.value }, `typed the name of ${number}`));
      const merge = make("select", { id: `merge-${number}` }, make("option", { value: "" }, "no other"));
      const others = [...clusters.map((one) => one.number), ...numbers].filter((other) => other !== number);
      merge.append(...others.map((other) => make("option", { value: other }, `${group} ${other} ${edits.nameOf(other)}`)));
      merge.value = edits.clusters.get(number).merge;
      merge.addEventListener("change", () => edits.cluster(number, { merge: merge.value }, `merged ${number}`));
      const undo = make("button", { type: "button" }, `undo: put all back`);
      undo.addEventListener("click", () => edits.forget(null, number));
      const size = `${coins.length} image${coins.length === 1 ? "" : "s"}, from ${edits.clusters.get(number).from.replaceAll("+", ", ")}`;
      const head = make("p", { className: "search" }, make("label", {}, "Name ", name), make("label", {}, "Merge into ", merge), make("span", { className: "figures" }, size), undo);
      const list = make("ul", { className: "moved" }, ...coins.map((coin) => hand.guest(coin, position++)));
      return make("section", { id: String(number) }, make("h2", {}, `${group[0].toUpperCase()}${group.slice(1)} ${number}`), head, list);
    });
    $("made").replaceChildren(...sections);
    if (focused?.startsWith("name-") || focused?.startsWith("merge-")) $(focused)?.focus();
  },
  key(event) {
    if (hand.keysTaken(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (hand.key(key, hand.of(event.target.closest?.(".guest")?.coin ?? null))) event.preventDefault();
  },
};

document.addEventListener("keydown", (event) => page.key(event));
document.addEventListener("edits", () => {
  if (!document.activeElement?.id.startsWith("name-")) page.draw(); // a name is typed on
});
document.addEventListener("chosen", () => {
  for (const item of document.querySelectorAll(".guest")) item.show();
});
page.draw();
if (location.hash) $(location.hash.slice(1))?.scrollIntoView();
