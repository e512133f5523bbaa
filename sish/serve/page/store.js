// What the page shows now. Modules read it, change it with set(), and listen with on(); none calls another's view.

const state = {
  info: null, // GET /api/info
  view: "gallery", // "gallery", "map" or "slide"
  filter: { query: "", where: {} }, // of the gallery: words, and conditions by column (sish.filters)
  slideId: null, // the slide in the first viewer
  slide: null, // its GET /api/slides/{id}
  box: null, // what was drawn on it to search for: {region: [x, y, w, h], angle}, level-0 pixels
  drawing: null, // null, or what the next box is for: "query", "positive" or "negative"
  drawn: null, // the last box that was finished: {purpose, slideId, region, angle}
  draft: null, // the question that the panel puts together: see question.js
  asking: null, // the question that is being answered: {id, question, done, total}
  answer: null, // the answer that the panel shows: {id, question, query, ranking, note, results}
  past: [], // the answers so far, oldest first
  hit: null, // the result of the answer that the second viewer shows, one of answer.results
  pair: null, // the matched pair that is pointed at: {query_xy, xy, hamming, query_row, row}
  aim: null, // the pair that both viewers bring to their middle
  first: null, // the pane (pane.js) that shows the slide; null while there is none, or it has no pictures
  second: null, // the pane that shows the hit
  mosaic: false, // whether the patches of the mosaic are outlined
  tissue: false, // whether the tissue is outlined
  linked: true, // whether the two viewers move together at equal um per pixel
  heat: false, // whether both viewers show the similarity of every tile
};

const listeners = [];

export const get = () => state;

// set({view: "map", ...}): listeners of the changed keys are called once, after all keys are set.
export function set(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const { keys, listener } of [...listeners]) {
    if (keys.some((key) => changed.includes(key))) listener(state);
  }
}

export function on(keys, listener) {
  listeners.push({ keys, listener });
}
