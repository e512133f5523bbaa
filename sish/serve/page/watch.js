// Look now and then whether another process changed the archive, or the server stopped, and say so.

import * as api from "./api.js";
import { count } from "./gallery.js";
import { notice } from "./notices.js";
import { get, set } from "./store.js";

const EVERY_MS = 10_000;

export function startWatch() {
  let answers = true;
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const info = await api.info();
      if (!answers) notice("The server answers again.");
      answers = true;
      if (info.generation !== get().info.generation) changed(info);
    } catch (error) {
      const told = `The server does not answer (${error.message}). Is sish serve still running?`;
      if (answers) notice(told, "error");
      answers = false;
    }
  }, EVERY_MS);
}

function changed(info) {
  const before = get().info.n_slides;
  set({ info });
  const slides = info.n_slides === before ? "" : `: ${count(before)} slides became ${count(info.n_slides)}`;
  const ask = get().answer ? " The answer beside is of the archive before; ask again for a new one." : "";
  notice(`The archive changed${slides}.${ask}`);
}
