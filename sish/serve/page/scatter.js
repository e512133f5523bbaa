// Points on a canvas that can be moved and zoomed. It knows places and marks, not what they stand for.

import { Camera } from "./camera.js";
import { pixelOf, startCameraInput } from "./camera_input.js";

const REACH_PX = 12; // how near a point the pointer must be
const QUICK = 15_000; // points that are drawn while the map moves
const STILL_MS = 160; // after the last move all are drawn
const SHAPED_PX = 2.5; // smaller points are squares: their shapes could not be told apart
const MOST_PX = 8;
const LAYERS = 8; // each has an eighth of every group: no group hides another
const EDGE_PX = 9; // points that far outside are not drawn

export class Scatter {
  #points = { x: new Float32Array(0), y: new Float32Array(0), groups: [] };
  #rings = [];
  #frame = 0;
  #moving = null;

  // pointed(i or -1, [x, y]) on hover, chosen(i) on a click, moved() when the view has come to rest.
  constructor(canvas, { pointed, chosen, moved }) {
    this.canvas = canvas;
    this.moved = moved;
    this.camera = new Camera(canvas, () => this.#move());
    startCameraInput(canvas, this.camera, (pixel) => {
      const found = this.#at(pixel);
      if (found >= 0) chosen(found);
    });
    canvas.addEventListener("pointermove", (event) => pointed(this.#at(pixelOf(event)), pixelOf(event)));
    canvas.addEventListener("pointerleave", () => pointed(-1));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // groups: [{mark: {colour, corners}, members: [i, ...]}], drawn in this order; x, y from 0 to 1.
  show(x, y, groups) {
    this.#points = { x, y, groups };
    this.draw();
  }

  // rings: [{i, colour}] around single points, on top of all.
  ring(rings) {
    this.#rings = rings;
    this.draw();
  }

  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.canvas.clientWidth) this.#paint(); // else it is hidden
    });
  }

  // The shown points nearest to the middle of the view, nearest first.
  nearest(count) {
    const { x, y, groups } = this.#points;
    const middle = this.camera.at;
    const far = (i) => (x[i] - middle.x) ** 2 + (y[i] - middle.y) ** 2;
    const found = groups.flatMap(({ members }) => smallest(members, far, count));
    return found.sort((a, b) => far(a) - far(b)).slice(0, count);
  }

  #move() {
    clearTimeout(this.#moving);
    this.#moving = setTimeout(() => {
      this.#moving = null;
      this.draw();
      this.moved();
    }, STILL_MS);
    this.draw();
  }

  #paint() {
    const pen = this.#cleanPen();
    const view = this.#view();
    pen.globalAlpha = view.radius < SHAPED_PX ? 0.75 : 0.9;
    for (let layer = 0; layer < LAYERS; layer++) {
      for (const { mark, members } of this.#points.groups) {
        pen.fillStyle = mark.colour;
        pen.beginPath();
        this.#trace(pen, mark.corners, layerOf(members, layer), view);
        pen.fill();
      }
    }
    this.#paintRings(pen, view);
  }

  #paintRings(pen, view) {
    pen.globalAlpha = 1;
    pen.lineWidth = 3;
    for (const { i, colour } of this.#rings) {
      const { x, y } = this.#points;
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.arc(view.left + x[i] * view.scale, view.top + y[i] * view.scale, view.ring, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  #cleanPen() {
    const { canvas } = this;
    const sharp = (px) => Math.round(px * devicePixelRatio);
    const [width, height] = [sharp(canvas.clientWidth), sharp(canvas.clientHeight)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  }

  // Where the map lies on the canvas, how large points are, and which of them are drawn: every step-th.
  #view() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const count = this.#points.x.length;
    const apart = (Math.min(width, height) / Math.sqrt(count + 1)) * Math.sqrt(this.camera.at.zoom);
    const radius = Math.min(MOST_PX, Math.max(1.2, apart * 0.24));
    const [left, top] = this.camera.origin;
    const step = this.#moving ? Math.max(1, Math.ceil(count / QUICK)) : 1;
    return { left, top, width, height, radius, step, scale: this.camera.scale, ring: radius + 5 };
  }

  #trace(pen, corners, members, { scale, left, top, width, height, radius, step }) {
    const { x, y } = this.#points;
    for (let k = 0; k < members.length; k += step) {
      const px = left + x[members[k]] * scale;
      const py = top + y[members[k]] * scale;
      if (px < -EDGE_PX || py < -EDGE_PX || px > width + EDGE_PX || py > height + EDGE_PX) continue;
      if (radius < SHAPED_PX) pen.rect(px - radius, py - radius, 2 * radius, 2 * radius);
      else {
        pen.moveTo(px + corners[0][0] * radius, py + corners[0][1] * radius);
        for (const [dx, dy] of corners) pen.lineTo(px + dx * radius, py + dy * radius);
      }
    }
  }

  // The point at a pixel, -1 if there is none.
  #at(pixel) {
    const [x, y] = this.camera.place(pixel);
    let far = (REACH_PX / this.camera.scale) ** 2;
    let found = -1;
    for (const { members } of this.#points.groups) {
      for (const i of members) {
        const here = (this.#points.x[i] - x) ** 2 + (this.#points.y[i] - y) ** 2;
        if (here < far) [far, found] = [here, i];
      }
    }
    return found;
  }
}

const layerOf = (members, layer) =>
  members.slice((members.length * layer) / LAYERS, (members.length * (layer + 1)) / LAYERS);

// The members with the smallest values, in no order.
function smallest(members, valueOf, count) {
  const kept = [];
  for (const i of members) {
    const value = valueOf(i);
    if (kept.length === count && value >= kept.at(-1).value) continue;
    kept.push({ i, value });
    kept.sort((a, b) => a.value - b.value);
    kept.length = Math.min(kept.length, count);
  }
  return kept.map(({ i }) => i);
}
