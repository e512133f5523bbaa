// The answer: what was asked, how it was ranked, and the hits.

import { $, el, fill } from "./dom.js";
import { whyNot } from "./explain.js";
import { hitCard } from "./hit_card.js";
import { describeKeys } from "./keys.js";
import { Palette } from "./palette.js";
import { count, inWords } from "./question.js";
import { get, on } from "./store.js";
import { takeAlong } from "./take_along.js";

const MOST_LABELS = 6;
const RANKINGS = {
  uncertainty: "ranked by uncertainty: places whose matches agree on one label come first",
  similarity: "ranked by similarity: the closest slides come first",
};

export function startAnswer() {
  describeKeys("Hits", [
    ["↑ ↓", "from hit to hit"],
    ["Enter", "open the hit beside the slide"],
    ["Ctrl+Z", "the answer before; with Shift the next"],
  ]);
  on(["answer"], showAnswer);
  on(["hit"], showOpened);
}

function showAnswer({ answer }) {
  const place = $("#answer");
  place.hidden = !answer;
  if (!answer) return fill(place);
  const { results, note } = answer;
  const palette = Palette.of(get().info);
  const found = results.length ? count(results.length, "similar slide") : "No similar slides";
  fill(
    place,
    el("h2", { id: "answer-title" }, found),
    el("p", { class: "soft" }, `${inWords(answer.question)}; ${RANKINGS[answer.ranking] ?? answer.ranking}.`),
    note ? el("p", { class: "note" }, note) : null,
    takeAlong(answer),
    labelCounts(results, palette),
    el(
      "ol",
      { "aria-labelledby": "answer-title", class: "hits", onkeydown: walk },
      results.map((hit) => hitCard(answer, hit, palette)),
    ),
    whyNot(answer),
  );
  $("#ask-status").textContent = `Done: ${found}`;
  place.scrollIntoView(); // the hits are what was waited for
  showOpened(get());
}

function labelCounts(results, palette) {
  const counts = new Map();
  for (const { label } of results) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  if (!most.length) return null;
  const chips = most
    .slice(0, MOST_LABELS)
    .map(([label, n]) => el("li", {}, palette.icon(label), `${label} ${n}`));
  if (most.length > MOST_LABELS) chips.push(el("li", {}, `${most.length - MOST_LABELS} more labels`));
  return el("ul", { class: "chips", "aria-label": "Labels of the hits" }, chips);
}

function showOpened({ hit }) {
  for (const item of document.querySelectorAll(".hit")) {
    const isOpen = item.dataset.slide === hit?.slide_id;
    item.classList.toggle("opened", isOpen);
    item.querySelector(".open").setAttribute("aria-pressed", String(isOpen));
  }
}

// Arrow keys go from hit to hit.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.classList.contains("open")) return;
  const buttons = [...document.querySelectorAll(".hit .open")];
  buttons[buttons.indexOf(event.target) + step]?.focus();
  event.preventDefault();
}
