// Which part of a map a canvas shows. Places of the map go from 0 to 1; pixels are those of the style sheet.

const MARGIN = 0.92; // share of the canvas that the whole map takes at first
const LEAST_ZOOM = 0.5;
const MOST_ZOOM = 400;
const OUTSIDE = 0.2; // how far the middle may leave the map

export class Camera {
  #canvas;
  #at = { x: 0.5, y: 0.5, zoom: 1 };

  // moved() is called after each change.
  constructor(canvas, moved) {
    this.#canvas = canvas;
    this.moved = moved;
  }

  get at() {
    return this.#at;
  }

  get scale() {
    return Math.min(this.#canvas.clientWidth, this.#canvas.clientHeight) * MARGIN * this.#at.zoom;
  }

  get middle() {
    return [this.#canvas.clientWidth / 2, this.#canvas.clientHeight / 2];
  }

  // The pixel of the map's place (0, 0).
  get origin() {
    const [mx, my] = this.middle;
    return [mx - this.#at.x * this.scale, my - this.#at.y * this.scale];
  }

  place([px, py]) {
    const [left, top] = this.origin;
    return [(px - left) / this.scale, (py - top) / this.scale];
  }

  move({ x, y, zoom }) {
    const inside = (value) => Math.min(1 + OUTSIDE, Math.max(-OUTSIDE, value));
    this.#at = { x: inside(x), y: inside(y), zoom };
    this.moved();
  }

  moveBy(dx, dy, from = this.#at) {
    this.move({ ...from, x: from.x - dx / this.scale, y: from.y - dy / this.scale });
  }

  // The place under a pixel stays there.
  zoomBy(factor, pixel = this.middle) {
    const [x, y] = this.place(pixel);
    const zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, this.#at.zoom * factor));
    const kept = this.#at.zoom / zoom;
    this.move({ x: x + (this.#at.x - x) * kept, y: y + (this.#at.y - y) * kept, zoom });
  }

  reset() {
    this.move({ x: 0.5, y: 0.5, zoom: 1 });
  }
}
