// The labels of the map with their marks and counts; each can be hidden.

import { el, fill } from "./dom.js";

const MOST = 30; // labels with a mark of their own: see palette.js
const OTHERS = "other labels";
const NONE = "no label";

// labels: of each point. show(groups) gets the points of the labels that are not hidden, the rarest on top.
export function startLegend(parent, labels, palette, show) {
  const groups = grouped(labels, palette);
  const hidden = new Set();
  const buttons = groups.map(({ name, label, members }) => {
    const told = { class: "legend-item", title: `Hide or show ${name}` };
    const button = el(
      "button",
      { ...told, onclick: () => toggle(name) },
      palette.icon(label),
      el("span", { class: "value-name" }, name),
      el("span", { class: "count" }, members.length.toLocaleString("en")),
    );
    button.dataset.name = name;
    return button;
  });
  const only = el("button", { class: "legend-all", onclick: () => setHidden([]) }, "Show all");

  function toggle(name) {
    setHidden(hidden.has(name) ? [...hidden].filter((other) => other !== name) : [...hidden, name]);
  }

  function setHidden(names) {
    hidden.clear();
    for (const name of names) hidden.add(name);
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.name)));
    }
    only.hidden = !hidden.size;
    show(groups.filter(({ name }) => !hidden.has(name)));
  }

  fill(parent, buttons, only);
  setHidden([]);
}

// Points by label, the commonest label first; labels beyond the first MOST are one group.
function grouped(labels, palette) {
  const members = new Map();
  labels.forEach((label, i) => {
    const name = label || NONE;
    if (!members.has(name)) members.set(name, []);
    members.get(name).push(i);
  });
  const named = [...members].filter(([name]) => name !== NONE).sort((a, b) => b[1].length - a[1].length);
  const groups = named.slice(0, MOST).map(([name, those]) => group(name, name, those, palette));
  const rest = named.slice(MOST).flatMap(([, those]) => those);
  if (rest.length) groups.push(group(OTHERS, null, rest, palette));
  if (members.has(NONE)) groups.push(group(NONE, null, members.get(NONE), palette));
  return groups;
}

const group = (name, label, members, palette) => ({ name, label, members, mark: palette.mark(label) });
