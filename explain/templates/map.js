"use strict";
// The map of all images, with a lasso, and the search.

const LISTED = 200; // images in a list, values in the legend
const MARGIN = 4; // pixels around the whole map
const MOST_ZOOM = 80;
const MANY = 20000; // images whose thumbnails are kept at half their side, for memory's sake
const LEAST_PICTURE = 12; // pixels, side from which images are pictures and no longer dots
const MOST_PICTURE = 160;
const MOST_ROUND = 3000; // dots in view; more are squares, set pixel by pixel
const MOST_PICTURES = 3000; // in view; more are dots
const OWN_PICTURE = 1.4; // times a thumbnail's side: from there an image's own file is drawn ...
const MOST_OWN = 80; // ... where no more than so many are in view
const STILL = 4; // pixels that a click may move
const MOST_WORDS = 30; // values with a colour of their own; the rarer ones share one
const RAMP = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"]; // viridis
const SHADES = 32;
const STRAY = 0.02; // share of numbers at either end that the ramp ends before, lest one stray leave all else one colour

// A spot's place -> 0..1, from the first to the last: the map fills its frame.
const spread = (axis) => {
  const values = spots.map((spot) => spot[axis]);
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  return (spot) => (high > low ? (spot[axis] - low) / (high - low) : 0.5);
};
const [leftToRight, belowToAbove] = [spread(2), spread(3)];
const toRight = Float64Array.from(spots, leftToRight);
const toBelow = Float64Array.from(spots, (spot) => 1 - belowToAbove(spot));
const foundAt = new Uint8Array(spots.length); // whether the search finds it
const shadeAt = new Uint32Array(spots.length); // its colour as a pixel
const inView = new Float64Array(3 * spots.length); // of this frame: position in `spots`, and where on the canvas

const map = {
  zoom: 1,
  x: 0, // where the whole map's left and top edges are
  y: 0,
  lasso: false, // whether a drag encircles
  found: new Set(), // spots that match the search
  places: new Map(), // spot -> cluster by now, null: in none
  way: [], // of the lasso, on the whole map
  pointers: new Map(), // id -> [x, y] on the canvas
  dragged: false,
  sheets: [], // of thumbnails, decoded
  cell: spots.length > MANY ? thumbnails.side / 2 : thumbnails.side, // pixels of a thumbnail on them
  own: new Map(), // spot -> its own picture
  tints: new Map(), // spot -> its colour
  label: null, // the one that is shown alone
  drawn: { pictures: 0, own: 0, dots: 0 }, // by the last frame

  colour: (number) => (number === null ? "hsl(0 0% 55%)" : `hsl(${(number * 137.508) % 360} 70% ${number % 2 ? 45 : 58}%)`),
  href: (spot) => `${spot[1]}/index.html#image=${encodeURIComponent(spot[4])}`,
  coins: new Map(spots.map(([id, cluster, , , file, drawn, label, rival, row]) => [id, { id, cluster, file, rival, label, own: ownValues.map((values) => values[row]), has: drawn ? ["original"] : [] }])),
  coin(spot) {
    return this.coins.get(spot[0]);
  },

  placeOf(coin) {
    const place = hand.placeOf(coin);
    return place === null ? null : edits.endOf(place);
  },
  matches(spot) {
    const text = $("q").value.trim().toLowerCase();
    const said = () => `${spot[0]}\n${spot[6]}\n${edits.nameOf(this.places.get(spot))}\n${edits.coins.get(spot[0])?.note ?? ""}\n${own.said(this.coin(spot))}`.toLowerCase();
    return own.passes(this.coin(spot)) && (this.label === null || spot[6] === this.label) && (!text || said().includes(text)) && ($("only").value === "" || this.places.get(spot) === +$("only").value);
  },

  // --- where what is ---
  whole(spot) {
    const { edge } = this;
    return [edge + leftToRight(spot) * (this.width - 2 * edge), edge + (1 - belowToAbove(spot)) * (this.height - 2 * edge)];
  },
  at(spot) {
    const [x, y] = this.whole(spot);
    return [x * this.zoom + this.x, y * this.zoom + this.y];
  },
  measure() {
    const { width, height } = $("map").getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    [this.width, this.height] = [width, height];
    this.edge = MARGIN + this.side(1) / 2; // pictures at the edge are whole
    $("map").width = Math.round(width * ratio);
    $("map").height = Math.round(height * ratio);
    this.clamp();
  },
  clamp() {
    this.zoom = Math.max(1, Math.min(MOST_ZOOM, this.zoom));
    this.x = Math.max(this.width * (1 - this.zoom) - this.width / 3, Math.min(this.width / 3, this.x));
    this.y = Math.max(this.height * (1 - this.zoom) - this.height / 3, Math.min(this.height / 3, this.y));
    if (this.zoom === 1) [this.x, this.y] = [0, 0];
    this.redraw();
  },
  zoomAt(times, x, y) {
    const zoom = Math.max(1, Math.min(MOST_ZOOM, this.zoom * times));
    [this.x, this.y] = [x - ((x - this.x) * zoom) / this.zoom, y - ((y - this.y) * zoom) / this.zoom];
    this.zoom = zoom;
    this.clamp();
  },
  side(zoom = this.zoom) {
    return Math.min(MOST_PICTURE, 0.9 * Math.sqrt((this.width * this.height) / spots.length) * zoom ** 0.75);
  },
  // Positions in `spots` of those in view. Of 70,000 each frame: plain numbers, and nothing is made anew for each.
  visible(edge) {
    const [across, down] = [(this.width - 2 * this.edge) * this.zoom, (this.height - 2 * this.edge) * this.zoom];
    const [left, top] = [this.edge * this.zoom + this.x, this.edge * this.zoom + this.y];
    let count = 0;
    for (let i = 0; i < spots.length; i++) {
      const [x, y] = [left + toRight[i] * across, top + toBelow[i] * down];
      inView[3 * count] = i;
      inView[3 * count + 1] = x;
      inView[3 * count + 2] = y;
      if (x > -edge && y > -edge && x < this.width + edge && y < this.height + edge) count += 1;
    }
    return count;
  },

  // --- what is drawn ---
  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  },
  draw() {
    const pen = $("map").getContext("2d");
    const ratio = $("map").width / this.width;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const side = this.side();
    const count = this.visible(side);
    const asPictures = side >= LEAST_PICTURE && count <= MOST_PICTURES;
    const many = !asPictures && count > MOST_ROUND;
    const radius = Math.max(1.5, Math.min(5, side / 3));
    this.drawn = { pictures: 0, own: 0, dots: 0 };
    for (const [found, opacity] of [[0, 0.12], [1, 1]]) {
      const part = [];
      for (let at = 0; at < 3 * count && !many; at += 3)
        if (foundAt[inView[at]] === found) part.push([spots[inView[at]], inView[at + 1], inView[at + 2]]);
      pen.globalAlpha = asPictures ? opacity : opacity * 0.85;
      if (asPictures) this.pictures(pen, part, side, count <= MOST_OWN);
      else if (many) this.specks(pen, count, found, radius);
      else this.dots(pen, part, radius);
    }
    pen.globalAlpha = 1;
    if (!asPictures) this.rings(pen);
    if ($("names").checked) this.write(pen);
    this.trace(pen);
  },
  dots(pen, part, radius) {
    const byTint = new Map();
    for (const one of part) {
      const tint = this.tints.get(one[0]);
      if (!byTint.has(tint)) byTint.set(tint, []);
      byTint.get(tint).push(one);
    }
    for (const [tint, ones] of byTint) {
      pen.fillStyle = tint;
      pen.beginPath();
      for (const [, x, y] of ones) {
        pen.moveTo(x + radius, y);
        pen.arc(x, y, radius, 0, 7);
      }
      pen.fill();
    }
    this.drawn.dots += part.length;
  },
  // Of 70,000 three times as fast as paths.
  specks(pen, count, found, radius) {
    if (!found && this.found.size === spots.length) return;
    const { width, height } = $("map");
    const ratio = width / this.width;
    const across = Math.max(2, Math.round(2 * radius * ratio));
    if (this.layer?.width !== width || this.layer.height !== height) {
      this.layer = make("canvas", { width, height });
      this.shades = new ImageData(width, height);
    }
    const pixels = new Uint32Array(this.shades.data.buffer); // opacity, blue, green, red
    pixels.fill(0);
    for (let at = 0; at < 3 * count; at += 3) {
      const i = inView[at];
      if (foundAt[i] !== found) continue;
      const colour = shadeAt[i];
      const [left, top] = [Math.round(inView[at + 1] * ratio - across / 2), Math.round(inView[at + 2] * ratio - across / 2)];
      const [right, bottom] = [Math.min(width, left + across), Math.min(height, top + across)];
      for (let row = Math.max(0, top); row < bottom; row++)
        for (let column = Math.max(0, left); column < right; column++) pixels[row * width + column] = colour;
    }
    this.layer.getContext("2d").putImageData(this.shades, 0, 0);
    pen.drawImage(this.layer, 0, 0, this.width, this.height);
    this.drawn.dots += count;
  },
  pixel(pen, tint) {
    pen.fillStyle = tint; // read back as #rrggbb
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(pen.fillStyle.slice(at, at + 2), 16));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  },
  pictures(pen, part, side, few) {
    const { across } = thumbnails;
    const cell = this.cell;
    for (const [spot, x, y] of part) {
      const chosen = hand.chosen.has(spot[0]);
      const edge = (side > 40 ? 3 : 2) + (chosen ? 2 : 0);
      pen.fillStyle = chosen ? this.ink : this.tints.get(spot);
      pen.fillRect(x - side / 2 - edge, y - side / 2 - edge, side + 2 * edge, side + 2 * edge);
      const own = few && side > OWN_PICTURE * thumbnails.side && spot[5] ? this.ownPicture(spot) : null;
      const sheet = own?.naturalWidth ? null : this.sheet(Math.floor(spot[8] / across ** 2));
      if (own?.naturalWidth) {
        pen.drawImage(own, x - side / 2, y - side / 2, side, side);
        this.drawn.own += 1;
      } else if (sheet) {
        const at = spot[8] % across ** 2;
        pen.drawImage(sheet, (at % across) * cell, Math.floor(at / across) * cell, cell, cell, x - side / 2, y - side / 2, side, side);
      }
      this.drawn.pictures += 1;
    }
  },
  // A sheet of thumbnails once it is there, decoded for good: of an <img> the browser may decode all anew for each frame.
  sheet(number) {
    if (!(number in this.sheets)) {
      this.sheets[number] = null;
      const width = this.cell * thumbnails.across;
      const image = make("img", { src: thumbnails.sheets[number] });
      image.onload = async () => {
        this.sheets[number] = await createImageBitmap(image, { resizeWidth: width, resizeHeight: width, resizeQuality: "medium" });
        this.redraw();
      };
    }
    return this.sheets[number];
  },
  ownPicture(spot) {
    if (!this.own.has(spot)) {
      const image = make("img", { onload: () => this.redraw() });
      this.own.set(spot, image);
      showPicture(image, this.coin(spot), "original");
    }
    return this.own.get(spot);
  },
  rings(pen) {
    pen.strokeStyle = this.ink;
    pen.lineWidth = 2;
    for (const spot of hand.chosen.size ? spots : []) {
      const [x, y] = this.at(spot);
      if (hand.chosen.has(spot[0])) pen.strokeRect(x - 5, y - 5, 10, 10);
    }
  },
  // The number and name of each cluster, at the image nearest to its middle.
  write(pen) {
    pen.textAlign = "center";
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    pen.strokeStyle = this.ground;
    pen.fillStyle = this.ink;
    for (const [number, spot] of this.middles) {
      const [x, y] = this.at(spot);
      if (x < 0 || y < 0 || x > this.width || y > this.height) continue;
      const name = edits.nameOf(number);
      pen.font = `${name ? 600 : 500} ${name ? 15 : 13}px system-ui, sans-serif`;
      const text = `${number}${name && ` ${name}`}`;
      pen.strokeText(text, x, y - this.side() / 2 - 5);
      pen.fillText(text, x, y - this.side() / 2 - 5);
    }
  },
  trace(pen) {
    if (this.way.length < 2) return;
    pen.beginPath();
    for (const [x, y] of this.way) pen.lineTo(x * this.zoom + this.x, y * this.zoom + this.y);
    pen.closePath();
    pen.fillStyle = this.ink;
    pen.globalAlpha = 0.08;
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = this.ink;
    pen.lineWidth = 1.5;
    pen.stroke();
  },

  // --- what follows from search, edits and selection ---
  refresh() {
    const style = getComputedStyle(document.body);
    [this.ink, this.ground, this.faint] = [style.color, style.backgroundColor, style.getPropertyValue("--line").trim()];
    for (const spot of spots) this.places.set(spot, this.placeOf(this.coin(spot)));
    this.found = new Set(spots.filter((spot) => this.matches(spot)));
    const members = new Map();
    for (const spot of spots) {
      const place = this.places.get(spot);
      if (!members.has(place)) members.set(place, []);
      members.get(place).push(spot);
    }
    this.middles = [...members].filter(([place]) => place !== null).map(([place, ones]) => [place, middleOf(ones)]);
    this.offer(members);
    $("colours").replaceChildren(...this.paint(members));
    const pen = $("map").getContext("2d");
    const pixels = new Map([...new Set(this.tints.values())].map((tint) => [tint, this.pixel(pen, tint)]));
    for (const [i, spot] of spots.entries()) [foundAt[i], shadeAt[i]] = [+this.found.has(spot), pixels.get(this.tints.get(spot))];
    this.list();
    this.redraw();
  },
  offer(members) {
    const numbers = [...members.keys()].filter((place) => place !== null).sort((a, b) => a - b);
    const chosen = $("only").value;
    const words = (number) => `${number}${edits.nameOf(number) && ` ${edits.nameOf(number)}`}`;
    $("only").replaceChildren(make("option", { value: "" }, "all"), ...numbers.map((number) => make("option", { value: number }, words(number))));
    $("only").value = numbers.includes(+chosen) ? chosen : "";
  },
  // Give each spot its colour; the lines of the legend that tells them.
  paint(members) {
    const by = $("colour-by").value;
    if (by === "") {
      for (const [place, ones] of members) for (const spot of ones) this.tints.set(spot, this.colour(place));
      const numbers = [...members.keys()].filter((place) => place !== null).sort((a, b) => a - b);
      return numbers.map((number) =>
        this.line(this.colour(number), [make("b", {}, String(number)), ` ${edits.nameOf(number)}`], members.get(number).length, String(number) === $("only").value, (chosen) => {
          $("only").value = chosen ? number : "";
          this.refresh();
        }),
      );
    }
    if (by === "label")
      return this.paintWords(
        (spot) => spot[6] || null,
        (word) => this.label === (word ?? ""),
        (word) => {
          this.label = word === undefined ? null : (word ?? "");
          this.refresh();
        },
      );
    if (columns[by].numbers) return this.paintNumbers((spot) => this.coin(spot).own[by]);
    return this.paintWords(
      (spot) => this.coin(spot).own[by],
      (word) => own.filters.get(+by)?.word === word,
      (word) => own.filter(+by, word === undefined ? null : { word }),
    );
  },
  // By a value that is a word (null: not known), the most frequent first; a click calls `choose` with it, or with nothing.
  paintWords(wordOf, isChosen, choose) {
    const counts = new Map();
    for (const spot of spots) counts.set(wordOf(spot), (counts.get(wordOf(spot)) ?? 0) + 1);
    const words = [...counts.keys()].filter((word) => word !== null).sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
    const tints = new Map(words.map((word, at) => [word, at < MOST_WORDS ? this.colour(at) : this.colour(null)]));
    tints.set(null, this.faint);
    for (const spot of spots) this.tints.set(spot, tints.get(wordOf(spot)));
    const told = words.filter((word, at) => at < LISTED || isChosen(word));
    const lines = [...told, ...(counts.has(null) ? [null] : [])].map((word) =>
      this.line(tints.get(word), [word ?? make("i", {}, NOT_KNOWN)], counts.get(word), isChosen(word), (chosen) => choose(chosen ? word : undefined)),
    );
    const rest = words.length - told.length;
    return rest ? [...lines, this.line(this.colour(null), [make("i", {}, "other values, to be searched for")], rest)] : lines;
  },
  paintNumbers(numberOf) {
    const numbers = spots.map(numberOf).filter((number) => number !== null).sort((a, b) => a - b);
    const end = Math.floor(STRAY * numbers.length);
    let [low, high] = [numbers[end], numbers.at(-1 - end)];
    if (low === high) [low, high] = [numbers[0], numbers.at(-1)];
    for (const spot of spots) {
      const number = numberOf(spot);
      const share = high > low ? (number - low) / (high - low) : 0.5;
      this.tints.set(spot, number === null ? this.faint : shadeOf(Math.round(Math.max(0, Math.min(1, share)) * (SHADES - 1)) / (SHADES - 1)));
    }
    const bar = make("span", { className: "ramp" });
    bar.style.background = `linear-gradient(90deg, ${RAMP.join(", ")})`;
    const ends = make("span", { className: "ramp-ends" }, make("span", {}, `${low}${low > numbers[0] ? " or less" : ""}`), make("span", {}, `${high}${high < numbers.at(-1) ? " or more" : ""}`));
    const unknown = spots.length - numbers.length;
    return [make("li", {}, bar, ends), ...(unknown ? [this.line(this.faint, [make("i", {}, NOT_KNOWN)], unknown)] : [])];
  },
  // Of the legend: a colour, words, a count; with `choose` a switch.
  line(tint, words, count, chosen = false, choose = null) {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = tint;
    const parts = [swatch, make("span", {}, ...words), make("span", { className: "figures" }, String(count))];
    if (!choose) return make("li", { className: "line" }, ...parts);
    const button = make("button", { type: "button" }, ...parts);
    button.setAttribute("aria-pressed", String(chosen));
    button.addEventListener("click", () => choose(!chosen));
    return make("li", {}, button);
  },
  list() {
    const some = this.found.size < spots.length;
    const found = [...this.found];
    if ($("list-by")?.value) {
      const order = own.orderOf($("list-by").value);
      found.sort((a, b) => order(this.coin(a), this.coin(b)));
    }
    const more = found.length > LISTED ? `, the first ${LISTED} listed` : "";
    $("found-title").textContent = some ? `${found.length} found${more}` : `${found.length} images: type part of a name to list some`;
    $("select-found").hidden = !some || !found.length;
    $("found").replaceChildren(
      ...(some ? found.slice(0, LISTED) : []).map((spot) => {
        const link = make("a", { href: this.href(spot) }, ...this.picture(spot), make("span", {}, spot[0]));
        const known = own.words(this.coin(spot));
        return make("li", {}, link, ...[`${group} ${spot[1]}${spot[6] && ` · ${labelWords(spot[6])}`}`, known].map((words) => make("span", { className: "figures" }, words)));
      }),
    );
  },
  picture(spot) {
    return spot[5] ? [drawnPicture(this.coin(spot), "original")] : [];
  },
  showSelection() {
    const coins = [...hand.chosen.values()].slice(0, LISTED);
    $("selected").hidden = !coins.length;
    $("selected-list").replaceChildren(...coins.map((coin) => hand.guest(coin)));
    this.redraw();
  },
  select(some, added) {
    if (!added || hand.done) hand.begin();
    for (const spot of some) hand.chosen.set(spot[0], this.coin(spot));
    hand.show();
  },

  // --- the pointer ---
  place(event) {
    const box = $("map").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  },
  nearest([x, y]) {
    let best = null;
    let least = Math.max(15, this.side() / 2) ** 2;
    for (const spot of this.found) {
      const [left, top] = this.at(spot);
      const distance = (left - x) ** 2 + (top - y) ** 2;
      if (distance < least) [best, least] = [spot, distance];
    }
    return best;
  },
  press(event) {
    if (event.button) return;
    $("map").setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    if (this.pointers.size === 1) [this.begun, this.dragged, this.encircles] = [this.place(event), false, this.lasso || event.shiftKey];
    else this.way = []; // two fingers zoom
  },
  drag(event) {
    const from = this.pointers.get(event.pointerId);
    const to = this.place(event);
    if (!from) return this.point(to);
    this.dragged ||= Math.hypot(to[0] - this.begun[0], to[1] - this.begun[1]) > STILL;
    if (!this.dragged) return;
    $("tip").hidden = true;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.pointers.set(event.pointerId, to);
    if (others.length) this.pinch(from, to, others[0]);
    else if (this.encircles) this.way.push(...(this.way.length ? [to] : [this.begun, to]).map(([x, y]) => [(x - this.x) / this.zoom, (y - this.y) / this.zoom]));
    else [this.x, this.y] = [this.x + to[0] - from[0], this.y + to[1] - from[1]];
    if (this.way.length) this.redraw();
    else this.clamp();
  },
  pinch(from, to, other) {
    const apart = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
    this.x += (to[0] - from[0]) / 2;
    this.y += (to[1] - from[1]) / 2;
    this.zoomAt(apart(to) / apart(from), (to[0] + other[0]) / 2, (to[1] + other[1]) / 2);
  },
  release(event) {
    this.pointers.delete(event.pointerId);
    if (this.way.length < 3) return;
    const inside = [...this.found].filter((spot) => isInside(this.whole(spot), this.way));
    this.way = [];
    this.select(inside, event.ctrlKey || event.metaKey);
    this.redraw();
  },
  click(event) {
    if (this.dragged) return;
    const spot = this.nearest(this.place(event));
    if (!spot) return;
    if (event.ctrlKey || event.metaKey || event.shiftKey || this.lasso) hand.toggle(this.coin(spot), null);
    else location.href = this.href(spot);
  },
  point(place) {
    const spot = this.nearest(place);
    $("tip").hidden = !spot;
    if (!spot) return;
    const [x, y] = this.at(spot);
    $("tip").style.left = `${Math.max(0, Math.min(x + 12, this.width - 150))}px`;
    $("tip").style.top = `${Math.max(0, Math.min(y + 12, this.height - 170))}px`;
    const now = this.places.get(spot);
    const where = now === spot[1] ? `${group} ${now}` : `${group} ${spot[1]} → ${now ?? "none"}`;
    $("tip").replaceChildren(...this.picture(spot), [spot[0], where, own.words(this.coin(spot))].filter(Boolean).join(" · "));
  },
  drags(lasso) {
    this.lasso = lasso;
    $("drag-lasso").setAttribute("aria-pressed", String(lasso));
    $("drag-pan").setAttribute("aria-pressed", String(!lasso));
    $("map").classList.toggle("lasso", lasso);
  },
  key(event) {
    if (hand.keysTaken(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[key];
    if (key === "l") this.drags(!this.lasso);
    else if (key === "Escape" && hand.chosen.size) hand.clear();
    else if (step && event.target === $("map")) {
      [this.x, this.y] = [this.x + step[0], this.y + step[1]];
      this.clamp();
    } else if (!hand.key(key, hand.of(null))) return;
    event.preventDefault();
  },
};

// The ramp's colour at 0..1.
function shadeOf(share) {
  const at = Math.min(RAMP.length - 2, Math.floor(share * (RAMP.length - 1)));
  const [from, to] = [RAMP[at], RAMP[at + 1]].map((colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));
  const part = share * (RAMP.length - 1) - at;
  return `rgb(${from.map((value, i) => Math.round(value + (to[i] - value) * part)).join(" ")})`;
}

// The one of some spots that is nearest to their middle.
function middleOf(some) {
  const mean = [2, 3].map((at) => some.reduce((sum, spot) => sum + spot[at], 0) / some.length);
  const away = (spot) => (spot[2] - mean[0]) ** 2 + (spot[3] - mean[1]) ** 2;
  return some.reduce((best, spot) => (away(spot) < away(best) ? spot : best));
}

// Whether a point is inside a closed way: a ray from it crosses the way an odd number of times.
function isInside([x, y], way) {
  let inside = false;
  for (let i = 0, before = way.length - 1; i < way.length; before = i++) {
    const [[ax, ay], [bx, by]] = [way[i], way[before]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

$("q").value = new URLSearchParams(location.search).get("q") ?? "";
$("find").addEventListener("submit", (event) => event.preventDefault());
own.start([...map.coins.values()]);
if (spots.some((spot) => spot[6])) $("colour-by").append(make("option", { value: "label" }, data.hasTruth ? "truth" : "label"));
$("colour-by").append(...columns.map(({ name }, at) => make("option", { value: at }, name)));
$("list-by")?.append(...own.orders());
$("list-by")?.addEventListener("change", () => map.list());
$("colour-by").addEventListener("change", () => {
  map.label = null;
  map.refresh();
});
document.addEventListener("own", () => map.refresh());
for (const id of ["q", "only"]) $(id).addEventListener("input", () => map.refresh());
$("names").addEventListener("change", () => map.redraw());
$("drag-pan").addEventListener("click", () => map.drags(false));
$("drag-lasso").addEventListener("click", () => map.drags(true));
for (const [id, times] of [["zoom-in", 1.5], ["zoom-out", 1 / 1.5], ["zoom-all", 0]])
  $(id).addEventListener("click", () => map.zoomAt(times, map.width / 2, map.height / 2));
$("select-found").addEventListener("click", () => map.select(map.found, true));
$("map").addEventListener("pointerdown", (event) => map.press(event));
$("map").addEventListener("pointermove", (event) => map.drag(event));
for (const name of ["pointerup", "pointercancel"]) $("map").addEventListener(name, (event) => map.release(event));
$("map").addEventListener("pointerleave", () => ($("tip").hidden = true));
$("map").addEventListener("click", (event) => map.click(event));
$("map").addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    map.zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0015)), ...map.place(event));
  },
  { passive: false },
);
document.addEventListener("keydown", (event) => map.key(event));
document.addEventListener("edits", () => map.refresh());
document.addEventListener("chosen", () => map.showSelection());
window.addEventListener("resize", () => map.measure());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map.refresh());
$("hand-onwards").hidden = true; // there is no order here
map.measure();
map.refresh();
