// How much every tissue tile of a slide looks like what was asked for, as colours over the slide.

import { heatmap } from "./api.js";
import { el, fill, svg } from "./dom.js";
import { complain } from "./notices.js";
import { get, on } from "./store.js";

// viridis, from unrelated to equal, as in Heatmap.draw: also for the colour-blind, and in grey
const RAMP = [
  [68, 1, 84], [71, 44, 123], [58, 82, 139], [44, 114, 142], [32, 144, 140], [40, 174, 127], [94, 201, 97],
  [173, 220, 48], [253, 231, 36],
];

const shown = new WeakMap(); // of each pane: {id of the answer, controller of the request, legend}

export function startHeat() {
  on(["heat", "answer", "first", "second"], ({ first, second }) => [first, second].forEach(update));
}

function update(pane) {
  if (!pane) return;
  const { heat, answer } = get();
  const id = heat && answer ? answer.id : null;
  const now = shown.get(pane);
  if ((now?.id ?? null) === id) return;
  now?.controller.abort(); // the server stops reading
  now?.legend.remove();
  shown.delete(pane);
  pane.layers.draw("heat");
  if (id) bring(pane, id);
}

async function bring(pane, id) {
  const legend = el("div", { class: "heat-legend", role: "status" }, "Reading every tissue tile …");
  const controller = new AbortController();
  shown.set(pane, { id, controller, legend });
  pane.host.append(legend);
  try {
    const found = await heatmap(pane.slide.slide_id, id, { signal: controller.signal });
    pane.layers.draw("heat", picture(found));
    fill(legend, legendOf(found));
  } catch (error) {
    fill(legend, "No colours: ", error.message);
    if (error.status === undefined) complain(error);
  }
}

// 0 unrelated to 1 equal; half of the bits differ between unrelated patches.
const nearness = (hamming, bits) => 1 - Math.min(1, hamming / (bits / 2));

export function colour(share) {
  const place = share * (RAMP.length - 1);
  const below = Math.min(RAMP.length - 2, Math.floor(place));
  return RAMP[below].map((low, i) => Math.round(low + (RAMP[below + 1][i] - low) * (place - below)));
}

// One pixel for each tile, which SVG enlarges to its place.
function picture({ xy, hamming, n_bits, patch_l0_px: side }) {
  if (!xy.length) return [];
  const left = xy.reduce((least, [x]) => Math.min(least, x), Infinity);
  const top = xy.reduce((least, [, y]) => Math.min(least, y), Infinity);
  const cells = xy.map(([x, y]) => [Math.round((x - left) / side), Math.round((y - top) / side)]);
  const width = cells.reduce((most, [column]) => Math.max(most, column), 0) + 1;
  const height = cells.reduce((most, [, row]) => Math.max(most, row), 0) + 1;
  const canvas = el("canvas", { width, height });
  const pixels = new ImageData(width, height);
  cells.forEach(([column, row], i) => {
    pixels.data.set([...colour(nearness(hamming[i], n_bits)), 255], 4 * (row * width + column));
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const place = { x: left, y: top, width: width * side, height: height * side, preserveAspectRatio: "none" };
  return svg("image", { ...place, class: "heat-picture", href: canvas.toDataURL() });
}

function legendOf({ threshold, n_bits, hamming }) {
  const mark = el("div", { class: "heat-threshold" });
  mark.style.left = `${Math.min(100, (100 * threshold) / (n_bits / 2))}%`;
  const within = hamming.filter((bits) => bits <= threshold).length;
  const told = `${within} of ${hamming.length} tiles are within the threshold of ${threshold} bits`;
  return [
    el("span", {}, "0 bits: equal"),
    el("div", { class: "heat-ramp" }, mark),
    el("span", {}, `${n_bits / 2}: unrelated`),
    el("p", {}, told),
  ];
}
