// Search with an image: chosen as a file, pasted or dropped anywhere on the page. Its scale must be told.

import { ask } from "./asking.js";
import { $, el } from "./dom.js";
import { complain, notice } from "./notices.js";
import { change } from "./question.js";
import { get, on, set } from "./store.js";

const SCALES = [
  ["0.25", "40× objective"],
  ["0.5", "20× objective"],
  ["1", "10× objective"],
  ["2", "5× objective"],
];
const BASE64 = 4 / 3; // bytes of text for a byte of the file

export function startImageQuery() {
  if (!get().info.takes_images) return;
  on(["draft"], showScale);
  document.addEventListener("paste", (event) => take(event, event.clipboardData));
  document.addEventListener("drop", (event) => take(event, event.dataTransfer));
  document.addEventListener(
    "dragover",
    (event) => event.dataTransfer.types.includes("Files") && event.preventDefault(),
  );
  $("#tools").prepend(
    el("button", { id: "tool-image", onclick: () => change({ of: "image" }) }, "Search with an image"),
  );
}

function take(event, data) {
  const file = [...(data?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  load(file).catch(complain);
}

async function load(file) {
  const most = get().info.limits.upload_bytes;
  if (file.size * BASE64 > most) {
    const mb = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
    return notice(
      `Got an image of ${mb(file.size)}; want at most ${mb(most / BASE64)}: crop it, or save it as JPEG.`,
      "error",
    );
  }
  const url = await dataUrlOf(file);
  const { width, height } = await sizeOf(url);
  const mpp = get().draft.image?.mpp ?? null; // of the image before: often the same microscope
  set({ drawing: null });
  change({ of: "image", image: { url, name: file.name || "pasted image", mpp, width, height } });
  $("#ask-mpp").focus();
}

const dataUrlOf = (file) =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error(`got ${file.name}, which cannot be read; try another file`));
    reader.readAsDataURL(file);
  });

async function sizeOf(url) {
  const image = new Image();
  image.src = url;
  // a TIFF cannot be shown by most browsers, yet the server reads it
  await image.decode().catch(() => {});
  return { width: image.naturalWidth, height: image.naturalHeight };
}

export function imagePart({ draft, info }) {
  if (!info.takes_images)
    return el("p", { class: "soft" }, "This archive holds features made elsewhere: it takes no images.");
  const file = el("input", { id: "ask-file", type: "file", accept: "image/*", hidden: true });
  file.addEventListener("change", () => file.files[0] && load(file.files[0]).catch(complain));
  const choose = el(
    "button",
    { onclick: () => file.click() },
    draft.image ? "Choose another image" : "Choose an image",
  );
  return el(
    "div",
    { class: "ask-image" },
    draft.image
      ? chosenImage(draft.image)
      : el("p", { class: "soft" }, "Choose an image, paste one, or drop one on the page."),
    choose,
    file,
    draft.image ? scaleField(draft.image, info) : null,
  );
}

const chosenImage = ({ url, name, width, height }) =>
  el(
    "figure",
    {},
    el("img", { src: url, alt: "" }),
    el("figcaption", {}, name, width ? `, ${width} × ${height} px` : ""),
  );

const setScale = (mpp) =>
  change({ image: { ...get().draft.image, mpp: Number(mpp) > 0 ? Number(mpp) : null } });

function scaleField(image, info) {
  const askNow = ({ key, target }) => {
    if (key !== "Enter") return;
    setScale(target.value);
    ask();
  };
  const attributes = { id: "ask-mpp", type: "number", min: 0.01, max: 100, step: "any", value: image.mpp };
  const events = { onchange: ({ target }) => setScale(target.value), onkeydown: askNow };
  const presets = SCALES.map(([mpp, name]) =>
    el("button", { onclick: () => setScale(mpp) }, `${mpp} (${name})`),
  );
  return el(
    "div",
    {},
    el("label", { class: "field" }, "Scale in µm per pixel", el("input", { ...attributes, ...events })),
    el("p", { class: "soft" }, "How much tissue a pixel shows. Microscopes and scanners usually give:"),
    el("div", { class: "row" }, presets),
    el("p", { id: "ask-extent", class: "soft" }, extent(image, info)),
  );
}

// The part is not built again when the scale changes: the focus would be lost.
function showScale({ draft, info }) {
  if (!draft.image || !$("#ask-mpp")) return;
  $("#ask-mpp").value = draft.image.mpp ?? "";
  $("#ask-extent").textContent = extent(draft.image, info);
}

// A wrong scale is seen more easily in what the image would show.
function extent({ mpp, width, height }, info) {
  if (!mpp || !width) return "";
  const um = [width, height].map((side) => Math.round(side * mpp).toLocaleString("en"));
  const patch = info.mpp
    ? `; a patch of this archive is ${Math.round(info.patch_px * info.mpp)} µm wide`
    : "";
  return `So the image shows ${um[0]} × ${um[1]} µm of tissue${patch}.`;
}
