// Buttons: those of each viewer (zoom, turn, mirror), and those that are pressed while something is shown.

import { el } from "./dom.js";
import { get, on, set } from "./store.js";

const POWERS = [0.5, 1, 2.5, 5, 10, 20, 40];

const button = (sign, name, onclick, more = {}) =>
  el("button", { type: "button", class: "tool", title: name, "aria-label": name, onclick, ...more }, sign);

// Zoom, turn and mirror one viewer.
export function viewTools(viewer) {
  const mirror = button("⇋", "Mirror", () => viewer.mirror(), { "aria-pressed": "false" });
  const turn = turnInput(viewer);
  const power = powerChoice(viewer);
  viewer.onMove(() => {
    const view = viewer.view(false);
    mirror.setAttribute("aria-pressed", view.mirrored);
    if (document.activeElement !== turn) turn.value = Math.round(view.turn * 10) / 10;
  });
  return el(
    "div",
    { class: "view-tools", role: "toolbar", "aria-label": `View of ${viewer.slide.slide_id}` },
    button("+", "Zoom in", () => viewer.zoomBy(2)),
    button("−", "Zoom out", () => viewer.zoomBy(0.5)),
    button("⌂", "Whole slide", () => viewer.home()),
    power,
    button("↺", "Turn left", () => viewer.turnBy(-90)),
    button("↻", "Turn right", () => viewer.turnBy(90)),
    el("label", { class: "turned" }, turn, "°"),
    mirror,
  );
}

function turnInput(viewer) {
  const turn = el("input", { type: "number", step: 5, value: 0, "aria-label": "Turned by degrees" });
  turn.addEventListener("change", () => viewer.turnTo(Number(turn.value) || 0));
  return turn;
}

// Choose a magnification: 10x is 1 um per pixel of the screen.
function powerChoice(viewer) {
  const known = Boolean(viewer.slide.mpp);
  const choice = el(
    "select",
    { "aria-label": "Magnification", title: "Magnification", disabled: !known },
    el("option", { value: "" }, known ? "Zoom to" : "no scale"),
    POWERS.map((power) => el("option", { value: power }, `${power}×`)),
  );
  choice.addEventListener("change", () => {
    if (choice.value) viewer.setView({ scale: (viewer.slide.mpp * Number(choice.value)) / 10 });
    choice.value = "";
  });
  return choice;
}

// A button that is pressed while something in the store is so; pressing it changes the store.
export function toggle(name, what, key, { onValue = true, offValue = false, ...more } = {}) {
  const pressed = () => get()[key] === onValue;
  const press = () => set({ [key]: pressed() ? offValue : onValue });
  const made = el("button", { type: "button", class: "tool", title: what, onclick: press, ...more }, name);
  const show = () => made.setAttribute("aria-pressed", pressed());
  on([key], show);
  show();
  return made;
}
