"use strict";
// The expert's hand on several coins at once: a selection, and where to move it. Before it: common, edits. The page's own
// script says what there is to select (`page.coins`), and draws what changed on the event "edits".

const hand = {
  chosen: new Map(), // id -> coin
  last: null, // position of the coin that was chosen last: from there Shift chooses

  toggle(coin, position) {
    if (this.chosen.has(coin.id)) this.chosen.delete(coin.id);
    else this.chosen.set(coin.id, coin);
    this.last = position;
    this.show();
  },
  range(coins, position) {
    const [from, to] = [this.last ?? position, position].sort((a, b) => a - b);
    for (const coin of coins.slice(from, to + 1)) this.chosen.set(coin.id, coin);
    this.show();
  },
  onwards(coins) {
    for (const coin of coins.slice(this.last ?? 0)) this.chosen.set(coin.id, coin);
    this.show();
  },
  clear() {
    this.chosen.clear();
    this.last = null;
    this.show();
  },
  show() {
    const many = this.chosen.size;
    $("hand").hidden = !many;
    $("hand-count").textContent = `${many} selected`;
    document.dispatchEvent(new Event("chosen"));
  },
  // What a key or button is about: the selection, or the one coin at hand.
  of(coin) {
    return this.chosen.size && (!coin || this.chosen.has(coin.id)) ? [...this.chosen.values()] : coin ? [coin] : [];
  },
  words: (coins) => (coins.length === 1 ? coins[0].id : `${coins.length} images`),
  move(coins, number) {
    edits.step(`moved ${this.words(coins)} to ${number}`, coins.map((coin) => [coin, { move: number === coin.cluster ? "" : String(number), wrong: false }]));
  },
  moveToRival(coins) {
    const able = coins.filter((coin) => coin.rival >= 0);
    edits.step(`moved ${this.words(able)} to the nearest other`, able.map((coin) => [coin, { move: String(coin.rival), wrong: false }]));
  },
  isOut(coin) {
    const edit = edits.coins.get(coin.id);
    return Boolean(edit && (edit.wrong || edit.move !== ""));
  },
  toggleWrong(coins) {
    const back = coins.every((coin) => this.isOut(coin));
    edits.step(`${back ? "put back" : "marked"} ${this.words(coins)}`, coins.map((coin) => [coin, { wrong: !back, move: "" }]));
  },
  note(coins, text) {
    edits.step(`typed a reason for ${this.words(coins)}`, coins.map((coin) => [coin, { note: text }]));
  },

  // Where to: all clusters with picture, size and name; the rivals and neighbours of the coins first.
  pick(coins) {
    if (!coins.length) return;
    const from = coins[0].cluster;
    const near = [...coins.map((coin) => coin.rival), ...(clusterOf.get(from)?.nearest ?? [])];
    const first = [...new Set(near)].filter((number) => clusterOf.has(number));
    const rest = clusters.map((one) => one.number).filter((number) => !first.includes(number));
    $("pick-title").textContent = `Move ${this.words(coins)} to`;
    $("pick-text").value = "";
    $("pick-list").replaceChildren(
      ...[...first, ...rest].map((number) => {
        const name = edits.nameOf(number);
        const button = make(
          "button", { type: "button" },
          make("img", { loading: "lazy", alt: "", src: meanOf(number) }),
          make("b", {}, String(number)), ` ${name} `, make("span", { className: "figures" }, `${edits.sizeOf(number)} images`),
        );
        button.dataset.number = number;
        button.addEventListener("click", () => {
          this.move(coins, number);
          $("pick").close();
        });
        return make("li", { hidden: number === from && coins.length === 1 && !this.isOut(coins[0]) }, button);
      }),
    );
    $("pick").showModal();
    $("pick-text").focus();
  },
};

$("pick-text").addEventListener("input", () => {
  const text = $("pick-text").value.trim().toLowerCase();
  for (const line of $("pick-list").children) line.hidden = !line.textContent.toLowerCase().includes(text);
});
$("pick-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  const shown = [...$("pick-list").children].filter((line) => !line.hidden);
  const exact = shown.find((line) => line.firstChild.dataset.number === $("pick-text").value.trim());
  (exact ?? shown[0])?.firstChild.click();
});
$("pick-close").addEventListener("click", () => $("pick").close());
for (const [id, act] of Object.entries({
  "hand-move": (coins) => hand.pick(coins),
  "hand-rival": (coins) => hand.moveToRival(coins),
  "hand-wrong": (coins) => hand.toggleWrong(coins),
}))
  $(id).addEventListener("click", () => act(hand.of(null)));
$("hand-note").addEventListener("input", (event) => hand.note(hand.of(null), event.target.value));
$("hand-onwards").addEventListener("click", () => hand.onwards(page.coins));
$("hand-clear").addEventListener("click", () => hand.clear());
