"use strict";
// The map of all images, and the search.

const LISTED = 200;
const map = {
  colour: (number) => `hsl(${(number * 137.508) % 360} 70% ${number % 2 ? 45 : 58}%)`,
  href: (spot) => `${spot[1]}/index.html#image=${encodeURIComponent(spot[4])}`,

  matches(spot) {
    const text = $("q").value.trim().toLowerCase();
    const said = () => `${spot[0]}\n${spot[6]}\n${edits.nameOf(spot[1])}\n${edits.coins.get(spot[0])?.note ?? ""}`.toLowerCase();
    return (!text || said().includes(text)) && ($("only").value === "" || spot[1] === +$("only").value);
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
    const found = spots.filter((spot) => this.matches(spot));
    const some = found.length < spots.length;
    const size = spots.length > 5000 ? 2 : 4;
    pen.globalAlpha = some ? 0.12 : 0.85;
    for (const spot of spots) this.dot(pen, spot, size);
    pen.globalAlpha = 1;
    if (some) for (const spot of found) this.dot(pen, spot, size + 1);
    const shown = found.slice(0, LISTED);
    const more = found.length > LISTED ? `, the first ${LISTED} listed` : "";
    $("found-title").textContent = some ? `${found.length} found${more}` : `${found.length} images: type part of a name to list some`;
    $("found").replaceChildren(
      ...(some ? shown : []).map((spot) => {
        const link = make("a", { href: this.href(spot) }, ...this.picture(spot), make("span", {}, spot[0]));
        return make("li", {}, link, make("span", { className: "figures" }, `${group} ${spot[1]}${spot[6] && ` · ${labelWords(spot[6])}`}`));
      }),
    );
  },
  picture: (spot) =>
    spot[5] ? [make("img", { loading: "lazy", alt: "", src: `${spot[1]}/${encodeURIComponent(spot[4])}-original${suffix}` })] : [],
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
    for (const spot of spots) {
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
    $("tip").replaceChildren(...this.picture(spot), `${spot[0]} · ${group} ${spot[1]}`);
  },
};

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
