// The card beside the pointer on the map: a slide's thumbnail, id and label.

import * as api from "./api.js";
import { el, fill } from "./dom.js";

const REST_MS = 120; // before a slide's thumbnail is asked for
const AWAY_PX = 18; // from the pointer

export class MapCard {
  #card = el("div", { class: "map-card", hidden: true });
  #shown = null;
  #resting = null;

  constructor(frame) {
    this.frame = frame;
    frame.append(this.#card);
  }

  show(id, label, pixel) {
    this.#card.hidden = false;
    if (id !== this.#shown) this.#write(id, label);
    this.#place(pixel);
  }

  hide() {
    clearTimeout(this.#resting);
    this.#card.hidden = true;
    this.#shown = null;
  }

  #write(id, label) {
    const picture = el("div", { class: "card-picture" });
    const name = el("div", { class: "card-id" }, id);
    fill(this.#card, picture, name, el("div", { class: "card-label" }, label || "no label"));
    this.#shown = id;
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => showPicture(picture, id), REST_MS);
  }

  #place([x, y]) {
    const { offsetWidth: width, offsetHeight: height } = this.#card;
    const left = x + AWAY_PX + width > this.frame.clientWidth ? x - AWAY_PX - width : x + AWAY_PX;
    const top = Math.max(8, Math.min(y, this.frame.clientHeight - height - 8));
    Object.assign(this.#card.style, { left: `${left}px`, top: `${top}px` });
  }
}

// Whether a slide has pictures is asked first: a thumbnail that is refused would be an error in the console.
async function showPicture(picture, id) {
  const none = (error) => ({ available: false, reason: error.message });
  const { available, reason } = await api.slide(id).catch(none);
  if (available) fill(picture, el("img", { class: "loaded", alt: "", src: api.thumbnailUrl(id) }));
  else fill(picture, el("span", { class: "card-none", title: reason }, "No picture"));
}
