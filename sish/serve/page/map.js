// The slides as points: slides with similar patches lie near each other. Colour and shape tell the label.

import * as api from "./api.js";
import { $, el, fill } from "./dom.js";
import { count, openSlide } from "./gallery.js";
import { startLegend } from "./legend.js";
import { MapCard } from "./map_card.js";
import { Palette } from "./palette.js";
import { Scatter } from "./scatter.js";
import { get, on } from "./store.js";

const METHODS = { "t-sne": "t-SNE", pca: "principal components" };
const LISTED = 30; // slides in the list beside the map
const NAME = "Map of slides: arrows move, plus and minus zoom, 0 shows all; Tab leads to a list of slides";

let asked = null; // the state of the archive whose map was asked for
let places = null; // GET /api/map, and the number of each id in it
let scatter = null;
let palette = null;

export function startMap() {
  const canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": NAME });
  const cross = el("div", { class: "cross", "aria-hidden": "true" });
  const frame = el("div", { class: "map-frame" }, canvas, cross);
  const card = new MapCard(frame);
  scatter = new Scatter(canvas, {
    pointed: (i, pixel) => {
      canvas.classList.toggle("on-point", i >= 0);
      if (i < 0) card.hide();
      else card.show(places.slide_ids[i], places.label[i], pixel);
    },
    chosen: (i) => openSlide(places.slide_ids[i]),
    moved: showList,
  });
  frame.append(buttons(scatter.camera));
  $("#map").append(frame, side(), el("p", { class: "map-told", role: "status" }));

  on(["view", "info"], () => get().view === "map" && look());
  on(["answer", "slideId"], ringAnswer);
}

function side() {
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Labels" });
  const list = el("ol", { class: "map-list", "aria-label": "Slides in the middle of the map" });
  const title = (text) => el("h2", {}, text);
  return el("div", { class: "map-side" }, title("Labels"), legend, title("In the middle"), list);
}

function buttons(camera) {
  const button = (text, title, onclick) => el("button", { title, "aria-label": title, onclick }, text);
  return el(
    "div",
    { class: "map-buttons", role: "group", "aria-label": "View of the map" },
    button("+", "Nearer (+)", () => camera.zoomBy(1.6)),
    button("−", "Farther (-)", () => camera.zoomBy(1 / 1.6)),
    button("All", "All slides (0)", () => camera.reset()),
  );
}

// Fetch the map, once for each state of the archive.
async function look() {
  const { info } = get();
  if (asked === info.generation) return;
  asked = info.generation;
  fill($(".map-told"), `Laying out ${count(info.n_slides)} slides, once for each state of the archive …`);
  try {
    show(await api.map(), info);
  } catch (error) {
    $("#map").classList.remove("shown");
    asked = null; // try again when the view is opened again
    fill($(".map-told"), `There is no map: ${error.message}`);
  }
}

function show(found, info) {
  const numbers = new Map(found.slide_ids.map((id, i) => [id, i]));
  places = { ...found, numbers };
  palette = Palette.of(info);
  const [x, y] = [0, 1].map((axis) => Float32Array.from(found.xy, (place) => place[axis]));
  startLegend($("#map .legend"), found.label, palette, (groups) => {
    scatter.show(x, y, groups);
    showList();
  });
  $("#map").classList.add("shown");
  ringAnswer();
}

// Rings around the slide in view and the slides of the answer.
function ringAnswer() {
  if (!places) return;
  const { answer, slideId } = get();
  const rings = (answer?.results ?? []).map(({ slide_id }) => ({ id: slide_id, colour: css("--match") }));
  rings.push({ id: slideId, colour: css("--query") });
  const known = rings.filter(({ id }) => places.numbers.has(id));
  scatter.ring(known.map(({ id, colour }) => ({ i: places.numbers.get(id), colour })));
  const told = toldOf(places, known.length);
  if ($(".map-told").textContent !== told) fill($(".map-told"), told); // screen readers read what is new
}

function toldOf({ numbers, method }, ringed) {
  const drawn = `${count(numbers.size)} slides by ${METHODS[method] ?? method}.`;
  const rings = ringed ? " Ringed: the open slide in blue, slides of the answer in orange." : "";
  return `${drawn} Slides of similar tissue lie near each other; the axes have no meaning.${rings}`;
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function showList() {
  if (places) fill($(".map-list"), scatter.nearest(LISTED).map(listItem));
}

function listItem(i) {
  const id = places.slide_ids[i];
  const point = () => scatter.ring([{ i, colour: getComputedStyle(scatter.canvas).color }]);
  const button = el("button", {
    onclick: () => openSlide(id),
    onfocus: point,
    onmouseenter: point,
    onblur: ringAnswer,
    onmouseleave: ringAnswer,
  });
  button.append(palette.icon(places.label[i]), el("span", { class: "value-name" }, id));
  return el("li", {}, button);
}
