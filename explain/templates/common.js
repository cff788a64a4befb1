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
// A gallery in few files (`--few-files`) has its pictures in scripts, some hundred images' of one method in each, which call
// `takePack`. Its page of an epoch has `packs`: cluster -> the names of its images, in the order of the scripts.
const packed = typeof packs === "undefined" ? null : { at: new Map(), waiting: new Map(), held: new Map() };

function takePack(name, pictures) {
  packed.held.set(name, pictures);
  for (const answer of packed.waiting.get(name) ?? []) answer(pictures);
  packed.waiting.delete(name);
}

// The script that a picture is in.
function packOf(coin, method) {
  if (!packed.at.has(coin.cluster)) packed.at.set(coin.cluster, new Map((packs.files[coin.cluster] ?? []).map((file, at) => [file, Math.floor(at / packs.each)])));
  const chunk = packed.at.get(coin.cluster).get(coin.file);
  return chunk === undefined ? null : `${coin.cluster}/_pictures-${method}-${String(chunk).padStart(4, "0")}.js`;
}

// Let an <img> show a picture of a coin; in a packed gallery once its script is there.
function showPicture(image, coin, method) {
  if (!packed) {
    image.src = pictureOf(coin, method);
    return;
  }
  const name = packOf(coin, method);
  image.dataset.wanted = `${coin.file}-${method}`; // what was asked of it last
  const answer = (pictures) => {
    if (image.dataset.wanted === `${coin.file}-${method}` && coin.file in pictures) image.src = `data:image/${suffix.slice(1).replace("jpg", "jpeg")};base64,${pictures[coin.file]}`;
  };
  if (name === null) return;
  if (packed.held.has(name)) answer(packed.held.get(name));
  else if (packed.waiting.has(name)) packed.waiting.get(name).push(answer);
  else {
    packed.waiting.set(name, [answer]);
    const missing = () => packed.held.has(name) || showMessage(`Pictures are missing: ${epoch}/${name} is gone or damaged. python -m explain … --few-files writes it again.`);
    document.head.append(make("script", { src: `${epochFolder}/${name.split("/").map(encodeURIComponent).join("/")}`, onload: missing, onerror: missing }));
  }
}

// An <img> of a coin's picture, which comes when it is nearly in view.
function drawnPicture(coin, method, properties = {}) {
  const image = make("img", { loading: "lazy", decoding: "async", alt: "", ...properties });
  if (packed) nearView.observe(Object.assign(image, { wants: [coin, method] }));
  else showPicture(image, coin, method);
  return image;
}
const nearView = packed && new IntersectionObserver(
  (seen) => {
    for (const { isIntersecting, target } of seen)
      if (isIntersecting) {
        nearView.unobserve(target);
        showPicture(target, ...target.wants);
      }
  },
  { rootMargin: "800px" },
);

// The most typical image of a cluster: the first of its strip.
function typicalOf(number) {
  const picture = make("img", { loading: "lazy", alt: "", className: "cell", src: `${epochFolder}/${number}/${strip}` });
  picture.style.objectPosition = "0 0";
  return picture;
}

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
  return make("a", { href: originalHref(coin), target: "_blank", title: `${originals.path}/${coin.id}` }, "original file");
}

// A file's name in an address; of one that is no text Python hands on each byte as half a character.
function inAddress(name) {
  return name.split(/([\ud800-\udfff])/u).map((part, i) => (i % 2 ? `%${(part.charCodeAt(0) & 255).toString(16)}` : encodeURIComponent(part))).join("");
}

function originalHref(coin) {
  const parts = [originals.relative, coin.id].map((path) => path.split("/").map(inAddress).join("/"));
  return `${root}/${parts.join("/")}`;
}

// Where a page can show the file itself: its address, else null.
function fileOf(coin) {
  return originals.relative && /\.(jpe?g|png|webp|gif|bmp|avif)$/i.test(coin.id) ? originalHref(coin) : null;
}

if ($("caveat")) {
  $("caveat").hidden = recall("caveat", "") === "away";
  $("caveat-away").addEventListener("click", (event) => {
    event.preventDefault();
    remember("caveat", "away");
    $("caveat").hidden = true;
  });
}
