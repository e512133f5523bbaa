// The slide in the first viewer: it is loaded, shown with its tools and facts, or told to be gone.

import { slide as askSlide } from "./api.js";
import { $, el, fill } from "./dom.js";
import { slideFacts } from "./facts.js";
import { boxShape } from "./layers.js";
import { complain } from "./notices.js";
import { Pane, goneCard } from "./pane.js";
import { get, on, set } from "./store.js";
import { toggle } from "./toolbar.js";

const LAYERS = { mosaic: "Mosaic", tissue: "Tissue" };

export function startSlideView() {
  const first = el("figure", { class: "pane", id: "first" });
  const stage = el("div", { class: "stage" }, first);
  const facts = el("details", { class: "facts", id: "facts" });
  $("#slide").append(slideTools(), stage, facts);
  on(["slideId"], () => load(first, facts));
  on(["drawing", "first"], startDrawing);
  on(["box", "first"], showBox);
  on(["mosaic", "tissue", "first", "second"], showLayers);
}

function slideTools() {
  const draw = toggle("▭ Draw a box", "Draw a box to search for (b)", "drawing", {
    onValue: "query",
    offValue: null,
    id: "draw-box",
    class: "tool primary",
    "aria-keyshortcuts": "b",
  });
  const layers = Object.entries(LAYERS).map(([key, name]) => toggle(name, `Show ${key}`, key));
  const is = { class: "slide-tools", role: "toolbar", "aria-label": "Slide", id: "slide-tools" };
  return el("div", is, draw, layers);
}

async function load(host, facts) {
  const { slideId, first } = get();
  first?.close();
  fill(host);
  fill(facts);
  set({ first: null, slide: null });
  if (slideId === null) return;
  try {
    const slide = await askSlide(slideId);
    if (get().slideId === slideId) show(host, facts, slide);
  } catch (error) {
    complain(error);
  }
}

function show(host, facts, slide) {
  fill(facts, slideFacts(slide));
  if (slide.available) set({ slide, first: new Pane(host, slide) });
  else {
    fill(host, goneCard(slide));
    set({ slide });
  }
}

function startDrawing({ first, drawing }) {
  if (drawing && first) first.boxTool.start(drawing);
  else first?.boxTool.stop();
}

function showBox({ first, box }) {
  first?.layers.draw("box", box ? [boxShape(box)] : []);
}

function showLayers(state) {
  for (const pane of [state.first, state.second]) {
    for (const name of Object.keys(LAYERS)) pane?.showLayer(name, state[name]);
  }
}
