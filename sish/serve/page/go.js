// Where clicks lead: to a hit beside what was asked for, to an earlier answer, and to the same question again.

import { ask } from "./asking.js";
import { boxOf, draftOf, refinedQuestion } from "./question.js";
import { get, set } from "./store.js";

// The slide and the box of a question in the first viewer. An image has none: any slide may stay.
function home(question, otherwise = null) {
  const slideId = question.slide_id ?? get().slideId ?? otherwise;
  const moved = slideId === get().slideId ? {} : { slideId, slide: null };
  return { view: slideId ? "slide" : get().view, ...moved, box: boxOf(question) };
}

export function openHit(hit) {
  set({ ...home(get().answer.question, hit.slide_id), hit, pair: null });
}

export function goTo(answer) {
  set({ ...home(answer.question), draft: draftOf(answer.question), answer, hit: null, pair: null });
}

// What was asked before, with what was marked since, also on other slides.
export function askAgain() {
  const question = refinedQuestion(get());
  set({ ...home(question), pair: null });
  ask(question);
}
