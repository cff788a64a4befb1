"use strict";
// The expert's edits: kept in the browser, saved as edits.csv.

const KEY = `deepcluster-explain/${run}/${epoch}`; // storage is shared by all pages opened from disk
const FORMER_KEY = `deepcluster-explain/${document.body.dataset.former}/${epoch}`; // edits of galleries made before
const COLUMNS = ["epoch", "image", "cluster", "action", "value", "note"];

const edits = {
  coins: new Map(), // id -> {cluster, wrong, move, note}
  clusters: new Map(), // number -> {name, merge}

  read() {
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(KEY) ?? localStorage.getItem(FORMER_KEY));
    } catch (error) {
      showMessage("This browser keeps nothing for pages from disk: save edits.csv before you leave a page.");
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
      showMessage("This browser could not keep the edit: save edits.csv before you leave this page.");
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
    for (const [rowEpoch, , , action] of rows) {  // all of them first: a bad row must not leave half of them here
      if (rowEpoch !== epoch) throw new Error(`these edits are of epoch ${rowEpoch}, this page is of epoch ${epoch}`);
      if (!["name", "merge", "move", "wrong", "note"].includes(action)) throw new Error(`unknown action ${action}`);
    }
    for (const [, image, cluster, action, value, note] of rows) {
      if (action === "name") this.clusters.set(+cluster, { merge: "", ...this.clusters.get(+cluster), name: value });
      else if (action === "merge") this.clusters.set(+cluster, { name: null, ...this.clusters.get(+cluster), merge: value });
      else
        this.coins.set(image, { cluster: +cluster, wrong: action === "wrong", move: action === "move" ? value : "", note });
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
  document.dispatchEvent(new Event("edits"));
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
      showMessage(`${rows.length - 1} edits loaded.`);
    } catch (error) {
      showMessage(`This file could not be loaded: ${error.message}.`);
    }
    event.target.value = "";
  });
  $("clear-edits").addEventListener("click", () => {
    if (!confirm("Forget all edits of this epoch? Save them first if you want them back.")) return;
    edits.coins.clear();
    edits.clusters.clear();
    edits.keep();
    showMessage("");
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
