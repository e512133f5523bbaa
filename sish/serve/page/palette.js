// The colour and shape of each label. Six colours that colour-blind people tell apart (Okabe and Ito 2008)
// and five shapes: label i has colour i mod 6 and shape i mod 5, so that thirty labels differ.

import { svg } from "./dom.js";

const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"];
const OTHER = "#8a8f98"; // of labels beyond the thirtieth, and of slides without a label
const SHAPES = [
  Array.from({ length: 12 }, (_, i) => [Math.cos((i * Math.PI) / 6), Math.sin((i * Math.PI) / 6)]), // a disc
  square(0.88),
  [[0, -1.15], [1.05, 0.75], [-1.05, 0.75]], // a triangle
  [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]], // a diamond
  cross(0.36, 1.1),
];

// The corners of a shape lie around [0, 0] at a distance of about 1.
export class Palette {
  #marks = new Map();

  // labels: the commonest first, as GET /api/info lists them.
  constructor(labels) {
    const count = COLOURS.length * SHAPES.length;
    labels.slice(0, count).forEach((label, i) => {
      this.#marks.set(label, { colour: COLOURS[i % COLOURS.length], corners: SHAPES[i % SHAPES.length] });
    });
  }

  static of(info) {
    const column = info.columns.find(({ name }) => name === "label");
    return new Palette((column?.values ?? []).map(({ value }) => value));
  }

  mark(label) {
    return this.#marks.get(label) ?? { colour: OTHER, corners: SHAPES[0] };
  }

  // The mark of a label as a small picture, beside its name.
  icon(label) {
    const { colour, corners } = this.mark(label);
    const points = corners.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ");
    const shape = svg("polygon", { points, fill: colour });
    return svg("svg", { class: "mark", viewBox: "-1.3 -1.3 2.6 2.6", "aria-hidden": "true" }, shape);
  }
}

function square(half) {
  return [[-half, -half], [half, -half], [half, half], [-half, half]];
}

function cross(thin, long) {
  return [
    [-thin, -long], [thin, -long], [thin, -thin], [long, -thin], [long, thin], [thin, thin],
    [thin, long], [-thin, long], [-thin, thin], [-long, thin], [-long, -thin], [-thin, -thin],
  ];
}
