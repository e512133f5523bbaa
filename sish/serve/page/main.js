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

const VIEWS = { gallery: "Slides", map: "Map", slide: "Slide" };

function showView({ view, slideId }) {
  for (const name of Object.keys(VIEWS)) $(`#${name}`).hidden = name !== view;
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

async function start() {
  // the token in the address became a cookie: take it out of the address and of the history
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  set({ info: await info() });
  $("#archive").textContent = `${get().info.name} · ${get().info.n_slides} slides`;
  on(["view", "slideId"], showView);
  startGallery();
  startMap();
  startSlideView();
  startAsk();
  startKeys();
  startShare(); // last: it restores what the address says
  showView(get());
}

start().catch(complain);
