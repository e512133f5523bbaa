// The slide in the first viewer: it is loaded, shown with its tools and facts, or told to be gone.

import { slide as askSlide } from "./api.js";
import { startCompare } from "./compare.js";
import { $, el, fill } from "./dom.js";
import { slideFacts } from "./facts.js";
import { startHeat } from "./heat.js";
import { boxShape } from "./layers.js";
import { Pane, failedCard, goneCard } from "./pane.js";
import { startSlideTools } from "./slide_tools.js";
import { get, on, set } from "./store.js";

export function startSlideView() {
  const first = el("figure", { class: "pane", id: "first" });
  const second = el("figure", { class: "pane", id: "second" });
  const facts = el("details", { class: "facts", id: "facts" });
  startSlideTools($("#slide"));
  $("#slide").append(el("div", { class: "stage" }, first, second), facts);
  on(["view", "slideId", "slide"], () => loadIfSeen(first, facts));
  on(["drawing", "first", "second"], startDrawing);
  on(["box", "first"], showBox);
  on(["draft", "first", "second"], showExamples);
  on(["mosaic", "tissue", "first", "second"], showLayers);
  startCompare(second);
  startHeat();
}

let asked = null; // id of the slide that was asked for last
let shown = null; // the slide that came

// A viewer needs its place on the page, so a slide is not loaded before it can be seen.
function loadIfSeen(host, facts) {
  const { view, slideId, slide } = get();
  if (view !== "slide" || slideId === null) return;
  if (slideId !== asked) load(host, facts);
  else if (slide === null && shown) set({ slide: shown }); // opened once more
}

async function load(host, facts) {
  const { slideId, first } = get();
  asked = slideId;
  shown = null;
  first?.close();
  fill(host, el("p", { class: "opening", role: "status" }, `Opening ${slideId} …`));
  host.setAttribute("aria-label", `Slide: ${slideId}`);
  fill(facts);
  set({ first: null, slide: null });
  try {
    const slide = await askSlide(slideId);
    if (get().slideId === slideId) show(host, facts, slide);
  } catch (error) {
    if (get().slideId === slideId) fill(host, failedCard(slideId, error, () => load(host, facts)));
  }
}

function show(host, facts, slide) {
  shown = slide;
  fill(facts, slideFacts(slide));
  fill(host);
  facts.open = !slide.available;
  if (slide.available) {
    set({ slide, first: new Pane(host, slide) });
    if (document.activeElement === document.body) get().first.viewer.osd.canvas.focus();
  } else {
    fill(host, goneCard(slide));
    set({ slide });
  }
}

// What is searched for is drawn on the first slide; examples of a concept on either.
function startDrawing({ first, second, drawing }) {
  for (const pane of [second, first]) {
    if (drawing && pane && (pane === first || drawing !== "query")) pane.boxTool.start(drawing);
    else pane?.boxTool.stop();
  }
}

function showBox({ first, box }) {
  first?.layers.drawBox(box);
  first?.handles.show(box);
}

function showExamples({ first, second, draft }) {
  for (const pane of [first, second]) {
    const kinds = ["positive", "negative"].map((kind) => shapesOn(pane, draft?.[kind] ?? [], kind));
    pane?.layers.draw("examples", kinds);
  }
}

const shapesOn = (pane, boxes, kind) =>
  boxes
    .filter((box) => box.slide_id === pane?.slide.slide_id && box.region)
    .map((box) => boxShape({ region: box.region, angle: box.angle ?? 0 }, kind));

function showLayers(state) {
  for (const pane of [state.first, state.second]) {
    for (const name of ["mosaic", "tissue"]) pane?.showLayer(name, state[name]);
  }
}
