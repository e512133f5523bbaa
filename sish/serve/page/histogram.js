// Distances of the query's patches to their nearest match: in one slide, and in all others.

import { el, svg } from "./dom.js";

const WIDTH = 360;
const HEIGHT = 120; // of the bars; the axis is below
const AXIS = 20;
const HEAD = 18; // for the name of the threshold

export function histogram({ histogram: { edges, slide, archive }, threshold, n_bits }) {
  const last = edges.at(-1);
  const x = (bits) => (bits / last) * WIDTH;
  const shares = { archive: shareOf(archive), slide: shareOf(slide) };
  const most = Math.max(...shares.archive, ...shares.slide, Number.EPSILON);
  const bars = (name) =>
    shares[name].map((share, n) => barOf(name, x(edges[n]), x(edges[n + 1]), share / most));
  const near = slide.filter((_, n) => edges[n] <= threshold).reduce((sum, n) => sum + n, 0);
  const total = slide.reduce((sum, n) => sum + n, 0);
  return el(
    "figure",
    { class: "histogram" },
    svg(
      "svg",
      {
        viewBox: `0 ${-HEAD} ${WIDTH} ${HEAD + HEIGHT + AXIS}`,
        role: "img",
        "aria-label": `Histogram of distances: ${near} of ${total} patches within about ${threshold} bits`,
      },
      bars("archive"),
      bars("slide"),
      mark(x(threshold), `threshold ${threshold}`, threshold > last / 2 ? "end" : "start"),
      axis(x, last, n_bits),
    ),
    el(
      "figcaption",
      {},
      el("span", { class: "key slide" }),
      "this slide ",
      el("span", { class: "key archive" }),
      "all other slides; share of the query's patches by distance in bits to the nearest match",
    ),
  );
}

function shareOf(counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return counts.map((count) => (total ? count / total : 0));
}

function barOf(name, left, right, share) {
  const height = share * HEIGHT;
  const inset = name === "slide" ? (right - left) / 4 : 0; // narrower, so that both are seen
  return svg("rect", {
    class: name,
    x: left + inset,
    width: right - left - 2 * inset,
    y: HEIGHT - height,
    height,
  });
}

function mark(x, words, anchor) {
  const gap = anchor === "end" ? -4 : 4;
  return [
    svg("line", { class: "threshold", x1: x, x2: x, y1: -HEAD, y2: HEIGHT }),
    svg("text", { x: x + gap, y: -6, "text-anchor": anchor }, words),
  ];
}

function axis(x, last, n_bits) {
  const unrelated = n_bits / 2; // two barcodes of unrelated patches differ in half of their bits
  const label = (bits, words, anchor) =>
    svg("text", { x: x(bits), y: HEIGHT + 16, "text-anchor": anchor }, words);
  return [
    svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
    label(0, "0 equal", "start"),
    label(Math.min(unrelated, last), `${unrelated} unrelated`, "end"),
  ];
}
