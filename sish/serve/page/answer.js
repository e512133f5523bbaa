// The answer: what was asked, how it was ranked, and the hits.

import { showWhy, whyNot } from "./explain.js";
import { $, el, fill } from "./dom.js";
import { bringPairs } from "./pairs.js";
import { slidePicture } from "./picture.js";
import { boxOf, count, inWords } from "./question.js";
import { markButtons } from "./refine.js";
import { get, on, set } from "./store.js";
import { takeAlong } from "./take_along.js";

const SCORE =
  "How close the query's patches come to their nearest match in the slide, on average: 1 equal, 0 unrelated " +
  "or no match. Patches that few slides match weigh more.";
const RANKINGS = {
  uncertainty: "ranked by uncertainty: places whose matches agree on one label come first",
  similarity: "ranked by similarity: the closest slides come first",
};
const NOT_PLACED = "The ranking left this slide out: it fills the list by similarity alone.";
const BEYOND = "None of its patches is within the distance threshold: it is only among the nearest.";

export function startAnswer() {
  on(["answer"], showAnswer);
  on(["hit"], showOpened);
}

function showAnswer({ answer }) {
  const place = $("#answer");
  place.hidden = !answer;
  if (!answer) return fill(place);
  const { results, note } = answer;
  fill(
    place,
    el("h2", { id: "answer-title", role: "status" }, count(results.length, "similar slide")),
    el("p", { class: "soft" }, `${inWords(answer.question)}; ${RANKINGS[answer.ranking] ?? answer.ranking}.`),
    note ? el("p", { class: "note" }, note) : null,
    takeAlong(answer),
    labelCounts(results),
    el(
      "ol",
      { "aria-labelledby": "answer-title", class: "hits", onkeydown: walk },
      results.map((hit) => card(answer, hit)),
    ),
    whyNot(answer),
  );
  place.scrollIntoView(); // the hits are what was waited for
  showOpened(get());
}

function labelCounts(results) {
  const counts = new Map();
  for (const { label } of results) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  if (!most.length) return null;
  return el(
    "ul",
    { class: "chips", "aria-label": "Labels of the hits" },
    most.map(([label, n]) => el("li", {}, `${label} ${n}`)),
  );
}

function card(answer, hit) {
  const frames = hit.patches.filter(({ xy }) => xy).map(({ xy }) => patchFrame(xy, hit.patch_l0_px));
  const why = el("div", { class: "why", hidden: true });
  const item = el(
    "li",
    { class: "hit", "data-slide": hit.slide_id },
    el(
      "button",
      { class: "open", "aria-label": openName(hit), onclick: () => openHit(hit) },
      slidePicture(hit.slide_id, frames),
    ),
    el("div", { class: "hit-facts" }, title(hit), score(hit), matched(answer, hit), badges(hit)),
    el("div", { class: "pairs" }),
    el("div", { class: "row" }, markButtons(hit), whyButton(answer, hit, why)),
    why,
  );
  bringPairs(item, answer, hit);
  return item;
}

const patchFrame = ([x, y], side) => ({ region: [x, y, side, side], kind: "match" });

const openName = ({ rank, slide_id, label }) => `Open hit ${rank}, ${slide_id}${label ? `, ${label}` : ""}`;

const title = ({ rank, slide_id, label }) =>
  el(
    "div",
    { class: "hit-title" },
    `${rank}. `,
    el("b", {}, label ?? slide_id),
    label ? el("span", { class: "soft" }, ` ${slide_id}`) : null,
  );

function score({ score: value }) {
  const words = value.toFixed(2);
  const bar = el("meter", { min: 0, max: 1, value, "aria-label": "Score", title: SCORE }, words);
  return el("div", { class: "score", title: SCORE }, bar, `score ${words}`);
}

function matched({ query }, { n_matched, median_distance }) {
  const { n_bits, threshold } = get().info;
  const words = `${n_matched} of ${count(query.n_patches, "patch", "patches")} matched`;
  const far = `Half of them differ in at most ${median_distance} of ${n_bits} bits; a match may differ in ${threshold}.`;
  return el("div", { class: "soft", title: far }, `${words}, median ${median_distance} of ${n_bits} bits`);
}

function badges({ placed, below_threshold }) {
  const badge = (words, meaning) => el("span", { class: "badge", title: meaning }, words);
  return el(
    "div",
    { class: "badges" },
    placed ? null : badge("not placed", NOT_PLACED),
    below_threshold ? badge("beyond the threshold", BEYOND) : null,
  );
}

function whyButton(answer, hit, place) {
  const toggle = () => {
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    if (!place.hidden) showWhy(place, answer, hit.slide_id);
  };
  const button = el("button", { "aria-expanded": "false", onclick: toggle }, "Why here?");
  return button;
}

// A hit is shown beside what was asked for, so the first viewer goes back to that slide and box.
export function openHit(hit) {
  const { answer, slideId } = get();
  const asked = answer.question.slide_id ?? slideId ?? hit.slide_id;
  const home = asked === slideId ? {} : { slideId: asked, slide: null };
  set({ view: "slide", ...home, box: boxOf(answer.question), hit, pair: null });
}

function showOpened({ hit }) {
  for (const item of document.querySelectorAll(".hit")) {
    const isOpen = item.dataset.slide === hit?.slide_id;
    item.classList.toggle("opened", isOpen);
    item.querySelector(".open").setAttribute("aria-pressed", String(isOpen));
  }
}

// Arrow keys go from hit to hit.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.classList.contains("open")) return;
  const buttons = [...document.querySelectorAll(".hit .open")];
  buttons[buttons.indexOf(event.target) + step]?.focus();
  event.preventDefault();
}
