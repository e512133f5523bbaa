// Why a slide is ranked where it is: sentences, the histogram of distances, and what each patch counts.

import { explain, slides } from "./api.js";
import { el, fill } from "./dom.js";
import { histogram } from "./histogram.js";
import { patchPicture, queryPatchPicture } from "./picture.js";
import { count } from "./question.js";

const MOST_PATCHES = 8;
const MOST_IDS = 12; // suggested
const PAUSE_MS = 200; // in typing, before slides are looked up
const SHOWN_PX = 96;
const percent = (share) => `${Math.round(share * 100)} %`;

export async function showWhy(place, answer, slideId) {
  if (answer.fromFile)
    return fill(place, el("p", { class: "note" }, "This answer is from a file: ask again to see why."));
  fill(place, el("p", { class: "soft" }, "Comparing all patches…"));
  try {
    fill(place, ...parts(answer, await explain(answer.id, slideId)));
  } catch (error) {
    fill(place, el("p", { class: "note" }, error.message));
  }
}

function parts(answer, why) {
  return [
    ...why.words.map((words) => el("p", {}, words)),
    bag(answer, why),
    why.patches.length ? histogram(why) : null,
    why.patches.length ? shares(answer, why) : null,
  ];
}

function bag({ question }, { bag: found }) {
  if (!found) return null;
  const asked = question.relevant ? "the query and its examples" : "the query";
  return el(
    "div",
    {},
    el("h3", {}, `Labels of what patch ${found.query_row + 1} of ${asked} found`),
    el(
      "ul",
      { class: "bars" },
      found.labels.map(([label, weight]) => bar(label, weight)),
    ),
  );
}

const bar = (words, share) =>
  el("li", {}, el("span", {}, words), el("meter", { value: share, "aria-hidden": "true" }), percent(share));

// The shares sum to the score: shown as parts of it, the largest first.
function shares(answer, { slide_id, patches, score }) {
  const largest = [...patches]
    .sort((a, b) => b.share - a.share || a.hamming - b.hamming)
    .slice(0, MOST_PATCHES);
  const rest = patches.length - largest.length;
  const title = score
    ? "What each patch of the query adds to the score"
    : "The nearest patches, which are not matches";
  return el(
    "div",
    {},
    el("h3", {}, title),
    el(
      "ul",
      { class: "shares" },
      largest.map((patch) => shareOf(answer, slide_id, patch, score)),
    ),
    rest ? el("p", { class: "soft" }, `And ${rest} more.`) : null,
  );
}

function shareOf(answer, slideId, patch, score) {
  const part = score ? patch.share / score : 0;
  const bar = score ? el("meter", { value: part, "aria-hidden": "true" }) : null;
  const words = `${patch.hamming} bits, matched in ${count(patch.found_in, "slide")}`;
  const hasPlaces = patch.query_xy || patch.xy;
  return el(
    "li",
    { class: hasPlaces ? null : "without" },
    hasPlaces ? queryPatchPicture(answer, patch.query_xy, SHOWN_PX) : null,
    hasPlaces ? patchPicture(slideId, patch.xy, SHOWN_PX) : null,
    el("div", {}, bar, score ? ` ${percent(part)}` : "", el("div", { class: "soft" }, words)),
  );
}

// Any slide can be asked about, also one that is not among the hits.
export function whyNot(answer) {
  const place = el("div", { class: "why", "aria-live": "polite" });
  const ids = el("datalist", { id: "why-not-ids" });
  const show = () => input.value.trim() && showWhy(place, answer, input.value.trim());
  const input = el("input", {
    id: "why-not",
    list: ids.id,
    placeholder: "id of a slide",
    autocomplete: "off",
    oninput: () => suggest(input.value, ids),
    onkeydown: ({ key }) => key === "Enter" && show(),
  });
  const label = el("label", { for: "why-not" }, "Why is another slide not here?");
  const button = el("button", { onclick: show }, "Tell");
  return el("div", { class: "why-not" }, label, el("div", { class: "row" }, input, button, ids), place);
}

let typed = "";

async function suggest(words, ids) {
  typed = words;
  await new Promise((done) => setTimeout(done, PAUSE_MS));
  if (typed !== words || !words.trim()) return;
  const found = await slides({ query: words, limit: MOST_IDS }).catch(() => null);
  if (found && typed === words)
    fill(
      ids,
      found.slides.map(({ slide_id: value }) => el("option", { value })),
    );
}
