// Refine (SMILY, 2019): mark hits as relevant or not, and ask again.

import { ask } from "./asking.js";
import { $, el, fill } from "./dom.js";
import { change, count, refinedQuestion } from "./question.js";
import { get, on } from "./store.js";

const MARKS = { relevant: "Relevant", irrelevant: "Not relevant" };

export function startRefine() {
  on(["draft", "answer"], showMarks);
  on(["answer"], followAnswer);
}

// Marks belong to the answer that they were made on, and to those that were asked for with them.
function followAnswer({ answer }) {
  const { relevant = [], irrelevant = [] } = answer?.question ?? {};
  change({ relevant, irrelevant });
}

export function markButtons(hit) {
  const button = (mark) =>
    el(
      "button",
      { "data-mark": mark, "aria-pressed": "false", onclick: () => toggle(hit, mark) },
      MARKS[mark],
    );
  return Object.keys(MARKS).map(button);
}

function toggle(hit, mark) {
  const { draft } = get();
  const isOther = (one) => idOf(one) !== hit.slide_id;
  const marks = { relevant: draft.relevant.filter(isOther), irrelevant: draft.irrelevant.filter(isOther) };
  const wasMarked = marks[mark].length < draft[mark].length;
  if (!wasMarked) marks[mark] = [...marks[mark], ...examplesOf(hit)];
  change(marks);
}

const idOf = (example) => example.slide_id ?? example;

// Of a whole slide, all of the hit is meant; of a box or an image, the matched places that the person sees.
function examplesOf({ slide_id, patches, patch_l0_px }) {
  const { question } = get().answer;
  const places = new Map(patches.filter(({ xy }) => xy).map(({ xy }) => [String(xy), xy]));
  if ((question.slide_id && !question.region) || !places.size) return [{ slide_id }];
  const side = Math.round(patch_l0_px);
  return [...places.values()].map(([x, y]) => ({ slide_id, region: [x, y, side, side] }));
}

function showMarks({ draft, answer }) {
  const ids = (mark) => new Set(draft[mark].map(idOf));
  const marked = { relevant: ids("relevant"), irrelevant: ids("irrelevant") };
  for (const button of document.querySelectorAll("[data-mark]")) {
    const isMarked = marked[button.dataset.mark].has(button.closest(".hit").dataset.slide);
    button.setAttribute("aria-pressed", String(isMarked));
  }
  const place = $("#refine");
  place.hidden = !answer || !(marked.relevant.size || marked.irrelevant.size);
  if (place.hidden) return;
  const words = `${count(marked.relevant.size, "hit")} relevant, ${marked.irrelevant.size} not`;
  const again = el(
    "button",
    { class: "primary", onclick: () => ask(refinedQuestion(get())) },
    "Ask again with these",
  );
  const clear = el("button", { onclick: () => change({ relevant: [], irrelevant: [] }) }, "Clear marks");
  fill(place, el("p", { role: "status" }, words), el("div", { class: "row" }, again, clear));
}
