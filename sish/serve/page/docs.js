// Show the OpenAPI description of the server as a page.

import { $, el, fill } from "./dom.js";

function parameters(operation) {
  const fields = operation.requestBody?.content["application/json"].schema.properties ?? {};
  const named = operation.parameters.filter((one) => one.in === "query").map((one) => [one.name, one.description]);
  return [...named, ...Object.entries(fields).map(([name, field]) => [name, field.description])];
}

function article(path, method, operation) {
  const told = parameters(operation);
  return el(
    "article",
    {},
    el("h2", {}, el("code", {}, method.toUpperCase()), " ", el("code", {}, path)),
    el("div", {}, operation.summary),
    told.length ? el("dl", {}, told.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]).flat()) : null,
    el("div", {}, `Answers ${Object.keys(operation.responses[200].content)[0]}`),
  );
}

const description = await (await fetch("/api/openapi.json")).json();
$("#about").textContent = description.info.description;
fill(
  $("#calls"),
  Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => article(path, method, operation)),
  ),
);
