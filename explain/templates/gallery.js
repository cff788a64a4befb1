"use strict";
// One file for all pages: the expert's edits, the overview's sorting, the cluster page and the map.
// Names of files and clusters only ever enter the page as text.

const $ = (id) => document.getElementById(id);
const { run, epoch, root, group } = document.body.dataset; // group: what a cluster is called here
const data = $("data") ? JSON.parse($("data").textContent) : { page: "overview" };

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function told(label) {
  return group === "digit" ? `in truth ${label}` : label;
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// --- edits: kept in the browser, saved as edits.csv ---------------------------------------------------------------

const KEY = `deepcluster-explain/${run}/${epoch}`; // storage is shared by all pages opened from disk
const COLUMNS = ["epoch", "image", "cluster", "action", "value", "note"];

const edits = {
  coins: new Map(), // id -> {cluster, wrong, move, note}
  clusters: new Map(), // number -> {name, merge}

  read() {
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(KEY));
    } catch (error) {
      say("This browser keeps nothing for pages from disk: save edits.csv before you leave a page.");
    }
    this.coins = new Map(kept ? kept.coins : []);
    this.clusters = new Map(kept ? kept.clusters : []);
  },
  keep() {
    for (const [id, edit] of this.coins) if (!edit.wrong && edit.move === "" && !edit.note) this.coins.delete(id);
    for (const [number, edit] of this.clusters) if (edit.name === null && edit.merge === "") this.clusters.delete(number);
    try {
      localStorage.setItem(KEY, JSON.stringify({ coins: [...this.coins], clusters: [...this.clusters] }));
    } catch (error) {
      say("This browser could not keep the edit: save edits.csv before you leave this page.");
    }
    showEdits();
  },
  coin(id, cluster, change) {
    this.coins.set(id, { cluster, wrong: false, move: "", note: "", ...this.coins.get(id), ...change });
    this.keep();
  },
  cluster(number, change) {
    this.clusters.set(number, { name: null, merge: "", ...this.clusters.get(number), ...change });
    this.keep();
  },
  rows() {
    const rows = [];
    for (const [number, edit] of [...this.clusters].sort((a, b) => a[0] - b[0])) {
      if (edit.name !== null) rows.push([epoch, "", number, "name", edit.name, ""]);
      if (edit.merge !== "") rows.push([epoch, "", number, "merge", edit.merge, ""]);
    }
    for (const [id, edit] of [...this.coins].sort((a, b) => (a[0] < b[0] ? -1 : 1))) {
      if (edit.move !== "") rows.push([epoch, id, edit.cluster, "move", edit.move, edit.note]);
      else if (edit.wrong) rows.push([epoch, id, edit.cluster, "wrong", "", edit.note]);
      else rows.push([epoch, id, edit.cluster, "note", "", edit.note]);
    }
    return rows;
  },
  take(rows) {
    for (const [rowEpoch, image, cluster, action, value, note] of rows) {
      if (rowEpoch !== epoch) throw new Error(`these edits are of epoch ${rowEpoch}, this page is of epoch ${epoch}`);
      if (action === "name") this.clusters.set(+cluster, { merge: "", ...this.clusters.get(+cluster), name: value });
      else if (action === "merge") this.clusters.set(+cluster, { name: null, ...this.clusters.get(+cluster), merge: value });
      else if (["move", "wrong", "note"].includes(action))
        this.coins.set(image, { cluster: +cluster, wrong: action === "wrong", move: action === "move" ? value : "", note });
      else throw new Error(`unknown action ${action}`);
    }
    this.keep();
  },
};

function writeCsv(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return [COLUMNS, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

function readCsv(text) {
  const rows = [[""]];
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const row = rows[rows.length - 1];
    const c = text[i];
    if (quoted && c === '"' && text[i + 1] === '"') row[row.length - 1] += text[++i];
    else if (c === '"') quoted = !quoted;
    else if (!quoted && c === ",") row.push("");
    else if (!quoted && c === "\n") rows.push([""]);
    else if (quoted || c !== "\r") row[row.length - 1] += c;
  }
  return rows.filter((row) => row.length > 1);
}

function showEdits() {
  const count = edits.rows().length;
  $("edit-count").textContent = count ? `${count} edit${count === 1 ? "" : "s"}` : "no edits";
  $("save-edits").disabled = $("clear-edits").disabled = !count;
  for (const node of document.querySelectorAll("[data-cluster-name]")) {
    node.dataset.given ??= node.textContent;
    const edit = edits.clusters.get(+node.dataset.clusterName);
    const name = edit && edit.name !== null ? edit.name : node.dataset.given;
    const merge = edit && edit.merge !== "" ? `→ merged into ${edit.merge}` : "";
    node.textContent = [name, merge].filter(Boolean).join(" ");
  }
  if (data.page === "cluster") cluster.refresh();
}

function startEdits() {
  $("save-edits").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([writeCsv(edits.rows())], { type: "text/csv" }));
    make("a", { href: url, download: "edits.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  });
  $("load-edits").addEventListener("change", async (event) => {
    try {
      const rows = readCsv((await event.target.files[0].text()).replace(/^\ufeff/, ""));
      if (!rows.length || rows[0].join() !== COLUMNS.join()) throw new Error(`its columns should be ${COLUMNS.join(", ")}`);
      edits.take(rows.slice(1));
      say(`${rows.length - 1} edits loaded.`);
    } catch (error) {
      say(`This file could not be loaded: ${error.message}.`);
    }
    event.target.value = "";
  });
  $("clear-edits").addEventListener("click", () => {
    if (!confirm("Forget all edits of this epoch? Save them first if you want them back.")) return;
    edits.coins.clear();
    edits.clusters.clear();
    edits.keep();
    say("");
  });
  window.addEventListener("storage", (event) => {
    if (event.key === KEY) {
      edits.read();
      showEdits();
    }
  });
}

// --- overview -----------------------------------------------------------------------------------------------------

function startOverview() {
  $("order").addEventListener("change", () => {
    const by = $("order").value;
    const sign = by === "number" ? 1 : -1;
    const cards = [...$("cards").children];
    cards.sort((a, b) => sign * (a.dataset[by] - b.dataset[by]) || a.dataset.number - b.dataset.number);
    $("cards").append(...cards);
  });
}

// --- one cluster --------------------------------------------------------------------------------------------------

const CHUNK = 60; // coins added to the page at a time
const cluster = {
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
    const kept = data.coins.filter((coin) => !apart || (apart === "right") === (coin.label === String(data.cluster)));
    this.coins = kept.sort(order[by]);
    this.draw();
  },
  draw() {
    $("coins").replaceChildren();
    $("coins").classList.toggle("single", this.method !== "");
    $("coins").style.setProperty("--across", Math.min(this.shown().length, 4));
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
      return make("figure", {}, picture, make("figcaption", {}, method.title + (empty ? " (empty)" : there ? "" : " (not drawn)")));
    });
    const card = make("li", { className: "coin", tabIndex: 0 }, make("div", { className: "pictures" }, ...pictures));
    card.append(make("p", { className: "caption" }));
    card.dataset.position = position;
    this.caption(card, coin);
    return card;
  },
  caption(card, coin) {
    const edit = edits.coins.get(coin.id);
    const mark = !edit ? "" : edit.move !== "" ? `→ ${group} ${edit.move} ` : edit.wrong ? "wrong " : "noted ";
    const label = coin.label === undefined ? "" : ` · ${told(coin.label)}`;
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
    facts.push(`no. ${coin.rank} of ${group} ${data.cluster}`);
    if (coin.label !== undefined) facts.push(told(coin.label));
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

function startCluster() {
  for (const select of [$("sort"), $("apart")]) select?.addEventListener("change", () => cluster.sort());
  for (const button of document.querySelectorAll("[data-method]"))
    button.addEventListener("click", () => cluster.show(button.dataset.method));
  for (const button of document.querySelectorAll("[data-zoom-method]"))
    button.addEventListener("click", () => cluster.enlarge(cluster.open, button.dataset.zoomMethod));
  $("coins").addEventListener("click", (event) => {
    const card = event.target.closest(".coin");
    if (!card) return;
    const figures = [...card.querySelectorAll("figure")];
    const at = figures.indexOf(event.target.closest("figure"));
    cluster.enlarge(+card.dataset.position, at < 0 ? undefined : cluster.shown()[at].key);
  });
  document.addEventListener("keydown", (event) => cluster.key(event));
  $("zoom").addEventListener("close", () => {
    const at = cluster.open;
    cluster.open = null;
    cluster.focus(at);
  });
  $("zoom").addEventListener("click", (event) => event.target === $("zoom") && $("zoom").close());
  $("zoom-close").addEventListener("click", () => $("zoom").close());
  $("zoom-next").addEventListener("click", () => cluster.enlarge(cluster.open + 1));
  $("zoom-previous").addEventListener("click", () => cluster.enlarge(cluster.open - 1));
  $("zoom-wrong").addEventListener("change", () => cluster.toggleWrong(cluster.coins[cluster.open]));
  $("zoom-move").addEventListener("change", (event) =>
    cluster.edit(cluster.coins[cluster.open], { move: event.target.value, wrong: false }),
  );
  $("zoom-note").addEventListener("input", (event) => cluster.edit(cluster.coins[cluster.open], { note: event.target.value }));
  $("cluster-name").addEventListener("input", (event) => edits.cluster(data.cluster, { name: event.target.value }));
  $("cluster-merge").addEventListener("change", (event) => edits.cluster(data.cluster, { merge: event.target.value }));
  new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && cluster.more(), {
    rootMargin: "1500px",
  }).observe($("sentinel"));
  cluster.sort();
  const wanted = new URLSearchParams(location.hash.slice(1)).get("image");
  const at = cluster.coins.findIndex((coin) => coin.file === wanted);
  if (at >= 0) {
    cluster.more(at + 1);
    cluster.enlarge(at);
  }
}

// --- the map of all images ----------------------------------------------------------------------------------------

const LISTED = 200;
const map = {
  spots: [],
  colour: (number) => `hsl(${(number * 137.508) % 360} 70% ${number % 2 ? 45 : 58}%)`,
  href: (spot) => `${spot[1]}/index.html#image=${encodeURIComponent(spot[4])}`,

  matches(spot) {
    const text = $("q").value.trim().toLowerCase();
    return (!text || spot[0].toLowerCase().includes(text)) && ($("only").value === "" || spot[1] === +$("only").value);
  },
  at(spot) {
    const { width, height } = $("map").getBoundingClientRect();
    return [12 + ((spot[2] + 1) / 2) * (width - 24), 12 + ((1 - spot[3]) / 2) * (height - 24)];
  },
  draw() {
    const canvas = $("map");
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const found = data.spots.filter((spot) => this.matches(spot));
    const some = found.length < data.spots.length;
    const size = data.spots.length > 5000 ? 2 : 4;
    pen.globalAlpha = some ? 0.12 : 0.85;
    for (const spot of data.spots) this.dot(pen, spot, size);
    pen.globalAlpha = 1;
    if (some) for (const spot of found) this.dot(pen, spot, size + 1);
    const shown = found.slice(0, LISTED);
    const more = found.length > LISTED ? `, the first ${LISTED} listed` : "";
    $("found-title").textContent = some ? `${found.length} found${more}` : `${found.length} images: type part of a name to list some`;
    $("found").replaceChildren(
      ...(some ? shown : []).map((spot) => make("li", {}, make("a", { href: this.href(spot) }, spot[0]), ` · ${group} ${spot[1]}`)),
    );
  },
  dot(pen, spot, size) {
    const [x, y] = this.at(spot);
    pen.fillStyle = this.colour(spot[1]);
    pen.beginPath();
    pen.arc(x, y, size, 0, 7);
    pen.fill();
  },
  nearest(event) {
    const box = $("map").getBoundingClientRect();
    let best = null;
    let least = 15 ** 2;
    for (const spot of data.spots) {
      if (!this.matches(spot)) continue;
      const [x, y] = this.at(spot);
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < least) [best, least] = [spot, distance];
    }
    return best;
  },
  point(event) {
    const spot = this.nearest(event);
    $("tip").hidden = !spot;
    if (!spot) return;
    const [x, y] = this.at(spot);
    $("tip").style.left = `${Math.min(x + 12, $("map").clientWidth - 150)}px`;
    $("tip").style.top = `${Math.min(y + 12, $("map").clientHeight - 170)}px`;
    const picture = make("img", { alt: "", src: `${spot[1]}/${encodeURIComponent(spot[4])}-original${data.suffix}` });
    picture.onerror = () => picture.remove();
    $("tip").replaceChildren(picture, `${spot[0]} · ${group} ${spot[1]}`);
  },
};

function startMap() {
  $("q").value = new URLSearchParams(location.search).get("q") ?? "";
  $("find").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["q", "only"]) $(id).addEventListener("input", () => map.draw());
  $("map").addEventListener("pointermove", (event) => map.point(event));
  $("map").addEventListener("pointerleave", () => ($("tip").hidden = true));
  $("map").addEventListener("click", (event) => {
    const spot = map.nearest(event);
    if (spot) location.href = map.href(spot);
  });
  window.addEventListener("resize", () => map.draw());
  map.draw();
}

edits.read();
startEdits();
({ overview: startOverview, cluster: startCluster, map: startMap })[data.page]();
showEdits();
