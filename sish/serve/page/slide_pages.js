// The slides that pass a filter, fetched page by page as they come into view. Few pages are kept.

import * as api from "./api.js";

const PAGE = 100;
const MOST_PAGES = 60;

export class SlidePages {
  #asked;
  #arrived;
  #pages = new Map(); // number of a page: its slides, or null while it is on its way
  #leaving = new AbortController();

  // arrived() is called whenever slides have come, failed(error) if they do not come.
  constructor(filter, arrived, failed) {
    this.total = 0;
    this.#asked = asked(filter);
    this.#arrived = arrived;
    this.failed = failed;
  }

  at(index) {
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  // Ask for the slides from first to last that are not here.
  want(first, last) {
    for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page++) {
      if (!this.#pages.has(page)) this.#fetch(page);
    }
  }

  close() {
    this.#leaving.abort();
  }

  async #fetch(page) {
    this.#pages.set(page, null);
    try {
      const found = await api.slides(
        { ...this.#asked, offset: page * PAGE, limit: PAGE },
        { signal: this.#leaving.signal },
      );
      this.total = found.total;
      this.#pages.set(page, found.slides);
      this.#forget(page);
      this.#arrived();
    } catch (error) {
      this.#pages.delete(page);
      if (error.name !== "AbortError") this.failed(error);
    }
  }

  // Forget the pages that lie farthest from the newest one.
  #forget(newest) {
    const farthest = [...this.#pages.keys()].sort((a, b) => Math.abs(b - newest) - Math.abs(a - newest));
    for (const page of farthest.slice(0, Math.max(0, farthest.length - MOST_PAGES))) this.#pages.delete(page);
  }
}

// A filter as GET /api/slides takes it: label, site and patient have parameters of their own.
function asked({ query, where }) {
  const words = { query, where: [] };
  for (const [column, conditions] of Object.entries(where)) {
    if (["label", "site", "patient"].includes(column)) words[column] = conditions;
    else words.where.push(...conditions.map((condition) => `${column}=${condition}`));
  }
  return words;
}
