// Where clicks lead: to a hit beside what was asked for, and to an earlier answer.

import { boxOf, draftOf } from "./question.js";
import { get, set } from "./store.js";

// A hit is shown beside what was asked for, so the first viewer goes back to that slide and box.
export function openHit(hit) {
  const { answer, slideId } = get();
  const asked = answer.question.slide_id ?? slideId ?? hit.slide_id;
  const home = asked === slideId ? {} : { slideId: asked, slide: null };
  set({ view: "slide", ...home, box: boxOf(answer.question), hit, pair: null });
}

// Show an earlier answer, with the slide, the box and the choices that led to it.
export function goTo(answer) {
  const { question } = answer;
  const slideId = question.slide_id ?? get().slideId;
  const moved = slideId === get().slideId ? {} : { slideId, slide: null };
  const view = slideId ? "slide" : get().view;
  set({ draft: draftOf(question), view, ...moved, box: boxOf(question), answer, hit: null, pair: null });
}
