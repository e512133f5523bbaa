// A hit of the answer: its picture with the matched places framed, what the score says, and its pairs.

import { el, fill } from "./dom.js";
import { showWhy } from "./explain.js";
import { openHit } from "./go.js";
import { allPairs, pairs, picturesInView } from "./pairs.js";
import { slidePicture } from "./picture.js";
import { markButtons } from "./refine.js";
import { get } from "./store.js";

const SCORE =
  "How close the query's patches come to their nearest match in the slide, on average: 1 equal, 0 unrelated " +
  "or no match. Patches that few slides match weigh more.";
const NOT_PLACED = "The ranking left this slide out: it fills the list by similarity alone.";
const BEYOND = "None of its patches is within the distance threshold: it is only among the nearest.";

export function hitCard(answer, hit, palette) {
  const why = el("div", { class: "why", hidden: true });
  const open = el("button", { class: "open", "aria-label": openName(hit), onclick: () => openHit(hit) });
  const matches = el("div", { class: "matches" });
  const item = el(
    "li",
    { class: "hit", "data-slide": hit.slide_id },
    open,
    el("div", { class: "hit-facts" }, title(hit, palette), score(hit), matched(answer, hit), badges(hit)),
    matches,
    el("div", { class: "row" }, markButtons(hit), whyButton(answer, hit, why)),
    why,
  );
  picturesInView(item, async () => {
    fill(open, slidePicture(hit.slide_id, framesOf(hit)));
    fill(matches, ...(await pairs(answer, hit)));
  });
  return item;
}

const framesOf = (hit) =>
  allPairs(hit)
    .filter(({ xy }) => xy)
    .map(({ xy }) => patchFrame(xy, hit.patch_l0_px));

const patchFrame = ([x, y], side) => ({ region: [x, y, side, side], kind: "match" });

const openName = ({ rank, slide_id, label }) => `Open hit ${rank}, ${slide_id}${label ? `, ${label}` : ""}`;

const title = ({ rank, slide_id, label }, palette) =>
  el(
    "div",
    { class: "hit-title" },
    `${rank}. `,
    label ? palette.icon(label) : null,
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
  const words = query.n_patches === 1 ? "" : `${n_matched} of ${query.n_patches} patches matched, median `;
  const far = `Barcodes of unrelated patches differ in ${n_bits / 2} bits; a match may differ in ${threshold}.`;
  return el("div", { class: "soft", title: far }, `${words}${median_distance} of ${n_bits} bits differ`);
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
