// Take an answer along: a table, the report, and the places for QuPath.

import { download } from "./api.js";
import { ask } from "./asking.js";
import { el } from "./dom.js";
import { complain } from "./notices.js";
import { save } from "./session.js";

const FILES = {
  "hits.csv": ["CSV", "The hits as a table"],
  "report.html": ["Report", "A page with pictures that needs no server"],
  "geojson.zip": ["GeoJSON", "The matched places, to be dragged onto QuPath"],
};

export function takeAlong({ id, question, fromFile }) {
  if (fromFile) {
    const again = el("button", { onclick: () => ask(question) }, "Ask again");
    return el("div", { class: "row" }, el("span", { class: "soft" }, "This answer is from a file."), again);
  }
  const button = ([file, [name, title]]) => el("button", { title, onclick: () => take(id, file) }, name);
  const words = el("span", { class: "soft" }, "Take along:");
  return el("div", { class: "row", id: "take-along" }, words, Object.entries(FILES).map(button));
}

// Fetched by script, so that an error is told here and does not become a file.
async function take(id, file) {
  try {
    save(await download(id, file), `sish-${file}`);
  } catch (error) {
    complain(error);
  }
}
