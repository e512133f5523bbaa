// Keys that work everywhere, the dialog that lists all keys, and the light or dark theme.

import { $, el, fill } from "./dom.js";
import { get, set } from "./store.js";
import { startTheme } from "./theme.js";

// Groups of [keys, what they do] in the dialog; the viewer adds its own with describeKeys().
const described = new Map([
  [
    "Everywhere",
    [
      ["/", "search slides"],
      ["g", "all slides"],
      ["m", "map of slides"],
      ["s", "the open slide"],
      ["?", "this help"],
      ["Esc", "close what is on top"],
    ],
  ],
  [
    "Slides",
    [
      ["← → ↑ ↓", "from slide to slide"],
      ["Home End", "ends of the row; with Ctrl of the list"],
      ["Enter", "open the slide"],
    ],
  ],
  [
    "Map",
    [
      ["← → ↑ ↓", "move"],
      ["+ − 0", "nearer, farther, all"],
      ["Tab", "to the list of the slides in the middle"],
    ],
  ],
]);

const ACTIONS = {
  "/": () => {
    set({ view: "gallery" });
    $("#search-slides").focus();
  },
  g: () => set({ view: "gallery" }),
  m: () => set({ view: "map" }),
  s: () => get().slideId && set({ view: "slide" }),
  "?": () => help(),
};

export function describeKeys(group, keys) {
  described.set(group, keys);
}

export function startKeys() {
  startTheme($("#tools"));
  $("#tools").append(
    el("button", { id: "help", "aria-keyshortcuts": "?", onclick: help, title: "Keys (?)" }, "Help"),
  );
  document.body.append(el("dialog", { id: "help-dialog", "aria-labelledby": "help-title" }));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const action = ACTIONS[event.key];
    if (!action || takesText(event.target) || $("dialog[open]")) return;
    event.preventDefault();
    action();
  });
}

const TEXT = "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=range])";
const takesText = (target) => target.closest?.(TEXT);

function help() {
  const dialog = $("#help-dialog");
  const close = el("button", { class: "primary", onclick: () => dialog.close() }, "Close");
  fill(
    dialog,
    el("h2", { id: "help-title" }, "How to look, and the keys"),
    el(
      "ol",
      {},
      el("li", {}, "Open a slide from the gallery or the map."),
      el("li", {}, "Draw a box on the tissue you mean, or ask for the whole slide."),
      el("li", {}, "Point at an answer to see what matched; click it to compare both slides side by side."),
    ),
    el("div", { class: "help-groups" }, [...described].map(helpGroup)),
    close,
  );
  dialog.showModal();
  close.focus();
}

function helpGroup([group, keys]) {
  const rows = keys.map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)]);
  return el("section", {}, el("h3", {}, group), el("dl", {}, rows.flat()));
}
