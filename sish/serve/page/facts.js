// What is known of a slide, as a table that can be opened.

import { el } from "./dom.js";

const number = (value) => value.toLocaleString("en");

function told(slide) {
  const size = slide.width ? `${number(slide.width)} × ${number(slide.height)} px` : null;
  const source = slide.mpp_source ? ` (${slide.mpp_source})` : "";
  const scale = slide.mpp ? `${slide.mpp} µm/px${source}` : "not known";
  return {
    label: slide.label,
    site: slide.site,
    patient: slide.patient,
    size,
    scale,
    patches: `${number(slide.n_patches)} in the mosaic`,
    ...slide.metadata,
    ...slide.properties,
  };
}

export function slideFacts(slide) {
  const facts = Object.entries(told(slide)).filter(([, value]) => ![null, undefined, ""].includes(value));
  const row = ([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, String(value)));
  return [el("summary", {}, `About ${slide.slide_id}`), el("table", {}, facts.map(row))];
}
