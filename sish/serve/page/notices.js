// Short messages at the edge of the page, which screen readers read out.

import { $, el } from "./dom.js";

const SHOWN_MS = 8000;

export function notice(text, kind = "info") {
  const card = el("div", { class: `notice ${kind}` }, text);
  card.append(el("button", { "aria-label": "Close this message", onclick: () => card.remove() }, "×"));
  $("#notices").append(card);
  if (kind === "info") setTimeout(() => card.remove(), SHOWN_MS);
}

export const complain = (error) => {
  if (error.name !== "AbortError") notice(error.message, "error");
};
