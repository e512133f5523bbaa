// The questions asked so far: go back, forward, or to any of them. The same entries make a session's file.

import { $, el, fill } from "./dom.js";
import { goTo } from "./go.js";
import { count, inWords } from "./question.js";
import { openSession, saveSession } from "./session.js";
import { get, on, set } from "./store.js";

const MOST_KEPT = 64; // as the server keeps

export function startHistory() {
  on(["answer"], remember);
  on(["answer", "past"], showHistory);
  document.addEventListener("keydown", undoByKey);
  showHistory(get());
}

function remember({ answer, past }) {
  if (answer && !past.includes(answer)) set({ past: [...past, answer].slice(-MOST_KEPT) });
}

function step(by) {
  const { past, answer } = get();
  const next = past[past.indexOf(answer) + by];
  if (next) goTo(next);
}

function undoByKey(event) {
  const isTyping = event.target.closest("input, select, textarea");
  if (isTyping || !(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
  event.preventDefault();
  step(event.shiftKey ? 1 : -1);
}

function showHistory({ past, answer }) {
  const now = past.indexOf(answer);
  const button = (id, words, by) =>
    el("button", { id, disabled: !past[now + by] || now < 0, onclick: () => step(by) }, words);
  const isOpen = $("#history details")?.open;
  fill(
    $("#history"),
    el("div", { class: "row" }, button("history-back", "← Undo", -1), button("history-forward", "Redo →", 1)),
    el(
      "details",
      { open: isOpen },
      el("summary", {}, `Questions asked (${past.length})`),
      el(
        "ol",
        { class: "past" },
        past.map((one) => el("li", {}, entry(one, one === answer))),
      ),
      el("div", { class: "row" }, sessionButtons(past)),
    ),
  );
}

function entry(one, isNow) {
  const words = `${inWords(one.question)} (${count(one.results.length, "hit")})`;
  return el("button", { "aria-current": isNow ? "step" : null, onclick: () => goTo(one) }, words);
}

function sessionButtons(past) {
  const file = el("input", { type: "file", accept: ".json,application/json", hidden: true });
  file.addEventListener(
    "change",
    () => file.files[0] && openSession(file.files[0]).then((last) => last && goTo(last)),
  );
  return [
    el("button", { id: "session-save", disabled: !past.length, onclick: saveSession }, "Save session"),
    el("button", { id: "session-open", onclick: () => file.click() }, "Open session"),
    file,
  ];
}
