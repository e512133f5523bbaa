// Start the page: read what the archive is, then let each module build its part.

import { info } from "./api.js";
import { startAsk } from "./ask.js";
import { $, el, fill } from "./dom.js";
import { startGallery } from "./gallery.js";
import { startKeys } from "./keys.js";
import { startMap } from "./map.js";
import { complain } from "./notices.js";
import { startShare } from "./share.js";
import { startSlideView } from "./slide_view.js";
import { get, on, set } from "./store.js";
import { startWatch } from "./watch.js";

const VIEWS = { gallery: "Slides", map: "Map", slide: "Slide" };

function startViews() {
  const button = ([view, title]) => el("button", { onclick: () => set({ view }) }, title);
  fill($("#views"), Object.entries(VIEWS).map(button));
}

function showView({ view, slideId }) {
  Object.keys(VIEWS).forEach((name, i) => {
    const button = $("#views").children[i];
    if (name === view) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    $(`#${name}`).hidden = name !== view;
  });
  const last = $("#views").lastChild;
  last.hidden = !slideId;
  last.title = last.textContent = slideId ?? "";
  document.title = `${view === "slide" ? slideId : VIEWS[view]} · sish`;
}

// The focus would be lost with the view that it was in: Tab goes on in the new one.
function keepFocus() {
  if (document.activeElement.closest("body, [hidden]").hidden) $("#main").focus({ preventScroll: true });
}

function showArchive({ info }) {
  $("#archive").textContent = `${info.name} · ${info.n_slides.toLocaleString("en")} slides`;
}

async function start() {
  // the token in the address became a cookie: take it out of the address and of the history
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  set({ info: await info() });
  on(["info"], showArchive);
  showArchive(get());
  startViews();
  on(["view", "slideId"], showView);
  on(["view"], keepFocus);
  startGallery();
  startMap();
  startSlideView();
  startAsk();
  startKeys();
  startWatch();
  startShare(); // last: it restores what the address says
  showView(get());
}

start().catch(complain);
