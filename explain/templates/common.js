"use strict";
// What all pages share. Classic scripts, in this order: common, edits, then the page's own (a page from disk takes no modules).
// Names of files and clusters only ever enter the page as text.

const $ = (id) => document.getElementById(id);
const { run, epoch, group, root, suffix } = document.body.dataset; // group: what a cluster is called here
const data = $("data") ? JSON.parse($("data").textContent) : {};
const clusterOf = new Map(clusters.map((one) => [one.number, one]));

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function labelWords(label) {
  return data.hasTruth ? `in truth ${label}` : label;
}

function showMessage(...parts) {
  $("message").replaceChildren(...parts);
  $("message").hidden = !parts.length;
}

// What a reader chose, kept for all galleries of this browser.
function recall(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`deepcluster-explain/chosen/${name}`)) ?? otherwise;
  } catch (error) {
    return otherwise;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`deepcluster-explain/chosen/${name}`, JSON.stringify(value));
  } catch (error) {
    // nothing is kept: the choice holds for this page
  }
}

const epochFolder = `${root}/${epoch}`;
const clusterHref = (number) => (clusterOf.has(number) ? `${epochFolder}/${number}/index.html` : `${epochFolder}/made.html#${number}`);
const meanOf = (number) => `${epochFolder}/${number}/_mean.png`;
const pictureOf = (coin, method) => `${epochFolder}/${coin.cluster}/${encodeURIComponent(coin.file)}-${method}${suffix}`;
function percent(probability) {
  if (probability === null) return "";
  return probability < 0.005 ? "< 1 %" : probability > 0.995 ? "> 99 %" : `${Math.round(probability * 100)} %`;
}

function clusterChip(number, words = "") {
  const picture = clusterOf.has(number) ? [make("img", { loading: "lazy", alt: "", src: meanOf(number) })] : [];
  return make("a", { className: "cluster-chip", href: clusterHref(number) }, ...picture, `${words}${number}`);
}

// How sure the network is, in words.
function placeWords(coin) {
  if (coin.probability === null) return "";
  if (coin.margin === null) return percent(coin.probability);
  if (coin.margin < 0) return `closer to ${group} ${coin.rival} (${percent(coin.rivalProbability)}, here ${percent(coin.probability)})`;
  return `${percent(coin.probability)} here, then ${group} ${coin.rival} (${percent(coin.rivalProbability)})`;
}

// The file that the picture was made of: a link where it is a file, else its path to copy.
function originalOf(coin) {
  if (!originals.relative) return make("code", {}, `${originals.path}: ${coin.id}`);
  const place = coin.id.split("/").map(encodeURIComponent).join("/");
  const way = originals.relative.split("/").map(encodeURIComponent).join("/");
  return make("a", { href: `${root}/${way}/${place}`, target: "_blank", title: `${originals.path}/${coin.id}` }, "original file");
}

if ($("caveat")) {
  $("caveat").hidden = recall("caveat", "") === "away";
  $("caveat-away").addEventListener("click", (event) => {
    event.preventDefault();
    remember("caveat", "away");
    $("caveat").hidden = true;
  });
}
