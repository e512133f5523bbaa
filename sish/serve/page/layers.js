// What lies over a slide: boxes, frames, mosaic, outline, heat. One SVG in level-0 pixels whose matrix
// follows zoom, turn and mirror, so each mark is made once; viewer.css lets lines keep their width.

import { svg } from "./dom.js";
import { corners, matrix } from "./place.js";

// the lowest first
const NAMES = ["heat", "tissue", "mosaic", "examples", "frames", "box", "draft", "pair", "handles"];

export class Layers {
  constructor(viewer) {
    this.groups = Object.fromEntries(NAMES.map((name) => [name, svg("g", { class: `layer-${name}` })]));
    this.moving = svg("g", {}, Object.values(this.groups));
    this.root = svg("svg", { class: "layers", "aria-hidden": "true" }, this.moving);
    viewer.osd.canvas.append(this.root);
    const follow = () => this.moving.setAttribute("transform", `matrix(${matrix(viewer.view())})`);
    viewer.onMove(follow);
    viewer.whenOpen(follow);
  }

  // Replace what a layer shows by other shapes.
  draw(name, ...shapes) {
    this.groups[name].replaceChildren(...shapes.flat(2));
  }

  // The box that is searched for, which follows its handles while they are dragged.
  drawBox(box) {
    this.draw("box", box ? [boxShape(box)] : []);
  }

  show(name, shown) {
    this.groups[name].toggleAttribute("hidden", !shown);
  }
}

const points = (box) => corners(box).map((corner) => corner.join(",")).join(" ");

export const boxShape = (box, kind = "query") =>
  svg("polygon", { class: `outline outline-${kind}`, points: points(box) });

export const square = ([x, y], side, kind) =>
  svg("rect", { x, y, width: side, height: side, class: `outline outline-${kind}` });

// All squares of a mosaic as one path.
export function squares(places, side) {
  const path = places.map(([x, y]) => `M${x} ${y}h${side}v${side}h${-side}z`).join("");
  return svg("path", { d: path, class: "outline outline-mosaic" });
}

// Tissue as polygons of rings; holes are rings that go around inside others.
export function tissueShape(polygons) {
  const ring = (places) => `M${places.map((place) => place.join(" ")).join("L")}z`;
  const path = polygons.flat().map(ring).join("");
  return svg("path", { d: path, class: "outline outline-tissue", "fill-rule": "evenodd" });
}
