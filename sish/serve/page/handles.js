// Handles of the drawn box, for the mouse or a finger: corners resize it, its edge moves it, the knob turns
// it. By keyboard the same is done with the box tool: see box.js.

import { svg } from "./dom.js";
import { boxCenter, boxOf, corners, tidy, toLevel0, turned } from "./place.js";
import { set } from "./store.js";

const KNOB_PX = 26; // from the box's upper side
const DOT_PX = 6;

export class Handles {
  constructor(viewer, layers) {
    this.viewer = viewer;
    this.layers = layers;
    this.box = null;
    viewer.onMove(() => this.fit());
  }

  show(box) {
    this.box = box;
    this.layers.draw("handles", box ? this.shapes(box) : []);
    this.fit();
  }

  shapes(box) {
    const edge = svg("polygon", { class: "handle handle-move", points: corners(box).join(" ") });
    edge.addEventListener("pointerdown", (event) => this.drag(event, moveBy(this.at(event))));
    this.dots = corners(box).map((_, i) => {
      const dot = svg("circle", { class: "handle handle-corner" });
      dot.addEventListener("pointerdown", (event) => this.drag(event, resizeFrom((i + 2) % 4)));
      return dot;
    });
    this.knob = svg("circle", { class: "handle handle-turn" });
    this.knob.addEventListener("pointerdown", (event) => this.drag(event, turnTo));
    return [edge, ...this.dots, this.knob];
  }

  // The handles have the same size on the screen at any zoom.
  fit() {
    if (!this.box) return;
    const { scale } = this.viewer.view();
    const places = [...corners(this.box), knobOf(this.box, KNOB_PX / scale)];
    [...this.dots, this.knob].forEach((dot, i) => {
      const [cx, cy] = places[i];
      const circle = { cx, cy, r: DOT_PX / scale };
      for (const [name, value] of Object.entries(circle)) dot.setAttribute(name, value);
    });
  }

  // The level-0 place of a pointer.
  at(event) {
    const frame = this.viewer.element.getBoundingClientRect();
    return toLevel0(this.viewer.view(), [event.clientX - frame.left, event.clientY - frame.top]);
  }

  // Change the box with a pointer until it is let go; change(box, place) returns another box.
  drag(event, change) {
    if (event.button !== 0) return;
    event.stopPropagation(); // the slide below must not move
    const before = this.box;
    const [target, draft] = [event.currentTarget, () => change(before, this.at(latest))];
    let latest = event;
    const move = (moved) => {
      latest = moved;
      this.layers.drawBox(draft());
    };
    const release = ({ type }) => {
      for (const name of ["pointermove", "pointerup", "pointercancel"]) {
        target.removeEventListener(name, name === "pointermove" ? move : release);
      }
      if (type === "pointerup" && latest !== event) this.finish(draft());
      else this.layers.drawBox(before);
    };
    target.setPointerCapture(event.pointerId);
    target.addEventListener("pointermove", move);
    target.addEventListener("pointerup", release);
    target.addEventListener("pointercancel", release);
  }

  finish(draft) {
    const [, , width, height] = draft.region;
    const whole = boxOf(boxCenter(draft), [width, height], draft.angle);
    const box = tidy(whole, this.viewer.slide.bounds);
    if (!box) return this.layers.drawBox(this.box); // it was moved off the slide
    set({ box, drawn: { purpose: "query", slideId: this.viewer.slide.slide_id, ...box } });
  }
}

const knobOf = (box, distance) => {
  const [cx, cy] = boxCenter(box);
  const [dx, dy] = turned([0, -box.region[3] / 2 - distance], box.angle);
  return [cx + dx, cy + dy];
};

const moveBy = ([fromX, fromY]) => ({ region: [x, y, width, height], angle }, [atX, atY]) => ({
  region: [x + atX - fromX, y + atY - fromY, width, height],
  angle,
});

// The corner across stays where it is.
const resizeFrom = (across) => (box, [atX, atY]) => {
  const [fixedX, fixedY] = corners(box)[across];
  const sides = turned([atX - fixedX, atY - fixedY], -box.angle);
  const [width, height] = sides.map((side) => Math.max(1, Math.abs(side)));
  const [cx, cy] = [(atX + fixedX) / 2, (atY + fixedY) / 2];
  return { region: [cx - width / 2, cy - height / 2, width, height], angle: box.angle };
};

const turnTo = (box, [atX, atY]) => {
  const [cx, cy] = boxCenter(box);
  return { region: box.region, angle: (Math.atan2(atY - cy, atX - cx) * 180) / Math.PI + 90 };
};
