// Two viewers that move together: both show as many um per pixel of the screen, and both move by as many um.
// The one that a person touched last leads.

import { stepToLevel0, stepToScreen } from "./place.js";

const TOUCHES = ["pointerdown", "wheel", "keydown", "focusin"];

export class Link {
  constructor(first, second) {
    this.panes = [first, second];
    this.on = true;
    this.undo = this.panes.map((pane) => {
      const lead = () => this.lead(pane);
      for (const touch of TOUCHES) pane.host.addEventListener(touch, lead, { capture: true, passive: true });
      const unfollow = pane.viewer.onMove(() => this.follow(pane));
      return () => {
        for (const touch of TOUCHES) pane.host.removeEventListener(touch, lead, { capture: true });
        unfollow();
      };
    });
    this.lead(first);
  }

  // Whether um per pixel are known of both, so that they can be equal.
  get possible() {
    return this.panes.every(({ slide }) => slide.mpp);
  }

  lead(pane) {
    this.leader = pane;
    this.last = pane.viewer.view();
  }

  switch(on) {
    this.on = on;
    this.follow(this.leader);
  }

  // The other viewer takes the step that the leader has taken since the last time, and its um per pixel.
  follow(pane) {
    if (pane !== this.leader) return;
    const view = pane.viewer.view();
    const step = stepToScreen(view, view.center.map((at, axis) => at - this.last.center[axis]));
    this.last = view;
    if (this.on && this.possible) this.move(this.panes.find((one) => one !== pane), step);
  }

  move({ viewer, slide }, step) {
    const view = { ...viewer.view(), scale: slide.mpp / this.leader.viewer.umPerPx() };
    const moved = stepToLevel0(view, step);
    viewer.setView({ center: view.center.map((at, axis) => at + moved[axis]), scale: view.scale }, true);
  }

  close() {
    this.undo.forEach((undo) => undo());
  }
}
