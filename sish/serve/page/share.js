// The page's address follows what is shown, so that a link, a bookmark, back and forward restore it.

import { addressOf, readAddress, seenBy, showSeen } from "./address.js";
import { $, el } from "./dom.js";
import { notice } from "./notices.js";
import { get, on, set } from "./store.js";

const REST_MS = 300; // a viewer that has not moved for so long has come to rest

let timer = null;
let awaited = { first: null, second: null }; // what the viewers are to show once they are there
let seen = { first: null, second: null }; // what they show, as far as they can be seen
let entry = null; // the entry of the history that is written to

export function startShare() {
  const copy = el("button", { class: "tool", id: "copy-link", onclick: copyLink }, "Copy link");
  copy.title = "Copy an address that restores this slide, view and box";
  $("#slide-tools").append(copy);
  restore();
  on(["view", "slideId", "hit"], writeStep);
  on(["view", "slideId", "box", "hit", "first", "second"], writeSoon);
  for (const name of ["first", "second"]) on([name], (state) => watch(name, state[name]));
  addEventListener("popstate", restore);
  for (const name of ["first", "second"]) watch(name, get()[name]);
}

function watch(name, pane) {
  if (!pane) return;
  pane.viewer.onMove(writeSoon);
  pane.viewer.whenOpen(() => {
    if (awaited[name]) requestAnimationFrame(() => arrive(name, pane));
  });
}

function arrive(name, pane) {
  if (get()[name] === pane && awaited[name]) showSeen(pane.viewer, awaited[name]);
  awaited[name] = null;
}

function restore() {
  const { see: toSee, beside, hitId, ...shown } = readAddress(location.hash);
  const { slideId, hit, first, second } = get();
  const isSame = shown.slideId === slideId;
  awaited = { first: toSee, second: beside };
  const restored = { ...shown, hit: hitOf(hitId, isSame && hit) };
  entry = entryOf(restored); // it is there already: no step to be written
  set({ ...restored, ...(isSame ? {} : { slide: null }) });
  for (const [name, pane] of Object.entries({ first, second })) {
    if (pane && get()[name] === pane) arrive(name, pane); // it stayed: no new one will come
  }
}

// The hit of the answer if it is there; else only its id, which opens it without matched places.
function hitOf(id, shown) {
  if (id === null || shown?.slide_id === id) return id === null ? null : shown;
  return get().answer?.results.find(({ slide_id }) => slide_id === id) ?? { slide_id: id };
}

// Another view, slide or hit is a step that Back undoes; a movement is not.
const entryOf = ({ view, slideId, hit }) => JSON.stringify([view, slideId, hit?.slide_id]);

// A step is written at once: Back leads to it however soon the next one comes.
function writeStep(state) {
  if (entryOf(state) !== entry) write();
}

function writeSoon() {
  clearTimeout(timer);
  timer = setTimeout(write, REST_MS);
}

function write() {
  const state = get();
  for (const name of ["first", "second"]) seen[name] = awaited[name] ?? seenIn(state[name], seen[name]);
  const address = addressOf({ ...state, see: seen.first, beside: seen.second });
  if (address === location.hash) return;
  if (entryOf(state) === entry) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  entry = entryOf(state);
}

// What a pane shows; as before if another part of the page is over it.
function seenIn(pane, before) {
  if (!pane?.viewer.osd.isOpen()) return null;
  return pane.viewer.element.clientWidth ? seenBy(pane.viewer) : before;
}

async function copyLink() {
  write();
  try {
    await navigator.clipboard.writeText(location.href);
    notice("Copied. The link opens this slide, view and box for whoever may use this server.");
  } catch {
    notice(`Copy this address: ${location.href}`); // a page that is not on this machine may not write there
  }
}
