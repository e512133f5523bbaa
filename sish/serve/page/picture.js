// Small pictures: of slides with frames at places of theirs, and of patches.

import * as api from "./api.js";
import { el, fill, svg } from "./dom.js";

const MOST_KEPT = 500;
const known = new Map(); // facts of slides by id: promises

export function factsOf(slideId) {
  if (!known.has(slideId)) {
    if (known.size >= MOST_KEPT) known.clear();
    known.set(slideId, api.slide(slideId));
    known.get(slideId).catch(() => known.delete(slideId)); // asked again next time
  }
  return known.get(slideId);
}

// The thumbnail of a slide. Frames are {region, angle, kind} in level-0 pixels; kind is a class of ask.css.
// Pictures are asked for once it is known that there are any, so that a slide that is gone makes no errors.
export function slidePicture(slideId, frames = []) {
  const box = el("span", { class: "thumb" });
  ifAvailable(box, slideId, (slide) => [
    el("img", { src: api.thumbnailUrl(slideId), alt: "" }),
    frames.length ? framesOn(slide, frames) : null,
  ]);
  return box;
}

async function ifAvailable(box, slideId, parts) {
  const slide = await factsOf(slideId).catch(() => null);
  fill(box, slide?.available ? parts(slide) : noPicture());
}

// The thumbnail shows the slide's bounds, so an SVG whose user space is the bounds lies on it exactly.
const framesOn = ({ bounds }, frames) =>
  svg("svg", { viewBox: bounds.join(" "), "aria-hidden": "true" }, frames.map(frame));

function frame({ region: [x, y, width, height], angle = 0, kind }) {
  const turn = `rotate(${angle} ${x + width / 2} ${y + height / 2})`;
  return svg("rect", { x, y, width, height, transform: turn, class: kind });
}

// A patch of a slide, or of the image that was asked for (its pixels are its level 0).
export function patchPicture(slideId, xy, size) {
  if (!xy) return noPicture("place not known");
  const box = el("span", { class: "patch" });
  ifAvailable(box, slideId, () => [
    el("img", { src: api.patchUrl(slideId, xy, size), alt: "", loading: "lazy" }),
  ]);
  return box;
}

export function queryPatchPicture({ question, query }, xy, size) {
  if (!question.image) return patchPicture(question.slide_id, xy, size);
  if (!xy) return noPicture("place not known");
  const side = query.patch_l0_px;
  const crop = svg("svg", {
    viewBox: `${xy[0]} ${xy[1]} ${side} ${side}`,
    class: "patch",
    "aria-hidden": "true",
  });
  crop.append(svg("image", { href: question.image }));
  return crop;
}

const noPicture = (why = "no picture") => el("span", { class: "no-picture" }, why);
