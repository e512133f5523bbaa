// A slide with all that lies over it: the picture, its layers, the scale bar, and the tool that draws boxes.

import { mosaic, tissue } from "./api.js";
import { BoxTool } from "./box.js";
import { el } from "./dom.js";
import { Handles } from "./handles.js";
import { Layers, squares, tissueShape } from "./layers.js";
import { complain } from "./notices.js";
import { scaleBar } from "./scale_bar.js";
import { viewTools } from "./toolbar.js";
import { SlideViewer } from "./viewer.js";

export class Pane {
  // Fill host, an empty element, with a slide (GET /api/slides/{id}) that has pictures.
  constructor(host, slide) {
    this.slide = slide;
    this.host = host;
    const place = el("div", { class: "deep-zoom" });
    host.append(place);
    this.viewer = new SlideViewer(place, slide);
    this.layers = new Layers(this.viewer);
    this.handles = new Handles(this.viewer, this.layers);
    this.boxTool = new BoxTool(this.viewer, this.layers);
    place.before(viewTools(this.viewer));
    scaleBar(this.viewer);
    this.marks = { mosaic: drawMosaic, tissue: drawTissue };
  }

  // Show or hide a layer; what it shows is asked for when it is first seen.
  async showLayer(name, shown) {
    this.layers.show(name, shown);
    const draw = this.marks[name];
    if (!shown || !draw) return;
    delete this.marks[name];
    try {
      this.layers.draw(name, await draw(this.slide));
    } catch (error) {
      this.marks[name] = draw; // it may go better the next time
      complain(error);
    }
  }

  close() {
    this.boxTool.stop();
    this.viewer.close();
    this.host.replaceChildren();
  }
}

async function drawMosaic({ slide_id }) {
  const { patch_l0_px, patches } = await mosaic(slide_id);
  return squares(patches, patch_l0_px);
}

async function drawTissue({ slide_id }) {
  return tissueShape((await tissue(slide_id)).polygons);
}

// What stands in place of a slide that has no pictures.
export function goneCard({ slide_id, reason, n_patches }) {
  const still = `Its ${n_patches} patches are in the archive: it can be found, and searched for as a whole.`;
  return card(slide_id, reason || "There is no picture of this slide.", el("p", {}, still));
}

// What stands in place of a slide that did not come.
export function failedCard(slideId, error, tryAgain) {
  return card(slideId, error.message, el("button", { onclick: tryAgain }, "Try again"));
}

function card(slideId, why, more) {
  const title = `${slideId} cannot be shown`;
  const parts = [el("h2", {}, title), el("p", { class: "reason" }, why), more];
  return el("div", { class: "no-pictures", role: "group", "aria-label": title }, parts);
}

