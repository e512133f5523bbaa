// Refine (SMILY, 2019): mark hits as relevant or not, and ask again.

import { $, el, fill } from "./dom.js";
import { askAgain } from "./go.js";
import { allPairs } from "./pairs.js";
import { factsOf } from "./picture.js";
import { change } from "./question.js";
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

async function toggle(hit, mark) {
  const isOther = (one) => idOf(one) !== hit.slide_id;
  const wasMarked = !get().draft[mark].every(isOther);
  const example = wasMarked ? [] : [await exampleOf(hit, mark)];
  const { relevant, irrelevant } = get().draft;
  const marks = { relevant: relevant.filter(isOther), irrelevant: irrelevant.filter(isOther) };
  change({ ...marks, [mark]: [...marks[mark], ...example] });
}

const idOf = (example) => example.slide_id ?? example;

// An example weighs as much as the query, so a hit is one example. Of a box or an image, it is the place that
// matches best: the rest of the slide may look like anything. A hit that is not relevant is meant as a whole:
// the search then takes its patches nearest to the query, and does not find it again.
async function exampleOf(hit, mark) {
  const { slide_id, patch_l0_px } = hit;
  const { question } = get().answer;
  const best = allPairs(hit).find(({ xy }) => xy);
  if (mark === "irrelevant" || (question.slide_id && !question.region) || !best) return { slide_id };
  const { available } = await factsOf(slide_id).catch(() => ({ available: false }));
  const side = Math.round(patch_l0_px);
  return available ? { slide_id, region: [...best.xy, side, side] } : { slide_id };
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
  const again = el("button", { class: "primary", onclick: askAgain }, "Ask again with these");
  const clear = el("button", { onclick: () => change({ relevant: [], irrelevant: [] }) }, "Clear marks");
  fill(place, marksInWords(marked), el("div", { class: "row" }, again, clear));
}

// Each mark with a way to take it back: a hit that is not relevant is not found again.
function marksInWords(marked) {
  const list = (mark) =>
    marked[mark].size
      ? el(
          "ul",
          { class: "chips" },
          el("li", { class: "name" }, `${MARKS[mark]}:`),
          [...marked[mark]].map((id) => chip(id, mark)),
        )
      : null;
  return el("div", {}, Object.keys(MARKS).map(list));
}

function chip(id, mark) {
  const drop = () => change({ [mark]: get().draft[mark].filter((one) => idOf(one) !== id) });
  return el("li", {}, id, el("button", { "aria-label": `Take back the mark of ${id}`, onclick: drop }, "×"));
}
