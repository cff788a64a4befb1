"use strict";
// What all pages share. Classic scripts, in this order: common, edits, then the page's own (a page from disk takes no modules).
// Names of files and clusters only ever enter the page as text.

const $ = (id) => document.getElementById(id);
const { run, epoch, group } = document.body.dataset; // group: what a cluster is called here
const data = $("data") ? JSON.parse($("data").textContent) : {};

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function labelWords(label) {
  return data.hasTruth ? `in truth ${label}` : label;
}

function showMessage(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}
