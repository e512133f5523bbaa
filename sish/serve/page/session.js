// A session as a JSON file: the questions and answers so far, to be opened again another day.

import { el } from "./dom.js";
import { notice } from "./notices.js";
import { get, set } from "./store.js";

const VERSION = 1;

export function saveSession() {
  const { past, answer, info } = get();
  const session = {
    sish_session: VERSION,
    archive: info.name,
    generation: info.generation,
    saved: new Date().toISOString(),
    now: past.indexOf(answer),
    past,
  };
  save(
    new Blob([JSON.stringify(session, null, 1)], { type: "application/json" }),
    `${info.name}-session.json`,
  );
}

export function save(blob, name) {
  const href = URL.createObjectURL(blob);
  el("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000); // the browser has taken it by then
}

// Returns the answer that the session showed. The server may have forgotten it: it is marked as from a file.
export async function openSession(file) {
  const session = parsed(await file.text());
  if (!session) return notice(`Got ${file.name}, which is no session; want a file of Save session.`, "error");
  const { info } = get();
  if (session.archive !== info.name)
    notice(`The session is of ${session.archive}; this archive is ${info.name}.`, "error");
  else if (session.generation !== info.generation)
    notice("The archive was changed since: ask again for new hits.");
  const past = session.past.map((answer) => ({ ...answer, fromFile: true }));
  set({ past });
  return past[session.now] ?? past.at(-1);
}

function parsed(text) {
  try {
    const session = JSON.parse(text);
    const isAnswer = ({ question, query, results }) => question && query && Array.isArray(results);
    return session.sish_session === VERSION && session.past.every(isAnswer) ? session : null;
  } catch {
    return null;
  }
}
