"use strict";
// The expert's hand on several coins at once: a selection, and where to move it. Before it: common, edits. The page's own
// script says what there is to select (`page.coins`), and draws what changed on the event "edits".

const TARGETS = "adfhjketu"; // keys of the clusters that were moved to last: letters that nothing else has, the easy ones first
const hand = {
  recent: [], // {number, key} of these clusters, the last one first
  chosen: new Map(), // id -> coin
  last: null, // position of the coin that was chosen last: from there Shift chooses
  done: false, // whether something was done with them: then the next choice begins anew

  toggle(coin, position) {
    if (this.done && !this.chosen.has(coin.id)) this.begin();
    if (this.chosen.has(coin.id)) this.chosen.delete(coin.id);
    else this.chosen.set(coin.id, coin);
    this.last = position;
    this.show();
  },
  range(coins, position) {
    if (this.done) this.begin();
    const [from, to] = [this.last ?? position, position].sort((a, b) => a - b);
    for (const coin of coins.slice(from, to + 1)) this.chosen.set(coin.id, coin);
    this.show();
  },
  onwards(coins) {
    for (const coin of coins.slice(this.last ?? 0)) this.chosen.set(coin.id, coin);
    this.show();
  },
  begin() {
    this.chosen.clear();
    this.done = false;
  },
  clear() {
    this.begin();
    this.last = null;
    this.show();
  },
  // A step of the edits with some coins, after which those that were chosen stay only to be looked at, noted or taken on.
  step(what, coins, change) {
    edits.step(what(this.words(coins)), coins.map((coin) => [coin, change(coin)]));
    this.done = this.chosen.size > 0 && coins.every((coin) => this.chosen.has(coin.id));
  },
  show() {
    const many = this.chosen.size;
    $("hand").hidden = !many;
    $("hand-count").textContent = `${many} selected`;
    $("hand-targets").replaceChildren(
      ...this.targets().map(({ number, key }) => {
        const button = make("button", { type: "button", title: `Move to ${group} ${number}` }, `→ ${number} ${edits.nameOf(number)} `, make("kbd", {}, key.toUpperCase()));
        button.addEventListener("click", () => this.move(this.of(null), number));
        return button;
      }),
    );
    document.dispatchEvent(new Event("chosen"));
  },
  // What a key or button is about: the selection, or the one coin at hand.
  of(coin) {
    return this.chosen.size && (!coin || this.chosen.has(coin.id)) ? [...this.chosen.values()] : coin ? [coin] : [];
  },
  words: (coins) => (coins.length === 1 ? coins[0].id : `${coins.length} images`),
  move(coins, number) {
    this.keep(number);
    this.step((words) => `moved ${words} to ${number}`, coins, (coin) => ({ move: number === coin.cluster ? "" : String(number), wrong: false }));
    this.show();
  },
  // A target keeps its key until it is the longest unused of all and another needs one.
  keep(number) {
    const kept = this.recent.filter((one) => one.number !== number);
    const key = this.recent.find((one) => one.number === number)?.key ?? [...TARGETS].find((letter) => kept.every((one) => one.key !== letter)) ?? kept.pop().key;
    this.recent = [{ number, key }, ...kept];
    remember(`targets/${run}/${epoch}`, this.recent);
  },
  targets() {
    return this.recent.filter(({ number }) => clusterOf.has(number) || edits.isMade(number)).sort((a, b) => TARGETS.indexOf(a.key) - TARGETS.indexOf(b.key));
  },
  moveToRival(coins) {
    const able = coins.filter((coin) => coin.rival >= 0);
    this.step((words) => `moved ${words} to the nearest other`, able, (coin) => ({ move: String(coin.rival), wrong: false }));
  },
  // The cluster that a coin is in by now, null if in none.
  placeOf(coin) {
    const edit = edits.coins.get(coin.id);
    return edit?.move ? +edit.move : edit?.wrong ? null : coin.cluster;
  },
  isOut(coin) {
    const edit = edits.coins.get(coin.id);
    return Boolean(edit && (edit.wrong || edit.move !== ""));
  },
  toggleWrong(coins) {
    const back = coins.every((coin) => this.isOut(coin));
    this.step((words) => `${back ? "put back" : "marked"} ${words}`, coins, () => ({ wrong: !back, move: "" }));
  },
  make(coins) {
    const number = edits.make(coins);
    this.keep(number);
    this.clear();
    showMessage(`${coins.length} image${coins.length === 1 ? " is" : "s are"} now ${group} ${number}. `, make("a", { href: clusterHref(number) }, "Look at it and name it"), ". Undo takes it back.");
  },
  // What a key does to coins, on every page alike; whether it does anything.
  key(key, coins) {
    const act = { w: (some) => this.toggleWrong(some), r: (some) => this.moveToRival(some), m: (some) => this.pick(some), "+": (some) => this.make(some) }[key] ?? this.byTarget(key);
    if (!act || !coins.length) return false;
    act(coins);
    return true;
  },
  byTarget(key) {
    const target = this.targets().find((one) => one.key === key);
    return target && ((some) => this.move(some, target.number));
  },
  // Whether keys belong to what is typed in, or to a list that lies over the page.
  keysTaken: (event) => event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], input[type=search], input[type=range], input[type=number], select") || $("pick").open || $("edit-list").open,
  // A coin that was moved into a cluster, seen there: to be looked at, selected and moved on.
  guest(coin, position = null) {
    const link = make("a", { href: `${epochFolder}/${coin.cluster}/index.html${coin.file ? `#image=${encodeURIComponent(coin.file)}` : ""}` });
    if (coin.file) link.append(drawnPicture(coin, "original", { alt: `Photograph of ${coin.id}` }));
    link.append(`${coin.id}, from ${coin.cluster}`);
    const box = make("input", { type: "checkbox", className: "choose", tabIndex: -1 });
    box.setAttribute("aria-label", `select ${coin.id}`);
    const item = make("li", { className: "guest", tabIndex: 0 }, box, link);
    const show = () => {
      box.checked = this.chosen.has(coin.id);
      item.classList.toggle("chosen", box.checked);
    };
    item.addEventListener("click", (event) => {
      if (event.shiftKey && position !== null) this.range(page.coins, position);
      else if (event.ctrlKey || event.metaKey || event.target === box) this.toggle(coin, position);
      else return;
      if (event.target !== box) event.preventDefault();
    });
    item.addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target !== item) return;
      event.preventDefault();
      this.toggle(coin, position);
    });
    item.coin = coin;
    item.show = show;
    show();
    return item;
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
    const rest = [...edits.made().reverse(), ...clusters.map((one) => one.number)].filter((number) => !first.includes(number));
    const anew = make("button", { type: "button" }, make("span", { className: "plus" }, "+"), make("b", {}, `new ${group}`));
    anew.addEventListener("click", () => {
      this.make(coins);
      $("pick").close();
    });
    $("pick-title").textContent = `Move ${this.words(coins)} to`;
    $("pick-text").value = "";
    $("pick-list").replaceChildren(
      make("li", {}, anew),
      ...[...first, ...rest].map((number) => {
        const name = edits.nameOf(number);
        const button = make(
          "button", { type: "button" },
          ...edits.faceOf(number),
          make("b", {}, String(number)), ` ${name} `, make("span", { className: "figures" }, `${edits.sizeOf(number)} images`),
        );
        button.dataset.number = number;
        button.addEventListener("click", () => {
          this.move(coins, number);
          $("pick").close();
        });
        return make("li", { hidden: coins.every((coin) => this.placeOf(coin) === number) }, button);
      }),
    );
    $("pick").showModal();
    $("pick-text").focus();
  },
};

const keptTargets = recall(`targets/${run}/${epoch}`, []); // another page from disk may have written anything there
if (Array.isArray(keptTargets)) hand.recent = keptTargets.filter((one) => Number.isInteger(one?.number) && one.key?.length === 1 && TARGETS.includes(one.key));

$("pick-text").addEventListener("input", () => {
  const text = $("pick-text").value.trim().toLowerCase();
  for (const line of $("pick-list").children) line.hidden = !line.textContent.toLowerCase().includes(text);
});
$("pick-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  const shown = [...$("pick-list").children].filter((line) => !line.hidden);
  const exact = shown.find((line) => line.firstChild.dataset.number === $("pick-text").value.trim());
  (exact ?? shown.find((line) => line.firstChild.dataset.number) ?? shown[0])?.firstChild.click();
});
$("pick-close").addEventListener("click", () => $("pick").close());
for (const [id, act] of Object.entries({
  "hand-move": (coins) => hand.pick(coins),
  "hand-make": (coins) => hand.make(coins),
  "hand-rival": (coins) => hand.moveToRival(coins),
  "hand-wrong": (coins) => hand.toggleWrong(coins),
}))
  $(id).addEventListener("click", () => act(hand.of(null)));
$("hand-note").addEventListener("input", (event) => hand.note(hand.of(null), event.target.value));
$("hand-onwards").addEventListener("click", () => hand.onwards(page.coins));
$("hand-clear").addEventListener("click", () => hand.clear());
