// All slides as thumbnails, with a search over ids and metadata, and filters.

import { el, fill } from "./dom.js";
import { startFilters } from "./filters.js";
import { Palette } from "./palette.js";
import { fillCard } from "./slide_card.js";
import { SlidePages } from "./slide_pages.js";
import { get, on, set } from "./store.js";
import { VirtualGrid } from "./virtual_grid.js";

const CELL_PX = 212;
const ROW_PX = 246;

export function startGallery() {
  const scroller = el("div", { class: "grid-scroller", tabindex: "-1" });
  const told = el("p", { class: "gallery-count", role: "status" });
  const empty = el("div", { class: "gallery-empty", hidden: true });
  const side = el("div", { class: "filters" });
  const head = el("div", { class: "gallery-head" }, told, hint());
  const list = el("div", { class: "gallery-list" }, head, empty, scroller);
  document.querySelector("#gallery").append(side, list);

  let palette = Palette.of(get().info);
  const grid = new VirtualGrid(scroller, {
    name: "Slides",
    cellWidth: CELL_PX,
    rowHeight: ROW_PX,
    fill: (cell, slide) => fillCard(cell, slide, palette, slide.slide_id === get().slideId),
    open: ({ slide_id }) => openSlide(slide_id),
  });

  function showEmpty(shown) {
    empty.hidden = !shown;
    scroller.hidden = shown;
  }

  let pages = null;
  function look(keepPlace) {
    pages?.close();
    const mine = new SlidePages(get().filter, arrived, failed);
    pages = mine;
    mine.want(0, 0);

    function arrived() {
      showEmpty(mine.total === 0);
      fill(empty, el("p", {}, "No slide has all of this."), clearButton());
      fill(told, countOf(mine.total));
      if (grid.source === mine) grid.update();
      else grid.show(mine, keepPlace);
    }

    function failed(error) {
      if (grid.source === mine) return; // a page of a list that shows: it is asked for again on scrolling
      fill(told, "");
      fill(empty, el("p", { role: "alert" }, error.message), clearButton());
      showEmpty(true);
    }
  }

  startFilters(side, () => grid.focus());
  on(["filter"], () => look(false));
  on(["info"], () => {
    palette = Palette.of(get().info);
    look(true);
  });
  on(["slideId"], () => grid.source && grid.refill());
  on(["view"], ({ view }) => view === "gallery" && grid.returned());
  look(false);
}

export const openSlide = (id) =>
  set({ view: "slide", slideId: id, slide: null, box: null, hit: null });

function countOf(total) {
  const all = get().info.n_slides;
  return total === all ? `${count(all)} slides` : `${count(total)} of ${count(all)} slides`;
}

export const count = (number) => number.toLocaleString("en");

const hint = () =>
  el("p", { class: "hint" }, "Open a slide, draw a box on it, and see where else that tissue is.");

const clearButton = () =>
  el("button", { onclick: () => set({ filter: { query: "", where: {} } }) }, "Clear search and filters");
