// A row of a virtual grid: its element and its cells.

import { el } from "./dom.js";

const REST_MS = 100; // a row that stays this long gets its pictures: rows that fly past do not

export function makeRow(number, height) {
  const row = el("div", { role: "row", class: "grid-row", "aria-rowindex": number + 1 });
  row.style.transform = `translateY(${number * height}px)`;
  return row;
}

// Show the items from start on, as far as they are here. A cell whose item has not come keeps what it shows.
export function fillRow(row, { source, start, columns, active, fill }) {
  const count = Math.max(0, Math.min(columns, source.total - start));
  while (row.children.length > count) row.lastChild.remove();
  while (row.children.length < count) row.append(emptyCell(row.children.length));
  const loads = [];
  [...row.children].forEach((cell, column) => {
    const item = source.at(start + column);
    cell.dataset.index = start + column;
    cell.tabIndex = start + column === active ? 0 : -1;
    if (item && cell.filled !== item) loads.push(fill(cell, item));
    cell.filled = item;
  });
  if (loads.length) row.resting = setTimeout(() => loads.forEach((load) => load()), REST_MS);
}

export function dropRow(row) {
  clearTimeout(row.resting);
  row.remove();
}

const emptyCell = (column) => el("div", { role: "gridcell", class: "cell", "aria-colindex": column + 1 });

export const indexOf = (target) => Number(target.closest("[role=gridcell]").dataset.index);
