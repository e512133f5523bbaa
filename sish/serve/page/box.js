// Draw a box on a slide, with the mouse, a pen or the keyboard. What is drawn is turned with the view.

import { el, fill } from "./dom.js";
import { boxShape } from "./layers.js";
import { notice } from "./notices.js";
import { boxBetween, boxCenter, boxOf, stepToLevel0, tidy } from "./place.js";
import { get, set } from "./store.js";

const LEAST_PX = 6; // a shorter drag is a click
const STEP_PX = 12; // of an arrow key
const TURN_DEGREES = 5; // of a bracket key
const HINT =
  "Drag over the tissue to draw a box. By keyboard: Enter puts one in the middle, arrow keys move it, " +
  "Shift with arrow keys resizes it, [ and ] turn it, Enter again is done. Escape stops.";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function sizeText({ region, angle }, mpp) {
  const sides = region.slice(2).map((side) => Math.round(mpp ? side * mpp : side));
  const turned = angle ? `, turned by ${Math.round(angle)}°` : "";
  return `Box of ${sides.join(" × ")} ${mpp ? "µm" : "px"}${turned}`;
}

export class BoxTool {
  constructor(viewer, layers) {
    this.viewer = viewer;
    this.layers = layers;
    this.draft = null;
    this.surface = el("div", {
      class: "draw-surface",
      role: "application",
      tabindex: 0,
      hidden: true,
      "aria-label": HINT,
      onpointerdown: (event) => this.press(event),
      onkeydown: (event) => this.key(event),
    });
    this.size = el("strong", { role: "status" });
    this.hint = el("p", { class: "draw-hint", hidden: true }, `${HINT} `, this.size);
    viewer.osd.canvas.append(this.surface, this.hint);
  }

  // Draw boxes for a purpose ("query", "positive", "negative") until one is finished.
  start(purpose) {
    this.purpose = purpose;
    if (purpose === "query") this.sketch(get().box); // the keyboard changes the one that is there
    this.surface.hidden = this.hint.hidden = false;
    this.surface.focus({ preventScroll: true });
  }

  stop() {
    if (document.activeElement === this.surface) this.viewer.osd.canvas.focus();
    this.surface.hidden = this.hint.hidden = true;
    this.sketch(null);
  }

  sketch(box) {
    this.draft = box;
    this.layers.draw("draft", box ? [boxShape(box, this.purpose)] : []);
    fill(this.size, box ? sizeText(box, this.viewer.slide.mpp) : "");
  }

  finish() {
    const box = this.draft && tidy(this.draft, this.viewer.slide.bounds);
    this.sketch(null);
    if (!box) return notice("The box lies outside the slide: draw one over the tissue.");
    const drawn = { purpose: this.purpose, slideId: this.viewer.slide.slide_id, ...box };
    set({ drawing: null, drawn, ...(this.purpose === "query" ? { box } : {}) });
  }

  pixel(event) {
    const frame = this.surface.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  press(event) {
    if (event.button !== 0) return;
    event.stopPropagation(); // the slide below must not move
    const from = this.pixel(event);
    const move = (moved) => this.sketch(boxBetween(this.viewer.view(), from, this.pixel(moved)));
    const release = (released) => {
      this.surface.removeEventListener("pointermove", move);
      this.surface.removeEventListener("pointerup", release);
      this.surface.removeEventListener("pointercancel", release);
      const [px, py] = this.pixel(released);
      const dragged = Math.min(Math.abs(px - from[0]), Math.abs(py - from[1])) >= LEAST_PX;
      if (dragged && released.type === "pointerup") this.finish();
      else this.sketch(null);
    };
    this.surface.setPointerCapture(event.pointerId);
    this.surface.addEventListener("pointermove", move);
    this.surface.addEventListener("pointerup", release);
    this.surface.addEventListener("pointercancel", release);
  }

  key(event) {
    const arrow = ARROWS[event.key];
    if (event.key === "Tab" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    if (event.key === "Escape") set({ drawing: null });
    else if (event.key === "Enter" && this.draft) this.finish();
    else if (event.key === "Enter" || event.key === " ") this.sketch(this.draft ?? this.middleBox());
    else if (!this.draft) return;
    else if (arrow) this.sketch(event.shiftKey ? this.resized(arrow) : this.moved(arrow));
    else if (event.key === "[" || event.key === "]") this.sketch(this.turned(event.key === "]" ? 1 : -1));
    else return;
    event.preventDefault();
  }

  middleBox() {
    const view = this.viewer.view();
    const [middle, half] = [view.size.map((side) => side / 2), Math.min(...view.size) / 5];
    return boxBetween(view, middle.map((at) => at - half), middle.map((at) => at + half));
  }

  moved([across, down]) {
    const [dx, dy] = stepToLevel0(this.viewer.view(), [across * STEP_PX, down * STEP_PX]);
    const [x, y, width, height] = this.draft.region;
    return { ...this.draft, region: [x + dx, y + dy, width, height] };
  }

  // Wider, narrower, lower or higher by a step at its own sides, its centre kept.
  resized([across, down]) {
    const step = (2 * STEP_PX) / this.viewer.view().scale;
    const [, , width, height] = this.draft.region;
    const sides = [Math.max(step, width + across * step), Math.max(step, height + down * step)];
    return boxOf(boxCenter(this.draft), sides, this.draft.angle);
  }

  turned(sign) {
    const [, , width, height] = this.draft.region;
    const degrees = sign * TURN_DEGREES * (this.viewer.view().mirrored ? -1 : 1);
    return boxOf(boxCenter(this.draft), [width, height], this.draft.angle + degrees);
  }
}
