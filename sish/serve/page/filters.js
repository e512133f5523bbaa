// The search over words and the filters of the gallery. They are `filter` in the store: words, and conditions
// by column in the grammar of sish.filters ("=TEXT" is exactly that text; ">=50", "50..70", "!=TEXT").

import { el, fill } from "./dom.js";
import { get, on, set } from "./store.js";

const TYPING_MS = 180;
const CONDITION = /^[<>=!]|\.\./;
const FEW = 12; // values that are shown without a box to find one
const TITLES = { label: "Label", site: "Site", patient: "Patient" };
const OPEN = ["label", "site"]; // columns that are unfolded at first

// leave() moves on to the slides: for Enter or the arrow down in the search.
export function startFilters(parent, leave) {
  const chips = el("div", { class: "filter-chips", "aria-label": "Filters in use", role: "group" });
  const columns = el("div", { class: "facets" });
  const search = searchBox(leave);
  parent.setAttribute("role", "search");
  parent.append(search, chips, columns);
  const showColumns = () => fill(columns, get().info.columns.filter(tellsApart).map(facet));

  on(["info"], showColumns);
  on(["filter"], () => {
    fill(chips, chipsOf());
    if (search.value !== get().filter.query) search.value = get().filter.query;
    for (const box of columns.querySelectorAll("input[type=checkbox]")) {
      box.checked = conditions(box.name).includes(box.value);
    }
  });
  showColumns();
}

function searchBox(leave) {
  let typing = null;
  const input = el("input", {
    type: "search",
    id: "search-slides",
    placeholder: "Search slides",
    "aria-label": "Search slides",
    "aria-keyshortcuts": "/",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => change({ query: input.value }), TYPING_MS);
    },
    onkeydown: (event) => {
      if (event.key !== "ArrowDown" && event.key !== "Enter") return;
      event.preventDefault();
      leave();
    },
  });
  return input;
}

// A column all of whose slides have the same value filters nothing.
const tellsApart = ({ distinct, values }) =>
  distinct > 1 || (distinct === 1 && values[0].count < get().info.n_slides);

function facet(column) {
  const { name, values, distinct } = column;
  const list = el("div", { class: "values", role: "group", "aria-label": titleOf(name) });
  const most = values[0].count;
  const items = values.map(({ value, count }) => valueItem(name, value, count, most));
  const details = el(
    "details",
    { open: OPEN.includes(name) },
    el("summary", {}, titleOf(name), el("span", { class: "soft" }, ` ${distinct.toLocaleString("en")}`)),
  );
  if (distinct > FEW) details.append(findBox(column, items));
  list.append(...items);
  if (distinct > values.length) {
    const all = distinct.toLocaleString("en");
    list.append(el("p", { class: "soft" }, `The ${values.length} commonest of ${all}.`));
  }
  details.append(list);
  return details;
}

function valueItem(name, value, count, most) {
  const condition = `=${value}`;
  const box = el("input", {
    type: "checkbox",
    "aria-label": `${value}, ${count.toLocaleString("en")} slides`,
    name,
    value: condition,
    onchange: () => toggle(name, condition, box.checked),
  });
  box.checked = conditions(name).includes(condition);
  const bar = el("span", { class: "bar", style: { width: `${(100 * count) / most}%` } });
  const told = el("span", { class: "count" }, count.toLocaleString("en"));
  const text = el("span", { class: "value-name", title: value }, value);
  return el("label", { class: "value" }, box, text, told, bar);
}

// Typing hides the values without the word; Enter takes those that are left, or a condition as it is typed.
function findBox({ name, values }, items) {
  const holds = (value, word) => value.toLowerCase().includes(word.toLowerCase());
  const input = el("input", {
    type: "text",
    class: "find",
    "aria-label": `Find in ${titleOf(name)}, or type a condition and press Enter`,
    placeholder: "find, or a condition: >=50",
    oninput: () => {
      items.forEach((item, i) => (item.hidden = !holds(values[i].value, input.value)));
    },
    onkeydown: (event) => {
      const typed = input.value.trim();
      if (event.key !== "Enter" || !typed) return;
      event.preventDefault();
      const left = CONDITION.test(typed) ? [] : values.filter(({ value }) => holds(value, typed));
      take(name, left.length ? left.map(({ value }) => `=${value}`) : [typed]);
      input.value = "";
      items.forEach((item) => (item.hidden = false));
    },
  });
  return input;
}

function chipsOf() {
  const pairs = Object.entries(get().filter.where).flatMap(([name, all]) => all.map((one) => [name, one]));
  const chips = pairs.map(([name, condition]) => {
    const text = `${titleOf(name)}: ${condition.replace(/^=/, "")}`;
    const drop = () => toggle(name, condition, false);
    const told = { class: "filter-chip", "aria-label": `Remove ${text}` };
    return el("button", { ...told, onclick: drop }, `${text} ×`);
  });
  const clear = () => change({ where: {} });
  if (pairs.length > 1) chips.push(el("button", { class: "filter-chip", onclick: clear }, "Clear all"));
  return chips;
}

const titleOf = (name) => TITLES[name] ?? name;

const conditions = (name) => get().filter.where[name] ?? [];

function toggle(name, condition, wanted) {
  if (wanted) return take(name, [condition]);
  const where = { ...get().filter.where, [name]: conditions(name).filter((one) => one !== condition) };
  if (!where[name].length) delete where[name];
  change({ where });
}

function take(name, more) {
  change({ where: { ...get().filter.where, [name]: [...new Set([...conditions(name), ...more])] } });
}

const change = (changes) => set({ filter: { ...get().filter, ...changes } });
