// Ask the server, watch how far it is, and cancel. One question at a time: a new one cancels the one before.

import * as api from "./api.js";
import { complain, notice } from "./notices.js";
import { freshQuestion, isReady } from "./question.js";
import { get, set } from "./store.js";

const LOOK_MS = 400;
let leaving = new AbortController();

export async function ask(question = isReady(get()) ? freshQuestion(get()) : null) {
  if (!question) return;
  cancel();
  const id = api.newId();
  const { signal } = (leaving = new AbortController());
  set({ asking: { id, question, done: 0, total: 0, state: "waiting" } });
  watch(id);
  try {
    const found = await api.search(question, id, { signal });
    set({ answer: { id, question, ...found }, hit: stillOpen(found.results), pair: null });
  } catch (error) {
    if (error.status === 409) notice("The search was cancelled.");
    else complain(error);
  }
  if (get().asking?.id === id) set({ asking: null });
}

// The hit that is open stays so if it was found again. One that came with a link has no matched places yet.
function stillOpen(results) {
  const { hit } = get();
  const again = results.find(({ slide_id }) => slide_id === hit?.slide_id);
  return again ?? (hit && !hit.patches ? hit : null);
}

export function cancelByHand() {
  cancel();
  notice("The search was cancelled.");
}

// The closed connection would cancel it, too; the call says so at once.
function cancel() {
  const { asking } = get();
  if (!asking) return;
  api.cancel(asking.id).catch(() => {}); // it may have ended meanwhile
  leaving.abort();
  set({ asking: null });
}

async function watch(id) {
  while (get().asking?.id === id) {
    await new Promise((done) => setTimeout(done, LOOK_MS));
    const seen = await api.progress(id).catch(() => null); // not begun, or ended
    const { asking } = get();
    if (seen && asking?.id === id) set({ asking: { ...asking, ...seen } });
  }
}
