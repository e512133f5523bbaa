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

function showView({ view, slideId }) {
  for (const name of Object.keys(VIEWS)) $(`#${name}`).hidden = name !== view;
  document.title = `${view === "slide" ? slideId : VIEWS[view]} · sish`;
  fill(
    $("#views"),
    Object.entries(VIEWS)
      .filter(([name]) => name !== "slide" || slideId)
      .map(([name, title]) =>
        el(
          "button",
          { "aria-current": name === view ? "page" : null, onclick: () => set({ view: name }) },
          name === "slide" ? slideId : title,
        ),
      ),
  );
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
  on(["view", "slideId"], showView);
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
