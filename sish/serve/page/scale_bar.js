// A bar of a round length at the lower left of a viewer, with the magnification and um per pixel beside it.

import { el, fill } from "./dom.js";

const WIDEST_PX = 160;

// The longest 1, 2 or 5 times a power of ten that is at most so long.
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find((step) => step * power <= most) * power;
}

export function lengthText(um) {
  return um >= 1000 ? `${+(um / 1000).toPrecision(6)} mm` : `${+um.toPrecision(6)} µm`;
}

const short = (value) => String(value >= 100 ? Math.round(value) : +value.toPrecision(3));

export function scaleBar(viewer) {
  const line = el("div", { class: "line" });
  const text = el("div", { class: "scale-text" });
  const bar = el("div", { class: "scale-bar", role: "img" }, line, text);
  const show = () => {
    const umPerPx = viewer.umPerPx();
    if (!umPerPx) return fill(text, "scale not known");
    const length = roundLength(umPerPx * WIDEST_PX);
    line.style.width = `${length / umPerPx}px`;
    const words = `${lengthText(length)} · ${short(10 / umPerPx)}× · ${short(umPerPx)} µm/px`;
    fill(text, words);
    bar.setAttribute("aria-label", `Scale: ${words}`);
    bar.dataset.umPerPx = umPerPx; // the exact value, which linked views share
  };
  viewer.onMove(show);
  viewer.whenOpen(show);
  viewer.element.append(bar);
}
