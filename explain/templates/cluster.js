"use strict";
// One cluster: its coins with their pictures, the enlarged one, the scale of the maps, and the keys.

const CHUNK = 60; // coins added to the page at a time
const SETTLING = 4; // frames
const HALF_SHOWN = 12; // images of each half
const FINE = 64; // side of a map that the page draws itself
const page = {
  coins: [],
  method: "", // "": all side by side
  open: null, // position of the enlarged coin
  beside: -1, // which of the most similar lies beside it, -1: its map does
  common: false, // maps on one scale
  anchor: -1, // position of the coin that stays where it is when the others change

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
    const apart = $("apart").value; // a doubt's flag, or "right": of labelled digits those that are predicted rightly
    const kept = data.coins.filter((coin) => own.passes(coin) && (!apart || (apart === "right" ? !coin.wrong : coin.doubts.includes(apart))));
    this.coins = kept.sort(order[by] ?? own.orderOf(by));
    $("none").hidden = kept.length > 0 || !data.coins.length;
    this.draw();
  },
  draw(until = 0) {
    $("coins").replaceChildren();
    $("coins").classList.toggle("single", this.method !== "");
    $("coins").style.setProperty("--across", Math.min(this.shown().reduce((sum, method) => sum + method.panels, 0), 4));
    this.more(until);
  },
  // The same coins in another dress: as many as before, and the first that was in view stays where it was.
  redraw() {
    const cards = [...$("coins").children];
    const inView = (card) => card && card.getBoundingClientRect().bottom > 60 && card.getBoundingClientRect().top < innerHeight;
    if (!inView(cards[this.anchor])) this.anchor = cards.findIndex(inView); // else the same as at the last change
    const seen = this.anchor;
    const top = cards[seen]?.getBoundingClientRect().top;
    const focused = document.activeElement?.closest?.(".coin")?.dataset.position;
    this.draw(cards.length);
    if (focused !== undefined) $("coins").children[focused]?.focus({ preventScroll: true });
    // Cards out of view have guessed heights until they are near: it takes some frames until all is where it stays.
    const stay = (frames) => {
      const card = $("coins").children[seen];
      if (seen > 0 && card) window.scrollBy({ top: card.getBoundingClientRect().top - top, behavior: "instant" });
      if (frames) requestAnimationFrame(() => stay(frames - 1));
    };
    stay(SETTLING);
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
      const said = this.numbers(coin, method.key);
      const caption = method.title + (empty ? " (empty)" : there ? "" : " (not drawn)") + (said && `: ${said}`);
      const picture = there ? this.picture(coin, method, alt) : "";
      return make("figure", { className: method.panels > 1 ? "wide" : "" }, picture, make("figcaption", {}, caption));
    });
    const box = make("input", { type: "checkbox", className: "choose", tabIndex: -1 });
    box.setAttribute("aria-label", `select ${coin.id}`);
    const card = make("li", { className: "coin", tabIndex: 0 }, box, make("div", { className: "pictures" }, ...pictures));
    card.append(make("p", { className: "badges" }, ...badges(coin)), make("p", { className: "caption" }));
    card.dataset.position = position;
    this.caption(card, coin);
    return card;
  },
  picture(coin, method, alt) {
    if (!this.redrawn(coin, method.key)) return drawnPicture(coin, method.key, { alt });
    const below = drawnPicture(coin, "original", { alt, className: "grey" });
    return make("span", { className: "over" }, below, heatOver(coin, peakOf(coin) / this.most()));
  },
  // Whether the page itself draws a map: on the common scale, where the record has what it takes.
  redrawn(coin, key) {
    return this.common && key === data.heat && coin.heat !== undefined && peakOf(coin) !== undefined && coin.has.includes("original");
  },
  most: () => Math.max(...data.coins.map((coin) => peakOf(coin) ?? 0)),
  numbers(coin, key) {
    const of = coin.numbers[key];
    if (!of) return "";
    if (of.peak !== undefined) return of.peak > 0 ? `up to ${of.peak.toPrecision(2)}` : "";
    return `${of.uncovered.toFixed(2)}, covered ${of.worst.toFixed(2)} to ${of.best.toFixed(2)}`;
  },
  caption(card, coin) {
    const edit = edits.coins.get(coin.id);
    const mark = !edit ? "" : edit.move !== "" ? `→ ${group} ${edit.move} ` : edit.wrong ? "does not belong here " : "noted ";
    const label = coin.label === undefined ? "" : ` · ${labelWords(coin.label)}`;
    const place = placeWords(coin);
    const [asked, sorting] = [new Set(own.filters.keys()), $("sort").value.split(":")];
    if (sorting[0] === "own") asked.add(+sorting[1]);
    card.classList.toggle("wrong", hand.isOut(coin));
    card.classList.toggle("chosen", hand.chosen.has(coin.id));
    card.querySelector(".choose").checked = hand.chosen.has(coin.id);
    card.querySelector(".caption").replaceChildren(
      make("span", { className: "edit-mark" }, mark),
      make("span", {}, `no. ${coin.rank}${label}${place && ` · ${place}`}`),
      make("span", { className: "figures id" }, coin.id),
      make("span", { className: "figures own-said" }, own.words(coin, asked)),
    );
  },
  refresh() {
    for (const card of $("coins").children) this.caption(card, this.coins[card.dataset.position]);
    const edit = edits.clusters.get(data.cluster);
    if (document.activeElement !== $("cluster-name")) $("cluster-name").value = edit && edit.name !== null ? edit.name : $("cluster-name").defaultValue;
    this.offerTargets();
    $("cluster-merge").value = edit ? edit.merge : "";
    $("split").disabled = this.movable().length < 2;
    if (this.open !== null) this.showEdit();
  },
  // The lists of other clusters, those that were made by now among them.
  offerTargets() {
    const made = edits.made();
    for (const id of ["cluster-merge", "zoom-move"]) {
      for (const option of [...$(id).options].filter((one) => one.value))
        if (clusterOf.has(+option.value) || made.includes(+option.value)) option.textContent = clusterWords(+option.value);
        else option.remove();
      const there = new Set([...$(id).options].map((option) => +option.value));
      $(id).append(...made.filter((number) => !there.has(number)).map((number) => make("option", { value: number }, clusterWords(number))));
    }
  },
  show(method) {
    this.method = data.methods.some((one) => one.key === method) ? method : "";
    for (const button of document.querySelectorAll("[data-method]"))
      button.setAttribute("aria-pressed", String(button.dataset.method === this.method));
    remember("method", this.method);
    this.redraw();
  },
  scale(common) {
    this.common = common;
    if ($("scale")) $("scale").checked = common;
    remember("scale", common);
    this.sayScale();
    this.redraw();
    if (this.open !== null) this.enlarge(this.open);
  },
  sayScale() {
    if (!$("scale")) return;
    const peaks = data.coins.map(peakOf).filter((peak) => peak > 0);
    const able = peaks.length && data.coins.some((coin) => coin.heat !== undefined);
    $("scale").disabled = !able;
    const [least, most] = [Math.min(...peaks).toPrecision(2), Math.max(...peaks).toPrecision(2)];
    $("scale-said").textContent = !able
      ? ""
      : this.common
        ? `All ${data.heatTitle}s of this ${group} on one scale, from 0 to ${most}; other methods each on its own.`
        : `Each map is scaled to its own most (${data.heatTitle}: ${least} to ${most}): two equal colours are not equal heat.`;
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
    this.beside = -1;
    const coin = this.coins[position];
    this.zoomed = method ?? this.zoomed ?? (this.method || data.heat);
    if (!coin.has.includes(this.zoomed)) this.zoomed = coin.has[0];
    const asked = data.methods.find((one) => one.key === this.zoomed);
    const [image, photograph] = [$("zoom-image"), $("zoom-photograph")];
    image.onload = () => image.classList.toggle("tiny", image.naturalWidth < 120);
    photograph.onload = () => photograph.classList.toggle("tiny", photograph.naturalWidth < 120);
    $("zoom-over").querySelector("canvas")?.remove();
    const redrawn = this.redrawn(coin, this.zoomed);
    image.classList.toggle("grey", redrawn);
    showPicture(image, coin, redrawn ? "original" : this.zoomed);
    if (redrawn) $("zoom-over").append(heatOver(coin, peakOf(coin) / this.most()));
    image.alt = `${asked.title} of ${coin.id}`;
    const alone = this.zoomed === "original" || !coin.has.includes("original") || asked.panels > 1;
    $("zoom-pictures").classList.toggle("alone", alone);
    if (!alone) showPicture(photograph, coin, "original");
    photograph.alt = alone ? "" : `Photograph of ${coin.id}`;
    $("zoom-photograph-caption").textContent = "Photograph";
    const empty = coin.empty.includes(this.zoomed);
    const said = this.numbers(coin, this.zoomed);
    $("zoom-caption").textContent = asked.title + (empty ? ": an empty map, it says nothing" : said && `: ${said}${redrawn ? ", on the common scale" : ""}`);
    $("zoom-title").textContent = coin.id;
    $("zoom-badges").replaceChildren(...badges(coin));
    const facts = [`no. ${coin.rank} of ${group} ${data.cluster}`];
    if (coin.label !== undefined) facts.push(labelWords(coin.label));
    if (coin.probability !== null) facts.push(placeWords(coin));
    if (coin.score !== null) facts.push(`logit ${coin.score.toFixed(2)}`);
    if (coin.distance !== null) facts.push(`distance ${coin.distance.toFixed(3)}`);
    $("zoom-facts").textContent = facts.join(" · ");
    $("zoom-own").hidden = !own.facts(coin).length;
    $("zoom-own").replaceChildren(...own.facts(coin).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    $("zoom-original").replaceChildren(originalOf(coin));
    for (const button of document.querySelectorAll("[data-zoom-method]")) {
      button.setAttribute("aria-pressed", String(button.dataset.zoomMethod === this.zoomed));
      button.disabled = !coin.has.includes(button.dataset.zoomMethod);
    }
    $("zoom-previous").disabled = position === 0;
    $("zoom-next").disabled = position === this.coins.length - 1;
    $("zoom-rival").disabled = coin.rival < 0;
    $("zoom-rival").firstChild.textContent = coin.rival < 0 ? "no other " : `move to ${group} ${coin.rival} `;
    $("zoom-alike").hidden = !coin.alike.length;
    $("zoom-alike-list").replaceChildren(...coin.alike.map((other, at) => this.alike(other, at)));
    this.showEdit();
    if (!$("zoom").open) $("zoom").showModal();
  },
  alike(other, at) {
    const title = `${other.id}, ${group} ${other.cluster}`;
    const button = make("button", { type: "button", title }, drawnPicture(other, "original", { alt: title }), String(other.cluster));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.compare(at));
    return button;
  },
  // The enlarged coin and one that is like it, side by side in their own files where a page can show these.
  compare(at) {
    const coin = this.coins[this.open];
    const other = coin.alike[at];
    this.beside = at;
    $("zoom-pictures").classList.remove("alone");
    $("zoom-over").querySelector("canvas")?.remove();
    $("zoom-image").classList.remove("grey");
    for (const [image, one] of [[$("zoom-photograph"), coin], [$("zoom-image"), other]]) {
      image.onerror = () => {
        image.onerror = null;
        showPicture(image, one, "original");
      };
      image.dataset.wanted = "";
      if (fileOf(one)) image.src = fileOf(one);
      else showPicture(image, one, "original");
      image.alt = `Photograph of ${one.id}`;
    }
    $("zoom-photograph-caption").textContent = coin.id;
    const link = make("a", { href: `${clusterHref(other.cluster)}#image=${encodeURIComponent(other.file)}` }, other.id);
    const words = [link, `, ${group} ${other.cluster} `];
    if (other.cluster !== hand.placeOf(coin)) {
      const move = make("button", { type: "button" }, `move ${coin.id} there`);
      move.addEventListener("click", () => {
        hand.move([coin], other.cluster);
        move.remove();
      });
      words.push(move);
    }
    $("zoom-caption").replaceChildren(...words);
    [...$("zoom-alike-list").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === at)));
    for (const button of document.querySelectorAll("[data-zoom-method]")) button.setAttribute("aria-pressed", "false");
  },
  slide(on) {
    $("zoom-slide").checked = on;
    $("zoom-slider").hidden = !on;
    $("zoom-pictures").classList.toggle("sliding", on);
    this.cover();
  },
  cover() {
    $("zoom-pictures").style.setProperty("--covered", `${$("zoom-slider").value}%`);
  },
  showEdit() {
    const edit = edits.coins.get(this.coins[this.open].id) ?? { wrong: false, move: "", note: "" };
    $("zoom-wrong").checked = edit.wrong || edit.move !== "";
    $("zoom-move").value = edit.move;
    if (document.activeElement !== $("zoom-note")) $("zoom-note").value = edit.note;
  },

  welcome() {
    const guests = edits.movedTo(data.cluster);
    const parts = [...edits.clusters].filter(([number, edit]) => edit.merge !== "" && number !== data.cluster && edits.endOf(number) === data.cluster).map(([number]) => number);
    $("moved-here").hidden = !guests.length && !parts.length;
    $("merged-here").replaceChildren(...(parts.length ? ["Merged into it: "] : []), ...parts.map((number) => clusterChip(number, `${group} `)));
    $("moved-list").replaceChildren(...guests.map((coin) => hand.guest(coin)));
  },
  // The coins of the page that are still in its cluster.
  movable() {
    return data.coins.filter((coin) => hand.placeOf(coin) === data.cluster);
  },
  // Its two halves by the network's features, to look at before one becomes a new cluster.
  halve() {
    const coins = this.movable();
    for (const side of [0, 1]) {
      const half = coins.filter((coin) => coin.half === side).sort((a, b) => a.rank - b.rank);
      const pictures = half.slice(0, HALF_SHOWN).filter((coin) => coin.has.includes("original"));
      $(`half-title-${side}`).textContent = `${half.length} image${half.length === 1 ? "" : "s"}`;
      $(`half-list-${side}`).replaceChildren(...pictures.map((coin) => drawnPicture(coin, "original", { alt: coin.id, title: coin.id })));
      $(`half-make-${side}`).disabled = !half.length || half.length === coins.length;
      $(`half-make-${side}`).onclick = () => {
        $("halves").close();
        hand.make(half);
      };
    }
    const rest = edits.sizeOf(data.cluster) - coins.length;
    $("half-rest").textContent = rest > 0 ? `${rest} more of its images are not on this page and stay where they are.` : "";
    $("halves").showModal();
  },

  key(event) {
    if (hand.keysTaken(event) || $("key-list").open || $("halves").open) return;
    const zoomed = $("zoom").open;
    const card = event.target.closest?.(".coin");
    const at = zoomed ? this.open : card ? +card.dataset.position : -1;
    const coins = hand.of(zoomed || card ? this.coins[at] : (event.target.closest?.(".guest")?.coin ?? null));
    const methods = data.methods.map((method) => method.key);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (/^[1-9]$/.test(key) && methods[key - 1]) {
      if (zoomed) this.enlarge(at, methods[key - 1]);
      else this.show(methods[key - 1]);
    } else if (key === "0" && !zoomed) this.show("");
    else if (key === "?") $("key-list").showModal();
    else if (key === "n") location.href = clusterHref(data.next);
    else if (key === "p") location.href = clusterHref(data.previous);
    else if (key === "c" && $("scale") && !$("scale").disabled) this.scale(!this.common);
    else if (key === "s" && zoomed) this.slide(!$("zoom-slide").checked);
    else if (key === "v" && zoomed && this.coins[at].alike.length) this.compare((this.beside + 1) % this.coins[at].alike.length);
    else if (key === "g" && zoomed && $("zoom-grid")) $("zoom-grid").click();
    else if (key === " " && card && !zoomed) hand.toggle(this.coins[at], at);
    else if (zoomed && key === "ArrowRight") this.enlarge(at + 1);
    else if (zoomed && key === "ArrowLeft") this.enlarge(at - 1);
    else if (!zoomed && key === "Enter" && card && event.target === card) this.enlarge(at);
    else if (!zoomed && key.startsWith("Arrow") && (card || event.target === document.body)) {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns(), ArrowUp: -this.columns() }[key];
      this.focus(at < 0 ? 0 : at + step);
    } else if (!hand.key(key, coins)) return;
    event.preventDefault();
  },
};

function peakOf(coin) {
  return coin.numbers[data.heat]?.peak;
}

function clusterWords(number) {
  const name = edits.nameOf(number);
  const size = edits.sizeOf(number);
  return `${group} ${number}${name && ` “${name}”`}, ${size} image${size === 1 ? "" : "s"}`;
}

// Where the network would put a coin, and what else is doubtful about it.
function badges(coin) {
  const found = coin.doubts
    .filter((flag) => flag !== "disagrees" && flag !== "empty")
    .map((flag) => make("span", { className: "chip warn", title: data.doubts[flag].says }, data.doubts[flag].title));
  if (coin.doubts.includes("disagrees")) {
    const chip = clusterChip(coin.rival, "the network would say ");
    chip.classList.add("disagrees");
    chip.title = data.doubts.disagrees.says;
    found.unshift(chip);
  }
  return found;
}

// Colours and opacity of heat, as the pictures have them: 256 times red, green, blue, opacity.
const shades = new Uint8ClampedArray(
  Array.from({ length: 256 }, (_, i) => [0, 2, 4].map((at) => parseInt(lookUp.slice(6 * i + at, 6 * i + at + 2), 16)).concat(i * opaque)).flat(),
);

// A coin's small map, drawn `times` as strong as its own picture, smoothly.
function heatOver(coin, times) {
  const small = Uint8Array.from(atob(coin.heat), (letter) => letter.charCodeAt(0));
  const side = Math.sqrt(small.length);
  const canvas = make("canvas", { width: FINE, height: FINE });
  canvas.setAttribute("aria-hidden", "true");
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(FINE, FINE);
  const places = Array.from({ length: FINE }, (_, i) => {
    const at = Math.max(0, Math.min(side - 1, ((i + 0.5) * side) / FINE - 0.5));
    const low = Math.min(side - 2, Math.floor(at));
    return [low, at - low];
  });
  for (let y = 0; y < FINE; y++)
    for (let x = 0; x < FINE; x++) {
      const [[row, down], [column, across]] = [places[y], places[x]];
      const from = row * side + column;
      const above = small[from] * (1 - across) + small[from + 1] * across;
      const below = small[from + side] * (1 - across) + small[from + side + 1] * across;
      const value = Math.min(255, Math.round((above * (1 - down) + below * down) * times));
      picture.data.set(shades.subarray(4 * value, 4 * value + 4), 4 * (y * FINE + x));
    }
  pen.putImageData(picture, 0, 0);
  return canvas;
}

for (const id of ["cluster-merge", "zoom-move"])
  $(id).append(...clusters.filter((one) => one.number !== data.cluster).map((one) => make("option", { value: one.number }, clusterWords(one.number))));
for (const select of [$("sort"), $("apart")]) select.addEventListener("change", () => page.sort());
$("sort").addEventListener("change", () => remember("sort", $("sort").value));
for (const button of document.querySelectorAll("[data-method]"))
  button.addEventListener("click", () => page.show(button.dataset.method));
for (const button of document.querySelectorAll("[data-zoom-method]"))
  button.addEventListener("click", () => {
    page.enlarge(page.open, button.dataset.zoomMethod);
    button.blur(); // its outline would look like a second choice when a key chooses
  });
$("coins").addEventListener("click", (event) => {
  const card = event.target.closest(".coin");
  if (!card || event.target.closest("a")) return;
  const position = +card.dataset.position;
  if (event.shiftKey) hand.range(page.coins, position);
  else if (event.ctrlKey || event.metaKey || event.target.matches(".choose")) hand.toggle(page.coins[position], position);
  else {
    const at = [...card.querySelectorAll("figure")].indexOf(event.target.closest("figure"));
    page.enlarge(position, at < 0 ? undefined : page.shown()[at].key);
  }
});
$("coins").addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault()); // no text is marked
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
$("zoom-slide").addEventListener("change", (event) => page.slide(event.target.checked));
$("zoom-slider").addEventListener("input", () => page.cover());
$("zoom-grid")?.addEventListener("change", (event) => {
  $("zoom-pictures").classList.toggle("grid", event.target.checked);
  $("zoom-pictures").style.setProperty("--cells", data.cells);
});
$("zoom-wrong").addEventListener("change", () => hand.toggleWrong([page.coins[page.open]]));
$("zoom-rival").addEventListener("click", () => hand.moveToRival([page.coins[page.open]]));
$("zoom-pick").addEventListener("click", () => hand.pick([page.coins[page.open]]));
$("zoom-move").addEventListener("change", (event) => {
  const coin = page.coins[page.open];
  hand.move([coin], event.target.value === "" ? coin.cluster : +event.target.value);
});
$("zoom-note").addEventListener("input", (event) => hand.note([page.coins[page.open]], event.target.value));
$("keys").addEventListener("click", () => $("key-list").showModal());
$("key-list-close").addEventListener("click", () => $("key-list").close());
$("scale")?.addEventListener("change", (event) => page.scale(event.target.checked));
$("see-doubtful")?.addEventListener("click", () => {
  $("apart").value = "disagrees";
  page.sort();
});
$("cluster-name").addEventListener("input", (event) => edits.cluster(data.cluster, { name: event.target.value }, `typed the name of ${data.cluster}`));
$("cluster-merge").addEventListener("change", (event) => edits.cluster(data.cluster, { merge: event.target.value }, `merged ${data.cluster}`));
new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && page.more(), {
  rootMargin: "1500px",
}).observe($("sentinel"));
document.addEventListener("edits", () => {
  page.refresh();
  page.welcome();
});
document.addEventListener("chosen", () => {
  page.refresh();
  for (const item of $("moved-list").children) item.show();
});
$("split").addEventListener("click", () => page.halve());
$("half-close").addEventListener("click", () => $("halves").close());
page.common = recall("scale", false) && Boolean($("scale"));
if ($("scale")) $("scale").checked = page.common;
page.sayScale();
$("sort").append(...own.orders());
own.start(data.coins);
document.addEventListener("own", () => page.sort());
const sorting = recall("sort", "rank");
if ([...$("sort").options].some((option) => option.value === sorting)) $("sort").value = sorting;
const remembered = recall("method", "");
if (location.hash === "#doubtful") $("apart").value = "disagrees";
page.sort();
if (data.methods.some((one) => one.key === remembered)) page.show(remembered);
page.refresh();
page.welcome();
const wanted = new URLSearchParams(location.hash.slice(1)).get("image");
const at = page.coins.findIndex((coin) => coin.file === wanted);
if (at >= 0) {
  page.more(at + 1);
  page.enlarge(at);
}
