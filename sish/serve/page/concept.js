// A concept: boxes that show it, boxes that do not, drawn on any slides, and how strongly it counts.

import { $, el, fill } from "./dom.js";
import { askAgain } from "./go.js";
import { slidePicture } from "./picture.js";
import { change, isReady, refinedQuestion, subjectInWords } from "./question.js";
import { get, on, set } from "./store.js";

const SIDES = { positive: "Show it", negative: "Do not show it" };

export function conceptPart() {
  on(["draft", "drawing", "slideId", "slide", "box", "answer"], showConcept);
  on(["drawn"], take);
  const slider = { id: "concept-strength", type: "range", min: -1, max: 1, step: 0.1 };
  return el(
    "details",
    { id: "concept" },
    el("summary", {}, "Concept"),
    el(
      "p",
      { class: "soft" },
      "Draw boxes that show what you look for, and boxes that do not: one of each at least, on any slides. ",
      "The search then leans towards the concept, or away from it.",
    ),
    el("div", { class: "sides" }, Object.keys(SIDES).map(side)),
    el(
      "label",
      { class: "field" },
      "Strength",
      el("input", { ...slider, oninput: setStrength }),
      el("output"),
    ),
    el("button", { id: "concept-ask", onclick: askAgain }, "Ask with this concept"),
    " ",
    el("span", { id: "concept-subject", class: "soft" }),
  );
}

const setStrength = (event) => change({ strength: Number(event.target.value) });

function side(purpose) {
  const draw = () => set({ drawing: get().drawing === purpose ? null : purpose });
  return el(
    "div",
    { role: "group", "aria-label": `Boxes that ${SIDES[purpose].toLowerCase()}` },
    el("b", {}, SIDES[purpose]),
    el("ul", { id: `concept-${purpose}`, class: "examples" }),
    el("button", { "data-draw": purpose, "aria-pressed": "false", onclick: draw }, "Draw a box"),
  );
}

function take({ drawn, draft }) {
  if (!drawn || !(drawn.purpose in SIDES)) return;
  const { purpose, slideId, region, angle } = drawn;
  change({ [purpose]: [...draft[purpose], { slide_id: slideId, region, ...(angle ? { angle } : {}) }] });
}

let shown = {};

function showConcept(state) {
  const { draft, drawing, slideId, answer, slide } = state;
  for (const purpose of Object.keys(SIDES)) {
    const button = $(`[data-draw="${purpose}"]`);
    button.setAttribute("aria-pressed", String(drawing === purpose));
    button.disabled = !slideId || slide?.available === false;
    if (draft[purpose] === shown[purpose]) continue; // pictures are not loaded again
    fill(
      $(`#concept-${purpose}`),
      draft[purpose].map((one) => example(purpose, one)),
    );
  }
  shown = draft;
  const n = draft.positive.length + draft.negative.length;
  $("#concept summary").textContent = n ? `Concept (${n === 1 ? "1 box" : `${n} boxes`})` : "Concept";
  $("#concept-strength").value = draft.strength;
  $("#concept output").textContent = `${draft.strength} ${draft.strength < 0 ? "(away)" : "(towards)"}`;
  const isWhole = draft.positive.length && draft.negative.length;
  const canAsk = Boolean(answer) || isReady(state);
  $("#concept-subject").textContent = canAsk ? `For: ${subjectInWords(refinedQuestion(state))}` : "";
  $("#concept-ask").disabled = !isWhole || !canAsk;
}

function example(purpose, one) {
  const drop = () => change({ [purpose]: get().draft[purpose].filter((other) => other !== one) });
  return el(
    "li",
    {},
    slidePicture(one.slide_id, [{ ...one, kind: purpose }]),
    el("button", { "aria-label": `Remove the box on ${one.slide_id}`, onclick: drop }, "×"),
  );
}
