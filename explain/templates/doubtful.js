"use strict";
// Doubtful images of the whole set: photograph, map, and the two clusters that each lies between.

const CHUNK = 60; // images added to the page at a time
const page = {
  coins: [],
  doubt: "", // "": any

  sort() {
    this.coins = data.coins.filter((coin) => own.passes(coin) && (!this.doubt || coin.doubts.includes(this.doubt)));
    for (const button of document.querySelectorAll("[data-doubt]"))
      button.setAttribute("aria-pressed", String(button.dataset.doubt === this.doubt));
    $("coins").replaceChildren();
    $("none").hidden = this.coins.length > 0;
    this.more();
  },
  more(until = 0) {
    const from = $("coins").children.length;
    const part = this.coins.slice(from, Math.max(from + CHUNK, until));
    $("coins").append(...part.map((coin, i) => this.card(coin, from + i)));
  },
  card(coin, position) {
    const pictures = ["original", data.seen].map((key) => {
      if (!coin.has.includes(key)) return make("span", { className: "absent" }, "not drawn");
      const alt = `${key === "original" ? "Photograph" : "Map"} of ${coin.id}`;
      const href = `${clusterHref(coin.cluster)}#image=${encodeURIComponent(coin.file)}`;
      return make("a", { href }, drawnPicture(coin, key, { alt }));
    });
    const reasons = coin.doubts.map((flag) => make("span", { className: "chip warn", title: data.doubts[flag].says }, data.doubts[flag].title));
    const between = make("div", { className: "between" }, this.place(coin, coin.cluster, coin.probability, "is in"));
    if (coin.rival >= 0) between.append(this.place(coin, coin.rival, coin.rivalProbability, coin.margin < 0 ? "the network would say" : "second choice"));
    const box = make("input", { type: "checkbox", className: "choose", tabIndex: -1 });
    box.setAttribute("aria-label", `select ${coin.id}`);
    const words = make("div", { className: "words" }, make("p", { className: "badges" }, ...reasons), make("p", { className: "caption" }));
    const card = make("li", { className: "doubt", tabIndex: 0 }, box, ...pictures, between, words);
    card.dataset.position = position;
    this.caption(card, coin);
    return card;
  },
  place: (coin, number, probability, words) =>
    make("div", {}, make("span", { className: "figures" }, `${words} `), clusterChip(number), make("b", {}, ` ${percent(probability)}`)),
  caption(card, coin) {
    const edit = edits.coins.get(coin.id);
    const mark = !edit ? "" : edit.move !== "" ? `→ ${group} ${edit.move} ` : edit.wrong ? "does not belong here " : "noted ";
    const label = coin.label === undefined ? "" : ` · ${labelWords(coin.label)}`;
    card.classList.toggle("wrong", hand.isOut(coin));
    card.classList.toggle("chosen", hand.chosen.has(coin.id));
    card.querySelector(".choose").checked = hand.chosen.has(coin.id);
    card.querySelector(".caption").replaceChildren(
      make("span", { className: "edit-mark" }, mark), `no. ${coin.rank} of ${group} ${coin.cluster}${label}`,
      make("span", { className: "figures id" }, coin.id),
      make("span", { className: "figures own-said" }, own.words(coin, own.filters.keys())),
    );
  },
  refresh() {
    for (const card of $("coins").children) this.caption(card, this.coins[card.dataset.position]);
  },
  focus(position) {
    const at = Math.max(0, Math.min(this.coins.length - 1, position));
    this.more(at + 1);
    $("coins").children[at]?.focus();
  },
  key(event) {
    if (hand.keysTaken(event)) return;
    const card = event.target.closest?.(".doubt");
    const at = card ? +card.dataset.position : -1;
    const coins = hand.of(at >= 0 ? this.coins[at] : null);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === " " && event.target === card) hand.toggle(this.coins[at], at);
    else if (key === "Enter" && event.target === card) card.querySelector("a")?.click();
    else if (key === "ArrowDown" && (card || event.target === document.body)) this.focus(at + 1);
    else if (key === "ArrowUp" && card) this.focus(at - 1);
    else if (!hand.key(key, coins)) return;
    event.preventDefault();
  },
};

for (const button of document.querySelectorAll("[data-doubt]"))
  button.addEventListener("click", () => {
    page.doubt = button.dataset.doubt;
    history.replaceState(null, "", `#${page.doubt}`);
    page.sort();
  });
$("coins").addEventListener("click", (event) => {
  const card = event.target.closest(".doubt");
  if (!card || event.target.closest("a")) return;
  const position = +card.dataset.position;
  if (event.shiftKey) hand.range(page.coins, position);
  else if (event.ctrlKey || event.metaKey || event.target.matches(".choose")) hand.toggle(page.coins[position], position);
  else card.focus();
});
document.addEventListener("keydown", (event) => page.key(event));
new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && page.more(), {
  rootMargin: "1500px",
}).observe($("sentinel"));
document.addEventListener("edits", () => page.refresh());
document.addEventListener("chosen", () => page.refresh());
own.start(data.coins);
document.addEventListener("own", () => page.sort());
const asked = location.hash.slice(1);
page.doubt = asked in data.doubts ? asked : "";
page.sort();
