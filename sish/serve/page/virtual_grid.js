// A grid of any number of cells, of which only the visible rows (and a few around them) are in the document.
// Arrow keys move between cells; one cell at a time can be reached with Tab.

import { el } from "./dom.js";
import { stepOf } from "./grid_keys.js";
import { dropRow, fillRow, indexOf, makeRow } from "./grid_row.js";

const AROUND = 2; // rows kept above and below the visible ones
const FETCH_EVERY_MS = 80; // while scrolling

export class VirtualGrid {
  #rows = new Map(); // number of a row: its element
  #active = 0; // the cell that Tab reaches
  #fetching = null;

  // source has total, at(index) and want(first, last); fill(cell, item) writes a cell and returns a function
  // that loads its picture; open(item) is called for a click or Enter.
  constructor(scroller, { name, cellWidth, rowHeight, fill, open }) {
    Object.assign(this, { scroller, cellWidth, rowHeight, fill, open, columns: 1, source: null, place: 0 });
    this.plane = el("div", { role: "grid", "aria-label": name, class: "grid-plane" });
    scroller.append(this.plane);
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resize()).observe(scroller);
    this.plane.addEventListener("click", (event) => this.#openCell(event.target));
    this.plane.addEventListener("keydown", (event) => this.#key(event));
    this.plane.addEventListener("focusin", (event) => this.#activate(indexOf(event.target)));
  }

  // Show another list, whose first items are here, from its start or (keepPlace) from where this one stands.
  show(source, keepPlace = false) {
    this.source = source;
    if (!keepPlace) this.scroller.scrollTop = this.place = 0;
    this.#active = keepPlace ? Math.min(this.#active, Math.max(0, source.total - 1)) : 0;
    this.update();
  }

  // Items of the source have come: show them.
  update() {
    if (!this.source || !this.scroller.clientWidth) return; // hidden: returned() will
    this.#measure();
    for (const [number, row] of this.#rows) this.#fillRow(number, row);
    this.#render();
  }

  // Write all cells again: what they show beside their items has changed.
  refill() {
    for (const row of this.#rows.values()) for (const cell of row.children) cell.filled = null;
    this.update();
  }

  focus(index = this.#active) {
    if (!this.source?.total) return;
    this.#active = Math.max(0, Math.min(index, this.source.total - 1));
    this.#scrollTo(Math.floor(this.#active / this.columns));
    this.#render();
    this.#cell(this.#active)?.focus({ preventScroll: true });
  }

  // The view is shown again: so are its place and its focus.
  returned() {
    this.#resize();
    this.update();
    this.scroller.scrollTop = this.place;
    if (document.activeElement.id === "main") this.focus(); // it went with the view before
  }

  #scrolled() {
    if (this.scroller.clientHeight) this.place = this.scroller.scrollTop; // not when it is being hidden
    this.#render();
  }

  #resize() {
    if (!this.scroller.clientWidth || !this.source) return; // hidden
    const columns = this.columns;
    const first = Math.floor(this.scroller.scrollTop / this.rowHeight) * columns;
    this.#measure();
    if (columns !== this.columns) this.#rearrange(first);
    else this.#render();
  }

  // Other columns: all rows are made anew, and the first visible item stays the first.
  #rearrange(first) {
    const focused = this.plane.contains(document.activeElement);
    for (const number of [...this.#rows.keys()]) this.#drop(number);
    this.scroller.scrollTop = Math.floor(first / this.columns) * this.rowHeight;
    this.#render();
    if (focused) this.focus();
  }

  #measure() {
    const total = this.source.total;
    this.columns = Math.max(1, Math.floor(this.scroller.clientWidth / this.cellWidth));
    this.plane.style.height = `${Math.ceil(total / this.columns) * this.rowHeight}px`;
    this.plane.style.setProperty("--columns", this.columns);
    this.plane.setAttribute("aria-rowcount", Math.ceil(total / this.columns));
    this.plane.setAttribute("aria-colcount", this.columns);
  }

  #visibleRows() {
    const { scrollTop, clientHeight } = this.scroller;
    const last = Math.ceil(this.source.total / this.columns) - 1;
    const bounded = (row) => Math.max(0, Math.min(row, last));
    return [
      bounded(Math.floor(scrollTop / this.rowHeight) - AROUND),
      bounded(Math.floor((scrollTop + clientHeight) / this.rowHeight) + AROUND),
    ];
  }

  #visibleItems() {
    const [first, last] = this.#visibleRows();
    return [first * this.columns, Math.min((last + 1) * this.columns, Math.max(1, this.source.total)) - 1];
  }

  #render() {
    if (!this.source) return;
    const [first, last] = this.#visibleRows();
    const focused = this.plane.contains(document.activeElement);
    // a row that goes would take the focus along
    const kept = focused ? Math.floor(this.#active / this.columns) : -1;
    for (const number of [...this.#rows.keys()]) {
      if ((number < first || number > last) && number !== kept) this.#drop(number);
    }
    if (!this.source.total) return this.#drop(0);
    for (let number = first; number <= last; number++) if (!this.#rows.has(number)) this.#add(number);
    if (!focused && !this.#cell(this.#active)) this.#activate((first + AROUND) * this.columns);
    this.#fetchSoon();
  }

  #fetchSoon() {
    this.#fetching ??= setTimeout(() => {
      this.#fetching = null;
      this.source.want(...this.#visibleItems());
    }, FETCH_EVERY_MS);
  }

  #add(number) {
    const row = makeRow(number, this.rowHeight);
    this.#fillRow(number, row);
    const after = Math.min(...[...this.#rows.keys()].filter((other) => other > number));
    this.plane.insertBefore(row, this.#rows.get(after) ?? null); // in order, for screen readers
    this.#rows.set(number, row);
  }

  #drop(number) {
    const row = this.#rows.get(number);
    if (!row) return;
    dropRow(row);
    this.#rows.delete(number);
  }

  #fillRow(number, row) {
    const { source, columns, fill } = this;
    fillRow(row, { source, start: number * columns, columns, active: this.#active, fill });
  }

  #cell(index) {
    return this.#rows.get(Math.floor(index / this.columns))?.children[index % this.columns];
  }

  #activate(index) {
    const last = this.#cell(this.#active);
    if (last) last.tabIndex = -1;
    this.#active = index;
    const cell = this.#cell(index);
    if (cell) cell.tabIndex = 0;
  }

  #scrollTo(row) {
    const top = row * this.rowHeight;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + clientHeight) {
      this.scroller.scrollTop = top + this.rowHeight - clientHeight;
    }
  }

  #openCell(target) {
    const item = target.closest("[role=gridcell]") && this.source.at(indexOf(target));
    if (item) this.open(item);
  }

  #key(event) {
    if (event.altKey || event.metaKey) return;
    const rowsInView = Math.floor(this.scroller.clientHeight / this.rowHeight);
    const here = { at: this.#active, last: this.source.total - 1, columns: this.columns, rowsInView };
    const step = stepOf(event, here);
    if (event.key === "Enter" || event.key === " ") this.#openCell(event.target);
    else if (step === null) return;
    else if (here.at + step >= 0) this.focus(here.at + step);
    event.preventDefault();
  }
}
