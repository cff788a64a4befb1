"use strict";
// One cluster: its coins with their pictures, the enlarged one, and the keys.

const CHUNK = 60; // coins added to the page at a time
const page = {
  coins: [],
  method: "", // "": all side by side
  open: null, // position of the enlarged coin

  src: (coin, method) => `${encodeURIComponent(coin.file)}-${method}${data.suffix}`,
  shown() {
    return data.methods.filter((method) => !this.method || method.key === this.method);
  },
  sort() {
    const by = $("sort").value;
    const order = {
      rank: (a, b) => a.rank - b.rank,
      atypical: (a, b) => b.rank - a.rank,
      margin: (a, b) => (a.margin ?? Infinity) - (b.margin ?? Infinity),
      name: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
    };
    const apart = $("apart") ? $("apart").value : ""; // of labelled digits: the right and the wrong predictions
    const kept = data.coins.filter((coin) => !apart || (apart === "wrong") === coin.wrong);
    this.coins = kept.sort(order[by]);
    this.draw();
  },
  draw() {
    $("coins").replaceChildren();
    $("coins").classList.toggle("single", this.method !== "");
    $("coins").style.setProperty("--across", Math.min(this.shown().reduce((sum, method) => sum + method.panels, 0), 4));
    this.more();
  },
  more(until = 0) {
    const from = $("coins").children.length;
    const part = this.coins.slice(from, Math.max(from + CHUNK, until));
    $("coins").append(...part.map((coin, i) => this.card(coin, from + i)));
  },
  card(coin, position) {
    const pictures = this.shown().map((method) => {
      const there = coin.has.includes(method.key);
      const empty = coin.empty.includes(method.key);
      const alt = `${method.title} of ${coin.id}${empty ? ": an empty map" : ""}`;
      const picture = there ? make("img", { loading: "lazy", decoding: "async", alt, src: this.src(coin, method.key) }) : "";
      const said = this.numbers(coin, method.key);
      const caption = method.title + (empty ? " (empty)" : there ? "" : " (not drawn)") + (said && `: ${said}`);
      return make("figure", { className: method.panels > 1 ? "wide" : "" }, picture, make("figcaption", {}, caption));
    });
    const card = make("li", { className: "coin", tabIndex: 0 }, make("div", { className: "pictures" }, ...pictures));
    card.append(make("p", { className: "caption" }));
    card.dataset.position = position;
    this.caption(card, coin);
    return card;
  },
  numbers(coin, key) {
    const of = coin.numbers[key];
    return of ? `${of.uncovered.toFixed(2)}, covered ${of.worst.toFixed(2)} to ${of.best.toFixed(2)}` : "";
  },
  caption(card, coin) {
    const edit = edits.coins.get(coin.id);
    const mark = !edit ? "" : edit.move !== "" ? `→ ${group} ${edit.move} ` : edit.wrong ? "wrong " : "noted ";
    const label = coin.label === undefined ? "" : ` · ${labelWords(coin.label)}`;
    const margin = coin.margin === null ? "" : ` · ${coin.margin.toFixed(1)} before ${group} ${coin.rival}`;
    card.classList.toggle("wrong", Boolean(edit && (edit.wrong || edit.move !== "")));
    card.querySelector(".caption").replaceChildren(
      make("span", { className: "edit-mark" }, mark),
      coin.id,
      make("span", { className: "figures" }, ` · no. ${coin.rank}${label}${margin}`),
    );
  },
  refresh() {
    for (const card of $("coins").children) this.caption(card, this.coins[card.dataset.position]);
    const edit = edits.clusters.get(data.cluster);
    if (document.activeElement !== $("cluster-name")) $("cluster-name").value = edit && edit.name !== null ? edit.name : $("cluster-name").defaultValue;
    $("cluster-merge").value = edit ? edit.merge : "";
    if (this.open !== null) this.showEdit();
  },
  show(method) {
    this.method = method;
    for (const button of document.querySelectorAll("[data-method]"))
      button.setAttribute("aria-pressed", String(button.dataset.method === method));
    this.draw();
  },
  focus(position) {
    const at = Math.max(0, Math.min(this.coins.length - 1, position));
    this.more(at + 1);
    $("coins").children[at]?.focus();
  },
  columns() {
    const cards = [...$("coins").children];
    const below = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
    return below < 0 ? cards.length : below;
  },

  enlarge(position, method) {
    if (position < 0 || position >= this.coins.length) return;
    this.open = position;
    const coin = this.coins[position];
    this.zoomed = method ?? this.zoomed ?? (this.method || "grad_cam");
    if (!coin.has.includes(this.zoomed)) this.zoomed = coin.has[0];
    const title = data.methods.find((one) => one.key === this.zoomed).title;
    const image = $("zoom-image");
    image.onload = () => image.classList.toggle("tiny", image.naturalWidth < 120);
    image.src = this.src(coin, this.zoomed);
    image.alt = `${title} of ${coin.id}`;
    $("zoom-title").textContent = coin.id;
    const facts = [`${title}${coin.empty.includes(this.zoomed) ? " (an empty map: it says nothing)" : ""}`];
    const said = this.numbers(coin, this.zoomed);
    if (said) facts.push(said);
    facts.push(`no. ${coin.rank} of ${group} ${data.cluster}`);
    if (coin.label !== undefined) facts.push(labelWords(coin.label));
    if (coin.score !== null) facts.push(`logit ${coin.score.toFixed(2)}`);
    if (coin.margin !== null) facts.push(`${coin.margin.toFixed(2)} before ${group} ${coin.rival}`);
    if (coin.distance !== null) facts.push(`distance ${coin.distance.toFixed(3)}`);
    $("zoom-facts").textContent = facts.join(" · ");
    for (const button of document.querySelectorAll("[data-zoom-method]")) {
      button.setAttribute("aria-pressed", String(button.dataset.zoomMethod === this.zoomed));
      button.disabled = !coin.has.includes(button.dataset.zoomMethod);
    }
    $("zoom-previous").disabled = position === 0;
    $("zoom-next").disabled = position === this.coins.length - 1;
    this.showEdit();
    if (!$("zoom").open) $("zoom").showModal();
  },
  showEdit() {
    const edit = edits.coins.get(this.coins[this.open].id) ?? { wrong: false, move: "", note: "" };
    $("zoom-wrong").checked = edit.wrong || edit.move !== "";
    $("zoom-move").value = edit.move;
    if (document.activeElement !== $("zoom-note")) $("zoom-note").value = edit.note;
  },
  edit(coin, change) {
    edits.coin(coin.id, data.cluster, change);
  },
  toggleWrong(coin) {
    const edit = edits.coins.get(coin.id);
    this.edit(coin, edit && (edit.wrong || edit.move !== "") ? { wrong: false, move: "" } : { wrong: true });
  },

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input[type=text], input[type=search], select")) return;
    const zoomed = $("zoom").open;
    const card = event.target.closest?.(".coin");
    const at = zoomed ? this.open : card ? +card.dataset.position : -1;
    const methods = data.methods.map((method) => method.key);
    if (/^[1-9]$/.test(event.key) && methods[event.key - 1]) {
      if (zoomed) this.enlarge(at, methods[event.key - 1]);
      else this.show(methods[event.key - 1]), at >= 0 && this.focus(at);
    } else if (event.key === "0" && !zoomed) {
      this.show("");
      if (at >= 0) this.focus(at);
    } else if (event.key.toLowerCase() === "w" && at >= 0) this.toggleWrong(this.coins[at]);
    else if (zoomed && event.key === "ArrowRight") this.enlarge(at + 1);
    else if (zoomed && event.key === "ArrowLeft") this.enlarge(at - 1);
    else if (!zoomed && event.key === "Enter" && card) this.enlarge(at);
    else if (!zoomed && event.key.startsWith("Arrow") && (card || event.target === document.body)) {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns(), ArrowUp: -this.columns() }[event.key];
      this.focus(at < 0 ? 0 : at + step);
    } else return;
    event.preventDefault();
  },
};

for (const select of [$("sort"), $("apart")]) select?.addEventListener("change", () => page.sort());
for (const button of document.querySelectorAll("[data-method]"))
  button.addEventListener("click", () => page.show(button.dataset.method));
for (const button of document.querySelectorAll("[data-zoom-method]"))
  button.addEventListener("click", () => page.enlarge(page.open, button.dataset.zoomMethod));
$("coins").addEventListener("click", (event) => {
  const card = event.target.closest(".coin");
  if (!card) return;
  const figures = [...card.querySelectorAll("figure")];
  const at = figures.indexOf(event.target.closest("figure"));
  page.enlarge(+card.dataset.position, at < 0 ? undefined : page.shown()[at].key);
});
document.addEventListener("keydown", (event) => page.key(event));
$("zoom").addEventListener("close", () => {
  const at = page.open;
  page.open = null;
  page.focus(at);
});
$("zoom").addEventListener("click", (event) => event.target === $("zoom") && $("zoom").close());
$("zoom-close").addEventListener("click", () => $("zoom").close());
$("zoom-next").addEventListener("click", () => page.enlarge(page.open + 1));
$("zoom-previous").addEventListener("click", () => page.enlarge(page.open - 1));
$("zoom-wrong").addEventListener("change", () => page.toggleWrong(page.coins[page.open]));
$("zoom-move").addEventListener("change", (event) =>
  page.edit(page.coins[page.open], { move: event.target.value, wrong: false }),
);
$("zoom-note").addEventListener("input", (event) => page.edit(page.coins[page.open], { note: event.target.value }));
$("cluster-name").addEventListener("input", (event) => edits.cluster(data.cluster, { name: event.target.value }));
$("cluster-merge").addEventListener("change", (event) => edits.cluster(data.cluster, { merge: event.target.value }));
new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && page.more(), {
  rootMargin: "1500px",
}).observe($("sentinel"));
document.addEventListener("edits", () => page.refresh());
page.sort();
page.refresh();
const wanted = new URLSearchParams(location.hash.slice(1)).get("image");
const at = page.coins.findIndex((coin) => coin.file === wanted);
if (at >= 0) {
  page.more(at + 1);
  page.enlarge(at);
}
