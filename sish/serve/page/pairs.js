// Matched patches side by side: the query's above, the hit's below. Pointing at a pair shows where both are.

import { el } from "./dom.js";
import { openHit } from "./go.js";
import { factsOf, patchPicture, queryPatchPicture } from "./picture.js";
import { get, set } from "./store.js";

const SMALL_PX = 96; // of the pictures that are fetched; they are shown at two thirds of it
const LARGE_PX = 320;

// Pictures are made when the hit comes into view: an answer may have a thousand hits.
const watcher = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    target.makePictures();
  }
});

export function picturesInView(item, make) {
  item.makePictures = make;
  watcher.observe(item);
}

const FEW = 2; // pairs that have room for larger pictures

// In a refined search, patches of what was marked as relevant find hits, too.
export const allPairs = ({ patches = [], examples = [] }) => [...patches, ...examples];

const isOfExample = (pair) => "example_xy" in pair;
const askingName = (pair) => (isOfExample(pair) ? `the example ${pair.slide_id}` : "the query");
const askingPicture = (answer, pair, size) =>
  isOfExample(pair)
    ? patchPicture(pair.slide_id, pair.example_xy, size)
    : queryPatchPicture(answer, pair.query_xy, size);

export async function pairs(answer, hit) {
  const patches = allPairs(hit);
  if (!(await haveAny(answer.question.slide_id, hit)))
    return [
      el("p", { class: "soft" }, `Nearest patches: ${patches.map((pair) => pair.hamming).join(", ")} bits`),
    ];
  return [
    el(
      "div",
      { class: patches.length > FEW ? "pairs" : "pairs few" },
      patches.map((pair) => pairButton(answer, hit, pair)),
    ),
  ];
}

// Slides given as vectors, or whose files are gone, have no pictures of their patches.
async function haveAny(asked, hit) {
  const slides = await Promise.all([asked, hit.slide_id].map((id) => id && factsOf(id).catch(() => null)));
  const isImage = !asked;
  return isImage || slides.some((slide) => slide?.available);
}

function pairButton(answer, hit, pair) {
  const name = `${pair.hamming} bits between a patch of ${askingName(pair)} and its match in ${hit.slide_id}`;
  const show = (event) => point(event.currentTarget, answer, hit, pair);
  const events = { onpointerenter: show, onfocus: show, onpointerleave: leave, onblur: leave };
  const escape = (event) => event.key === "Escape" && leave();
  return el(
    "button",
    {
      class: isOfExample(pair) ? "pair of-example" : "pair",
      "aria-label": name,
      onclick: () => open(hit, pair),
      onkeydown: escape,
      ...events,
    },
    askingPicture(answer, pair, SMALL_PX),
    patchPicture(hit.slide_id, pair.xy, SMALL_PX),
    el("span", { "aria-hidden": "true" }, `${pair.hamming} bits`),
  );
}

const bits = ({ hamming }) => `${hamming} of ${get().info.n_bits} bits`;

let kept = {}; // the hit and the pair that was clicked: it stays framed while its hit is open

function open(hit, pair) {
  kept = { hit, pair };
  openHit(hit);
  set({ aim: null });
  set({ aim: pair });
  leave();
}

// The viewers show the places of the hit that is open; of another hit, a card shows both patches large.
function point(button, answer, hit, pair) {
  leave();
  button
    .closest(".hit")
    .querySelectorAll(".thumb rect")
    [allPairs(hit).indexOf(pair)]?.classList.add("pointed");
  if (get().hit === hit) set({ pair });
  else document.body.append(lens(button, answer, hit, pair));
}

function leave() {
  document.querySelector("#lens")?.remove();
  for (const rect of document.querySelectorAll("rect.pointed")) rect.classList.remove("pointed");
  set({ pair: get().hit && get().hit === kept.hit ? kept.pair : null });
}

function lens(button, answer, hit, pair) {
  const edge = button.getBoundingClientRect();
  const side = (name, picture) => el("figure", {}, picture, el("figcaption", {}, name));
  return el(
    "div",
    { id: "lens", style: { top: `${Math.max(8, Math.min(edge.top - 120, innerHeight - 400))}px` } },
    side(isOfExample(pair) ? `Example ${pair.slide_id}` : "Query", askingPicture(answer, pair, LARGE_PX)),
    side(hit.slide_id, patchPicture(hit.slide_id, pair.xy, LARGE_PX)),
    el("p", {}, `They differ in ${bits(pair)}; a match may differ in ${get().info.threshold}.`),
  );
}
