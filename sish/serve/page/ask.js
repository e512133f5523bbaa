// The panel: what is searched for, the button that asks, how far the search is. The other parts of the panel
// (options, image, answer, refinement, history) build themselves into the places that are made here.

import { startAnswer } from "./answer.js";
import { ask, cancelByHand } from "./asking.js";
import { conceptPart } from "./concept.js";
import { $, el, fill } from "./dom.js";
import { startHistory } from "./history.js";
import { imagePart, startImageQuery } from "./image_query.js";
import { optionsPart } from "./ask_options.js";
import { slidePicture } from "./picture.js";
import { change, count, EMPTY, isReady } from "./question.js";
import { startRefine } from "./refine.js";
import { get, on, set } from "./store.js";

const SUBJECTS = { slide: "Whole slide", box: "Box", image: "Image" };

export function startAsk() {
  set({ draft: EMPTY });
  const go = el("button", { id: "ask-go", class: "primary", onclick: () => ask() }, "Find similar slides");
  fill(
    $("#panel"),
    el(
      "section",
      { id: "ask", "aria-label": "Question" },
      el(
        "h2",
        {},
        "Find similar tissue",
        el("button", { id: "ask-close", "aria-label": "Close the search", onclick: close }, "×"),
      ),
      el(
        "div",
        { id: "ask-of", role: "radiogroup", "aria-label": "Search for" },
        Object.keys(SUBJECTS).map(choice),
      ),
      el("div", { id: "ask-what" }),
      optionsPart(),
      conceptPart(),
      go,
      el("div", { id: "ask-progress", hidden: true }),
      el("div", { id: "ask-status", role: "status", class: "only-read" }),
    ),
    el("section", { id: "history", "aria-label": "Questions asked" }),
    el("section", { id: "answer", "aria-label": "Hits", hidden: true }),
    el("section", { id: "refine", "aria-label": "Refine", hidden: true }),
  );
  on(["draft", "slideId", "slide", "box", "drawing"], showSubject);
  on(
    ["draft", "slideId", "box", "asking"],
    (state) => (go.disabled = !isReady(state) || Boolean(state.asking)),
  );
  on(["asking"], showProgress);
  on(["view", "answer", "draft"], showPanel);
  on(["slideId"], followSlide);
  on(["box", "slideId"], followBox);
  on(["drawn"], ({ drawn }) => drawn?.purpose === "query" && ask());
  on(["hit"], followLink);
  startImageQuery();
  for (const start of [startAnswer, startRefine, startHistory]) start();
  showSubject(get());
  showPanel(get());
}

function showPanel({ view, answer, draft }) {
  $("#panel").hidden = view !== "slide" && !answer && draft.of !== "image";
  $("#ask-close").hidden = view === "slide";
}

const close = () => set({ answer: null, hit: null, draft: { ...get().draft, of: "slide" } });

// A link names a hit, not the answer that it is of: ask, so that its matched places are known.
function followLink({ hit, answer, asking }) {
  if (hit && !hit.patches && !answer && !asking) ask();
}

// Who opens a slide wants to ask about it; a hit of an image is opened to be looked at.
function followSlide({ hit, draft }) {
  if (!hit && draft.of === "image") change({ of: "slide" });
}

// A box that was drawn, or came with a link, is what is asked for; without it, the whole slide is.
function followBox({ box, draft }) {
  if (box && draft.of === "slide") change({ of: "box" });
  if (!box && draft.of === "box") change({ of: "slide" });
}

function choice(of) {
  const input = el("input", { type: "radio", name: "ask-of", value: of, onchange: () => choose(of) });
  return el("label", {}, input, SUBJECTS[of]);
}

let shown = [];

function showSubject(state) {
  const { draft, slideId, slide, box, drawing } = state;
  const chosen = drawing === "query" ? "box" : draft.of;
  for (const input of document.querySelectorAll("#ask-of input")) {
    input.checked = input.value === chosen;
    input.disabled = isClosed(input.value, state);
  }
  const now = [draft.of, draft.image?.url, draft.image?.name, slideId, slide, box, drawing];
  if (now.every((value, place) => value === shown[place])) return; // pictures are not loaded again
  shown = now;
  fill($("#ask-what"), draft.of === "image" ? imagePart(state) : slidePart(state));
}

const isClosed = (of, { slideId, slide, info }) =>
  of === "image" ? !info.takes_images : !slideId || (of === "box" && slide?.available === false);

function choose(of) {
  if (of === "box" && !get().box) set({ drawing: "query" });
  else set({ drawing: null, draft: { ...get().draft, of } });
}

function slidePart(state) {
  const { slideId, box, draft, slide } = state;
  if (!slideId) return el("p", { class: "soft" }, "Open a slide, or search with an image.");
  const isBox = draft.of === "box" && box;
  const frames = isBox ? [{ ...box, kind: "query" }] : [];
  return el(
    "div",
    { class: "ask-slide" },
    slidePicture(slideId, frames),
    el("div", {}, el("b", {}, isBox ? "The box on " : "All of ", slideId), size(isBox ? box : null, slide)),
    hint(state, isBox),
  );
}

function hint({ drawing, slide }, isBox) {
  if (slide?.available === false) return null;
  if (drawing === "query") return el("p", { class: "hint" }, "Drag over the tissue that you want to find.");
  return isBox ? null : el("p", { class: "soft" }, "Choose Box to search for a part of it.");
}

function size(box, slide) {
  if (!slide) return null;
  if (!box) return el("div", { class: "soft" }, count(slide.n_patches, "patch", "patches"));
  const [, , width, height] = box.region.map((side) => (slide.mpp ? (side * slide.mpp) / 1000 : side));
  const words = slide.mpp ? `${width.toFixed(2)} × ${height.toFixed(2)} mm` : `${width} × ${height} px`;
  return el("div", { class: "soft" }, box.angle ? `${words}, turned by ${Math.round(box.angle)}°` : words);
}

function showProgress({ asking }) {
  const place = $("#ask-progress");
  place.hidden = !asking;
  if (asking) $("#ask-status").textContent = "Searching";
  if (!asking) return fill(place);
  if (!place.children.length) fill(place, ...progressParts());
  const [bar, words] = place.children;
  if (asking.total) Object.assign(bar, { max: asking.total, value: asking.done });
  words.textContent = progressInWords(asking);
}

const progressParts = () => [
  el("progress", { "aria-label": "Progress of the search" }),
  el("span", {}),
  el("button", { id: "ask-cancel", onclick: cancelByHand }, "Cancel"),
];

function progressInWords({ state, done, total }) {
  if (state === "waiting") return "Waiting for the server";
  return total ? `${done} of ${count(total, "patch", "patches")}` : "Reading the query";
}
