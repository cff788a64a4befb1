"use strict";
// The expert's edits: kept in the browser, saved as edits.csv.

const KEY = `deepcluster-explain/${run}/${epoch}`; // storage is shared by all pages opened from disk
const FORMER_KEY = `deepcluster-explain/${document.body.dataset.former}/${epoch}`; // edits of galleries made before
const BASE = document.body.dataset.base; // of clusters that were edited before: the digest of their table
const STEPS = 100; // that can be taken back
const COLUMNS = ["epoch", "image", "cluster", "action", "value", "note"];

const edits = {
  coins: new Map(), // id -> {cluster, wrong, move, note, file, rival}; file: of its pictures, null where there are none
  clusters: new Map(), // number -> {name, merge, from}; from: of a new cluster those that its images come from, "3+7"
  steps: [], // {what, coins: [id, edit before][], clusters: [number, edit before][]}, the last one is taken back first

  read() {
    [this.coins, this.clusters, this.steps] = [new Map(), new Map(), []];
    let text = null;
    try {
      text = localStorage.getItem(KEY) ?? localStorage.getItem(FORMER_KEY);
    } catch (error) {
      showMessage("This browser keeps nothing for pages from disk: save edits.csv before you leave a page.");
    }
    try {
      const kept = JSON.parse(text); // another page from disk may have written anything there
      const isEdit = ([, edit]) => edit !== null && typeof edit === "object";
      if (kept) [this.coins, this.clusters, this.steps] = [new Map(kept.coins.filter(isEdit)), new Map(kept.clusters.filter(isEdit)), [...(kept.steps ?? [])].filter((step) => Array.isArray(step?.coins) && Array.isArray(step.clusters))];
    } catch (error) {
      showMessage("What this browser kept of your edits is damaged: load the edits.csv that you saved last.");
    }
  },
  keep() {
    for (const [id, edit] of this.coins) if (!edit.wrong && edit.move === "" && !edit.note) this.coins.delete(id);
    for (const [number, edit] of this.clusters) if (edit.name === null && edit.merge === "" && !edit.from) this.clusters.delete(number);
    // A browser keeps some 5 MB for all pages: rather than an edit the oldest steps are forgotten.
    for (let steps = this.steps; ; steps = steps.slice(Math.ceil(steps.length / 2)))
      try {
        localStorage.setItem(KEY, JSON.stringify({ coins: [...this.coins], clusters: [...this.clusters], steps }));
        break;
      } catch (error) {
        if (steps.length) continue;
        showMessage("This browser could not keep the edit: save edits.csv before you leave this page.");
        break;
      }
    showEdits();
  },
  // One step, which can be taken back: `change` of each of some coins, and of some clusters.
  step(what, coins, clusters = []) {
    const before = {
      what,
      coins: coins.map(([coin]) => [coin.id, this.coins.get(coin.id) ?? null]),
      clusters: clusters.map(([number]) => [number, this.clusters.get(number) ?? null]),
    };
    const last = this.steps.at(-1);
    const touched = (step) => JSON.stringify([step.coins.map((one) => one[0]), step.clusters.map((one) => one[0])]);
    const typing = what.startsWith("typed") && last?.what === what && touched(last) === touched(before);
    if (!typing) this.steps = [...this.steps, before].slice(-STEPS);
    for (const [coin, change] of coins) {
      const { cluster, rival } = coin;
      const file = coin.has && !coin.has.includes("original") ? null : coin.file;
      this.coins.set(coin.id, { wrong: false, move: "", note: "", ...this.coins.get(coin.id), cluster, file, rival, ...change });
    }
    for (const [number, change] of clusters) this.clusters.set(number, { name: null, merge: "", from: "", ...this.clusters.get(number), ...change });
    this.keep();
  },
  cluster(number, change, what) {
    this.step(what, [], [[number, change]]);
  },
  undo() {
    const step = this.steps.pop();
    if (!step) return;
    const restore = (map, key, before) => (before === null ? map.delete(key) : map.set(key, before));
    for (const [id, before] of step.coins) restore(this.coins, id, before);
    for (const [number, before] of step.clusters) restore(this.clusters, number, before);
    this.keep();
    showMessage(`Taken back: ${step.what}.`);
  },
  clear() {
    const all = { what: "cleared all edits", coins: [...this.coins], clusters: [...this.clusters] };
    this.steps = [...this.steps, all].slice(-STEPS);
    this.coins.clear();
    this.clusters.clear();
    this.keep();
  },
  // Take one edit back, whatever came after it.
  forget(id, number) {
    const back = { wrong: false, move: "" };
    if (id !== null) this.step("took an edit back", [[{ id, ...this.coins.get(id) }, { ...back, note: "" }]]);
    else this.step("took an edit back", this.movedTo(number).filter(() => this.isMade(number)).map((coin) => [coin, back]), [[number, { name: null, merge: "", from: "" }]]);
  },
  // Make a new cluster of some coins; its number.
  make(coins) {
    const number = Math.max(outputs - 1, ...clusters.map((one) => one.number), ...this.clusters.keys()) + 1;
    const from = [...new Set(coins.map((coin) => coin.cluster))].sort((a, b) => a - b).join("+");
    this.step(`made ${group} ${number}`, coins.map((coin) => [coin, { move: String(number), wrong: false }]), [[number, { from }]]);
    return number;
  },
  made() {
    return [...this.clusters].filter(([, edit]) => edit.from).map(([number]) => number).sort((a, b) => a - b);
  },
  isMade(number) {
    return Boolean(this.clusters.get(number)?.from);
  },
  // The coins that were moved into a cluster, as pages know a coin.
  movedTo(number) {
    return [...this.coins].filter(([, edit]) => edit.move === String(number) && edit.cluster !== number).map(([id, edit]) => ({ id, rival: -1, ...edit }));
  },
  // The picture that stands for a cluster: none, or one.
  faceOf(number) {
    if (clusterOf.has(number)) return [typicalOf(number)];
    const first = this.movedTo(number).find((coin) => coin.file);
    return first ? [drawnPicture(first, "original")] : [];
  },
  // Of a cluster by its number: what it is called now, and how many images it has.
  nameOf(number) {
    const edit = this.clusters.get(number);
    return edit && edit.name !== null ? edit.name : (clusterOf.get(number)?.name ?? "");
  },
  // With the clusters that are merged into it.
  sizeOf(number) {
    const parts = [...this.clusters].filter(([other, edit]) => edit.merge !== "" && other !== number && this.endOf(other) === number).map(([other]) => other);
    return [number, ...parts].reduce((sum, one) => sum + this.ownSizeOf(one), 0);
  },
  // Where a chain of merges ends: of a circle in the smallest.
  endOf(number) {
    const seen = [number];
    for (;;) {
      const merge = this.clusters.get(seen.at(-1))?.merge ?? "";
      if (merge === "") return seen.at(-1);
      if (seen.includes(+merge)) return Math.min(...seen.slice(seen.indexOf(+merge)));
      seen.push(+merge);
    }
  },
  ownSizeOf(number) {
    let size = clusterOf.get(number)?.size ?? 0;
    for (const edit of this.coins.values()) {
      if (edit.cluster === number && (edit.wrong || (edit.move !== "" && +edit.move !== number))) size -= 1;
      if (edit.move !== "" && +edit.move === number && edit.cluster !== number) size += 1;
    }
    return size;
  },
  rows() {
    const rows = [];
    for (const [number, edit] of [...this.clusters].sort((a, b) => a[0] - b[0])) {
      if (edit.from) rows.push([epoch, "", number, "new", edit.from, ""]);
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
    const bases = [...new Set(rows.filter((row) => row[3] === "of").map((row) => row[4]))];
    if (bases.length > 1) throw new Error("these edits are of several tables of clusters");
    const of = bases[0] ?? "";
    if (of !== BASE) throw new Error(of && BASE ? "these edits are of clusters that were edited otherwise" : of ? "these edits are of a gallery of edited clusters" : `these edits are of the run's own ${group}s, and here they are edited`);
    const anew = rows.filter((row) => row[3] === "new").map((row) => +row[2]);
    const isThere = (number) => clusterOf.has(number) || anew.includes(number) || this.isMade(number);
    for (const [rowEpoch, , cluster, action, value] of rows) { // all of them first: a bad row must not leave half of them here
      if (rowEpoch !== epoch) throw new Error(`these edits are of epoch ${rowEpoch}, this page is of epoch ${epoch}`);
      if (action === "of") continue;
      if (!["new", "name", "merge", "move", "wrong", "note"].includes(action)) throw new Error(`unknown action ${action}`);
      if (!/^\d{1,6}$/.test(cluster)) throw new Error(`${cluster} is not the number of a ${group}`);
      if ((action === "move" || action === "merge") && !/^\d{1,6}$/.test(value)) throw new Error(`${value} is not the number of a ${group}`);
      if (action === "new" && (clusterOf.has(+cluster) || !(+cluster >= outputs))) throw new Error(`${cluster} is no new ${group} here`);
      if (action !== "new" && !isThere(+cluster)) throw new Error(`there is no ${group} ${cluster} here`);
      if ((action === "move" || action === "merge") && !isThere(+value)) throw new Error(`there is no ${group} ${value} here`);
    }
    const before = { what: "loaded edits", coins: [], clusters: [] };
    rows = rows.filter((row) => row[3] !== "of");
    for (const [, image, cluster] of rows) {
      if (image) before.coins.push([image, this.coins.get(image) ?? null]);
      else before.clusters.push([+cluster, this.clusters.get(+cluster) ?? null]);
    }
    for (const [, image, cluster, action, value, note] of rows) {
      const change = { new: { from: value || cluster }, name: { name: value }, merge: { merge: value } }[action];
      if (change) this.clusters.set(+cluster, { name: null, merge: "", from: "", ...this.clusters.get(+cluster), ...change });
      else this.coins.set(image, { cluster: +cluster, wrong: action === "wrong", move: action === "move" ? value : "", note });
    }
    this.steps = [...this.steps, before].slice(-STEPS);
    this.keep();
    this.find();
  },
  // Edits that came from a file know no pictures: look them up.
  find() {
    if (![...this.coins.values()].some((edit) => edit.file === undefined)) return;
    const look = () => {
      for (const [id, , , , file, drawn, , rival] of spots.filter((spot) => this.coins.get(spot[0])?.file === undefined))
        if (this.coins.has(id)) Object.assign(this.coins.get(id), { file: drawn ? file : null, rival });
      for (const edit of this.coins.values()) edit.file ??= null;
      this.keep();
    };
    if (typeof spots !== "undefined") look();
    else document.head.append(make("script", { src: `${epochFolder}/images.js`, onload: look }));
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
  $("edit-count").disabled = !count;
  $("undo-edit").disabled = !edits.steps.length;
  const made = edits.made();
  $("made-link").hidden = !made.length;
  $("made-link").textContent = `Your new ${group}s (${made.length})`;
  for (const node of document.querySelectorAll("[data-cluster-size]")) {
    const size = edits.sizeOf(+node.dataset.clusterSize);
    node.textContent = `${size} image${size === 1 ? "" : "s"}`;
  }
  if ($("edit-list").open) listEdits();
  for (const node of document.querySelectorAll("[data-cluster-name]")) {
    node.dataset.given ??= node.textContent;
    const edit = edits.clusters.get(+node.dataset.clusterName);
    const name = edit && edit.name !== null ? edit.name : node.dataset.given;
    const merge = edit && edit.merge !== "" ? `→ merged into ${edit.merge}` : "";
    node.textContent = [name, merge].filter(Boolean).join(" ");
  }
  document.dispatchEvent(new Event("edits"));
}

// Each edit in words, with a button that takes it back.
function listEdits() {
  const line = (words, id, number, place) => {
    const undo = make("button", { type: "button" }, "undo");
    undo.addEventListener("click", () => edits.forget(id, number));
    return make("li", {}, place, ` ${words} `, undo);
  };
  const of = (number, words) => make("a", { href: clusterHref(number) }, words);
  const rows = [];
  for (const [number, edit] of edits.clusters) {
    const said = [edit.from ? `is new, made of ${edits.sizeOf(number)} images` : "", edit.name !== null ? `is called “${edit.name}”` : "", edit.merge !== "" ? `is merged into ${edit.merge}` : ""];
    rows.push(line(said.filter(Boolean).join(" and "), null, number, of(number, `${group} ${number}`)));
  }
  for (const [id, edit] of edits.coins) {
    const done = edit.move !== "" ? `moved from ${edit.cluster} to ${edit.move}` : edit.wrong ? `does not belong to ${edit.cluster}` : "noted";
    rows.push(line(done + (edit.note ? ` (${edit.note})` : ""), id, null, of(edit.cluster, id)));
  }
  $("edit-rows").replaceChildren(...rows);
  if (!rows.length) $("edit-list").close();
}

function startEdits() {
  $("edit-count").addEventListener("click", () => {
    listEdits();
    $("edit-list").showModal();
  });
  $("edit-list-close").addEventListener("click", () => $("edit-list").close());
  $("undo-edit").addEventListener("click", () => edits.undo());
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("input[type=text], input[type=search], input[type=number]")) return;
    event.preventDefault();
    edits.undo();
  });
  $("save-edits").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([writeCsv([...(BASE ? [[epoch, "", "", "of", BASE, ""]] : []), ...edits.rows()])], { type: "text/csv" }));
    make("a", { href: url, download: "edits.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  });
  $("load-edits").addEventListener("change", async (event) => {
    try {
      const rows = readCsv((await event.target.files[0].text()).replace(/^\ufeff/, ""));
      if (!rows.length || rows[0].join() !== COLUMNS.join()) throw new Error(`its columns should be ${COLUMNS.join(", ")}`);
      edits.take(rows.slice(1));
      showMessage(`${rows.slice(1).filter((row) => row[3] !== "of").length} edits loaded.`);
    } catch (error) {
      showMessage(`This file could not be loaded: ${error.message}.`);
    }
    event.target.value = "";
  });
  $("clear-edits").addEventListener("click", () => {
    if (!confirm("Forget all edits of this epoch? Undo brings them back in this browser.")) return;
    edits.clear();
    showMessage("All edits are forgotten; Undo brings them back.");
  });
  window.addEventListener("storage", (event) => {
    if (event.key === KEY) {
      edits.read();
      showEdits();
    }
  });
}

edits.read();
startEdits();
showEdits();
edits.find();
