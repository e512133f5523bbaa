// The buttons above the slides, and the keys that do the same.

import { el } from "./dom.js";
import { describeKeys } from "./keys.js";
import { get, on, set } from "./store.js";
import { toggle } from "./toolbar.js";

// The viewer that has the focus, else the first.
const viewer = () => {
  const { first, second } = get();
  return (second?.host.contains(document.activeElement) ? second : first)?.viewer;
};

const flip = (key) => () => set({ [key]: !get()[key] });

// Keys of the slide's part of the page; OpenSeadragon has its own while a picture has the focus.
const ACTIONS = {
  r: () => viewer()?.turnBy(90),
  R: () => viewer()?.turnBy(-90),
  f: () => viewer()?.mirror(),
  0: () => viewer()?.home(),
  "+": () => viewer()?.zoomBy(2),
  "-": () => viewer()?.zoomBy(0.5),
  b: () => get().first && set({ drawing: "query" }),
  p: flip("mosaic"),
  t: flip("tissue"),
  h: () => get().answer && set({ heat: !get().heat }),
  l: flip("linked"),
  Delete: () => set({ box: null }),
  Escape: () => (get().drawing ? set({ drawing: null }) : set({ hit: null })),
};

const KEYS = [
  ["← → ↑ ↓", "move the picture"],
  ["+ − 0", "nearer, farther, all of it"],
  ["r R", "turn right, turn left"],
  ["f", "mirror"],
  ["b", "draw a box to search for, or change it"],
  ["Del", "remove the box"],
  ["p t h", "patches of the mosaic, tissue, heat"],
  ["l", "link both slides"],
  ["Esc", "stop drawing; close the second slide"],
];

export function startSlideTools(section) {
  section.append(slideTools());
  describeKeys("Slide", KEYS);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const isElsewhere = get().view !== "slide" || event.target.closest("dialog, input, select, textarea");
    if (isElsewhere || !ACTIONS[event.key]) return;
    event.preventDefault();
    ACTIONS[event.key]();
  });
}

function slideTools() {
  return el(
    "div",
    { class: "slide-tools", role: "toolbar", "aria-label": "Slide", id: "slide-tools" },
    drawButton(),
    toggle("Mosaic", "Show the patches that stand for the slide (p)", "mosaic", { id: "show-mosaic" }),
    toggle("Tissue", "Show the outline of the tissue (t)", "tissue", { id: "show-tissue" }),
    heatButton(),
  );
}

function drawButton() {
  const draw = toggle("▭ Draw a box", "Draw a box to search for (b)", "drawing", {
    onValue: "query",
    offValue: null,
    id: "draw-box",
    class: "tool primary",
  });
  const able = ({ first }) => (draw.disabled = !first);
  on(["first"], able);
  able(get());
  return draw;
}

function heatButton() {
  const what = "Show how similar every tile is to what was asked for (h)";
  const heat = toggle("Heat", what, "heat", { id: "show-heat" });
  const able = ({ answer }) => (heat.disabled = !answer);
  on(["answer"], able);
  able(get());
  return heat;
}
