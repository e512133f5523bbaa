// A slide of the gallery: its thumbnail, its id, its label and where it comes from.

import { thumbnailUrl } from "./api.js";
import { el, fill } from "./dom.js";

const THUMBNAIL_PX = 256;
const GONE = "No picture: open it to see why";
const without = new Set(); // ids whose thumbnail the server did not give

// Write a card into a cell; the function that it returns starts the loading of the thumbnail.
export function fillCard(cell, slide, palette, isOpen) {
  const picture = el("div", { class: "card-picture" });
  const facts = [slide.site, slide.patient].filter(Boolean).join(" · ");
  cell.setAttribute("title", slide.slide_id);
  if (isOpen) cell.setAttribute("aria-current", "true");
  else cell.removeAttribute("aria-current");
  fill(
    cell,
    picture,
    el("div", { class: "card-id" }, slide.slide_id),
    el("div", { class: "card-label" }, slide.label && palette.icon(slide.label), slide.label || "no label"),
    el("div", { class: "card-facts" }, facts || `${slide.n_patches} patches`),
  );
  return () => showThumbnail(picture, slide, palette);
}

function showThumbnail(picture, { slide_id, width, label }, palette) {
  const noPicture = (why) => fill(picture, el("span", { class: "card-none" }, palette.icon(label), why));
  if (!width) return noPicture("Indexed from features"); // no file: do not ask for what is not there
  if (without.has(slide_id)) return noPicture(GONE);
  const image = el("img", { alt: "", decoding: "async", draggable: "false" });
  image.addEventListener("load", () => image.classList.add("loaded"));
  image.addEventListener("error", () => {
    without.add(slide_id);
    noPicture(GONE);
  });
  image.src = thumbnailUrl(slide_id, THUMBNAIL_PX);
  fill(picture, image);
}
