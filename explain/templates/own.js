"use strict";
// The columns of your own table: what passes their filters, orders by them, and what they say of a coin. Before it: common.
// A coin's `own` are its values, in the order of `columns`; null: not known. A change of a filter is the event "own".

const NOT_KNOWN = "not known";
const own = {
  filters: new Map(), // column -> {word} (null: not known), or {least, most}, numbers or null
  coins: [], // of the page, for the choice of values

  passes(coin) {
    for (const [column, filter] of this.filters) {
      const value = coin.own[column];
      if ("word" in filter ? value !== filter.word : value === null || value < (filter.least ?? -Infinity) || value > (filter.most ?? Infinity)) return false;
    }
    return true;
  },
  // What is known of a coin: pairs of a column's name and its value, of some columns or all.
  facts(coin, some = columns.keys()) {
    return [...some].filter((column) => coin.own[column] !== null).map((column) => [columns[column].name, String(coin.own[column])]);
  },
  words: (coin, some) => own.facts(coin, some).map((pair) => pair.join(" ")).join(" · "),
  // For a search: "mint: Paris" finds what "Paris" finds in that column alone.
  said: (coin) => own.facts(coin).map((pair) => pair.join(": ")).join("\n"),
  // By a column, what is not known last; `sign` -1: highest first.
  order(column, sign = 1) {
    const by = columns[column].numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b, undefined, { numeric: true });
    return (a, b) => {
      const [left, right] = [a.own[column], b.own[column]];
      return left === null || right === null ? (left === null) - (right === null) : sign * by(left, right);
    };
  },
  // Options of a list to sort by: value "own:2" or, highest first, "own:2:-1".
  orders: () =>
    columns.flatMap(({ name, numbers }, column) => {
      const one = (value, words) => make("option", { value }, words);
      return numbers ? [one(`own:${column}`, `${name}, lowest first`), one(`own:${column}:-1`, `${name}, highest first`)] : [one(`own:${column}`, name)];
    }),
  orderOf(value) {
    const [, column, sign] = value.split(":");
    return this.order(+column, +(sign ?? 1));
  },
  // How often each value of a column of texts occurs among some coins: the most frequent first, null is not known.
  counts(column, coins) {
    const found = new Map();
    for (const coin of coins) found.set(coin.own[column], (found.get(coin.own[column]) ?? 0) + 1);
    return [...found].sort((a, b) => (a[0] === null) - (b[0] === null) || b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  },
  filter(column, filter) {
    if (filter === null) this.filters.delete(column);
    else this.filters.set(column, filter);
    this.show();
    document.dispatchEvent(new Event("own"));
  },

  show() {
    if (!$("own-column")) return;
    $("own-filters").replaceChildren(
      ...[...this.filters].map(([column, { word, least, most }]) => {
        const range = [least === null ? "" : `from ${least}`, most === null ? "" : `to ${most}`].filter(Boolean).join(" ");
        const said = word === undefined ? range : (word ?? NOT_KNOWN);
        const button = make("button", { type: "button", className: "chip", title: "take this filter away" }, `${columns[column].name}: ${said} ×`);
        button.addEventListener("click", () => {
          this.filter(column, null);
          if ($("own-column").value === String(column)) this.ask("");
        });
        return button;
      }),
    );
  },
  // What a column can be filtered by.
  ask(column) {
    $("own-column").value = column;
    const numbers = column !== "" && columns[column].numbers;
    $("own-word").hidden = column === "" || numbers;
    $("own-range").hidden = !numbers;
    if (column === "") return;
    const kept = this.filters.get(+column);
    if (numbers) {
      const values = this.coins.map((coin) => coin.own[column]).filter((value) => value !== null);
      const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
      for (const [id, end, value] of [["own-least", low, kept?.least], ["own-most", high, kept?.most]])
        Object.assign($(id), { value: value ?? "", placeholder: values.length ? String(end) : "" });
      return;
    }
    const chosen = kept ? this.counts(column, this.coins).findIndex(([word]) => word === kept.word) : -1;
    const options = this.counts(column, this.coins).map(([word, count], at) => make("option", { value: at }, `${word ?? NOT_KNOWN} (${count})`));
    $("own-word").replaceChildren(make("option", { value: "" }, "any"), ...options);
    $("own-word").value = chosen < 0 ? "" : chosen;
  },
  start(coins) {
    this.coins = coins;
    if (!$("own-column")) return;
    $("own-column").append(...columns.map(({ name }, column) => make("option", { value: column }, name)));
    $("own-column").addEventListener("change", () => this.ask($("own-column").value));
    $("own-word").addEventListener("change", () => {
      const column = +$("own-column").value;
      const at = $("own-word").value;
      this.filter(column, at === "" ? null : { word: this.counts(column, this.coins)[at][0] });
    });
    const number = (id) => ($(id).value === "" ? null : +$(id).value);
    for (const id of ["own-least", "own-most"])
      $(id).addEventListener("input", () => {
        const [least, most] = [number("own-least"), number("own-most")];
        this.filter(+$("own-column").value, least === null && most === null ? null : { least, most });
      });
  },
};
