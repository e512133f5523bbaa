// The hit in a second viewer beside the first: linked, with the matched places framed in both.

import { slide as askSlide } from "./api.js";
import { el, fill } from "./dom.js";
import { square } from "./layers.js";
import { Link } from "./link.js";
import { Pane, failedCard, goneCard } from "./pane.js";
import { allPairs } from "./pairs.js";
import { around, corners } from "./place.js";
import { get, on, set } from "./store.js";
import { toggle } from "./toolbar.js";

const PATCH_PX = 160; // on the screen, of a patch that is aimed at

let link = null;

const title = el("h2", {});
const linked = toggle("Linked", "Move both slides together, at equal µm per pixel (l)", "linked", {
  id: "linked",
});
const place = el("div", { class: "pane-place" }); // of the slide itself

// Fill host, an empty element beside the first viewer, whenever a hit is opened.
export function startCompare(host) {
  host.hidden = true;
  host.append(el("div", { class: "hit-head" }, title, linked, closeButton()), place);
  on(["hit"], () => open(host));
  on(["first", "second"], connect);
  on(["first", "second", "hit", "answer"], drawFrames);
  on(["pair", "first", "second"], drawPair);
  on(["aim"], aimBoth);
  on(["linked"], ({ linked: isOn }) => link?.switch(isOn));
}

function closeButton() {
  const is = { class: "tool", id: "close-hit", "aria-label": "Close the second slide" };
  return el("button", { ...is, onclick: () => set({ hit: null }) }, "×");
}

async function open(host) {
  const { hit, first, second } = get();
  if (!hit && host.contains(document.activeElement)) first?.viewer.osd.canvas.focus();
  second?.close();
  set({ second: null });
  host.hidden = !hit;
  if (!hit) return;
  announce(host, hit);
  try {
    const slide = await askSlide(hit.slide_id);
    if (get().hit === hit) show(slide);
  } catch (error) {
    if (get().hit === hit) fill(place, failedCard(hit.slide_id, error, () => open(host)));
  }
}

function announce(host, { slide_id, rank, label }) {
  fill(title, [rank ? `Hit ${rank}` : "Beside it", slide_id, label].filter(Boolean).join(" · "));
  fill(place, el("p", { class: "opening", role: "status" }, `Opening ${slide_id} …`));
  host.setAttribute("aria-label", `Hit: ${slide_id}`);
  linked.disabled = true;
}

function show(slide) {
  fill(place, slide.available ? [] : goneCard(slide));
  if (slide.available) set({ second: new Pane(place, slide) });
}

function connect({ first, second }) {
  link?.close();
  link = null;
  if (!first || !second) return;
  const joinLater = () => requestAnimationFrame(() => join(first, second)); // each has its half of the page
  first.viewer.whenOpen(() => second.viewer.whenOpen(joinLater));
}

function join(first, second) {
  if (get().first !== first || get().second !== second) return;
  link?.close();
  link = new Link(first, second);
  link.on = get().linked;
  linked.disabled = !link.possible;
  if (get().hit.patches) showMatches(first, second); // else an address says what to show
  else link.follow(first);
  aimBoth(get());
}

// Both viewers show one matched pair in the middle, near enough to see what is in it.
function aimBoth({ aim, first, second, hit, answer }) {
  if (!link || !allPairs(hit ?? {}).includes(aim)) return;
  const asked = queryOn(first, answer);
  const scale = Math.max(PATCH_PX / hit.patch_l0_px, second.viewer.view(false).scale);
  link.lead(second);
  if (asked && aim.query_xy) first.viewer.setView({ center: middle(aim.query_xy, asked) }, true);
  if (aim.xy) second.viewer.setView({ center: middle(aim.xy, hit), scale }, true);
  link.lead(second);
  link.follow(second);
}

const middle = (corner, { patch_l0_px: side }) => corner.map((at) => at + side / 2);

// Both viewers show their matched places in the middle, at the same um per pixel.
function showMatches(first, second) {
  const { hit, slideId, answer, box } = get();
  const isOf = answer?.query.slide_id === slideId;
  const asked = isOf && box ? around(corners(box)) : matched(isOf && answer.query, hit, "query_xy");
  const places = [asked, matched(hit, hit, "xy")];
  const panes = [first, second];
  const needed = panes.map(({ viewer, slide }, i) => places[i] && slide.mpp / viewer.fittingScale(places[i]));
  const umPerPx = Math.max(...needed.filter(Boolean));
  panes.forEach(({ viewer, slide }, i) => {
    if (!places[i]) return;
    const [x, y, width, height] = places[i];
    const scale = link.possible ? slide.mpp / umPerPx : viewer.fittingScale(places[i]);
    viewer.setView({ center: [x + width / 2, y + height / 2], scale }, true);
  });
  link.lead(places[0] || !places[1] ? first : second);
  link.follow(link.leader);
}

// The rectangle around the matched patches of one side; null if they have no places.
function matched(side, hit, place) {
  const patch = side && side.patch_l0_px;
  const corner = allPairs(hit).map((pair) => pair[place]).filter(Boolean);
  if (!patch || !corner.length) return null;
  const [x, y, width, height] = around(corner);
  return [x, y, width + patch, height + patch];
}

function frames(side, hit, place, kind) {
  if (!side || !side.patch_l0_px) return [];
  const places = allPairs(hit ?? {}).map((pair) => pair[place]).filter(Boolean);
  return places.map((xy) => square(xy, side.patch_l0_px, kind));
}

function drawFrames({ first, second, hit, answer }) {
  first?.layers.draw("frames", frames(queryOn(first, answer), hit, "query_xy", "asked"));
  second?.layers.draw("frames", frames(hit, hit, "xy", "match"));
}

function drawPair({ first, second, hit, answer, pair }) {
  const pairs = { patches: pair ? [pair] : [] };
  first?.layers.draw("pair", frames(queryOn(first, answer), pairs, "query_xy", "pointed"));
  second?.layers.draw("pair", frames(hit, pairs, "xy", "pointed"));
}

// The query, if it is of the slide in a pane.
const queryOn = (pane, answer) => (answer?.query.slide_id === pane.slide.slide_id ? answer.query : null);
