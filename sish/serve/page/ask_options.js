// How to search: number of hits, ranking, the query's own patient, and filters by the archive's columns.

import { ask } from "./asking.js";
import { $, el, fill } from "./dom.js";
import { change } from "./question.js";
import { get, on } from "./store.js";

export function optionsPart() {
  const { info, draft } = get();
  on(["draft"], showOptions);
  const parts = [hitsField(info, draft), rankingField(info), ownPatientField(), filterField(info)];
  return el("details", { id: "ask-options" }, el("summary", {}, "Options"), parts);
}

function hitsField(info, draft) {
  const attributes = { id: "ask-k", type: "number", min: 1, max: info.limits.k, value: draft.k };
  const take = () => change({ k: within(input.value, info.limits.k) });
  const askNow = ({ key }) => {
    if (key !== "Enter") return;
    take();
    ask();
  };
  const input = el("input", { ...attributes, onchange: take, onkeydown: askNow });
  return el("label", { class: "field" }, "Number of hits", input);
}

const within = (text, most) => Math.min(Math.max(Math.round(Number(text)) || 1, 1), most);

function rankingField(info) {
  const choices = {
    auto: `automatic (now: ${info.ranking})`,
    uncertainty: "uncertainty: places with one label first",
    similarity: "similarity: closest slides first",
  };
  const options = Object.entries(choices).map(([value, text]) => el("option", { value }, text));
  const select = el(
    "select",
    { id: "ask-ranking", onchange: () => change({ ranking: select.value }) },
    options,
  );
  return el("label", { class: "field" }, "Ranking", select);
}

function ownPatientField() {
  const toggle = (event) => change({ exclude_patient: event.target.checked });
  const input = el("input", { id: "ask-exclude", type: "checkbox", onchange: toggle });
  return el("label", { class: "check" }, input, "Leave out slides of the same patient");
}

function filterField(info) {
  const columns = info.columns.map(({ name }) => el("option", { value: name }, name));
  if (!columns.length) return null;
  const column = el("select", { "aria-label": "Column", onchange: () => offer(column.value) }, columns);
  const condition = el("input", {
    id: "ask-condition",
    list: "ask-values",
    "aria-label": "Value or condition",
    placeholder: "value, >=50, 50..70, !=value",
    onkeydown: (event) => event.key === "Enter" && add(column.value, condition),
  });
  const button = el("button", { onclick: () => add(column.value, condition) }, "Add");
  const values = el("datalist", { id: "ask-values" });
  const offer = (name) => fill(values, valuesOf(name));
  on(["info"], () => offer(column.value)); // the archive was changed
  offer(column.value);
  return el(
    "fieldset",
    {},
    el("legend", {}, "Only find slides with"),
    el("div", { class: "row" }, column, condition, button, values),
    el("ul", { id: "ask-filters", class: "chips" }),
  );
}

const listed = (name) => get().info.columns.find((column) => column.name === name)?.values ?? [];

const valuesOf = (name) =>
  listed(name).map(({ value, count }) => el("option", { value }, `${value} (${count})`));

function add(column, input) {
  const condition = asText(column, input.value.trim());
  const { where } = get().draft;
  const wanted = where[column] ?? [];
  if (condition && !wanted.includes(condition))
    change({ where: { ...where, [column]: [...wanted, condition] } });
  input.value = "";
}

// A value of the archive that reads like a condition, such as "1..2": after "=", everything is text.
function asText(name, condition) {
  const isValue = listed(name).some(({ value }) => value === condition);
  return isValue && /^[<>=!]|\.\./.test(condition) ? `=${condition}` : condition;
}

function remove(column, condition) {
  const { [column]: wanted, ...where } = get().draft.where;
  const rest = wanted.filter((one) => one !== condition);
  change({ where: rest.length ? { ...where, [column]: rest } : where });
}

// The controls follow the draft, which an earlier question or a file may have set.
function showOptions({ draft }) {
  $("#ask-k").value = draft.k;
  $("#ask-ranking").value = draft.ranking;
  $("#ask-exclude").checked = draft.exclude_patient;
  const filters = Object.entries(draft.where).flatMap(([column, wanted]) =>
    wanted.map((one) => [column, one]),
  );
  const extra = filters.length ? ` (${filters.length === 1 ? "1 filter" : `${filters.length} filters`})` : "";
  $("#ask-options summary").textContent = `Options${extra}`;
  if ($("#ask-filters"))
    fill(
      $("#ask-filters"),
      filters.map(([column, condition]) => chip(column, condition)),
    );
}

function chip(column, condition) {
  const words = `${column}: ${condition}`;
  const drop = { "aria-label": `Remove the filter ${words}`, onclick: () => remove(column, condition) };
  return el("li", {}, words, el("button", drop, "×"));
}
