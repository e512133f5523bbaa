// One deep-zoom viewer of a slide. All places that go in or come out are level-0 pixels of the slide's file:
// OpenSeadragon shows the bounds of the slide only, with the width of the bounds as its unit of length.

import { tileUrl } from "./api.js";
import { notice } from "./notices.js";
import { toLevel0, toScreen } from "./place.js";

const MOST_SCREEN_PX = 8; // screen pixels per level-0 pixel
const COARSEST_LEVEL = 7; // smaller pictures than 128 px are not asked for
const ROOM = 1.5; // a rectangle that is to be seen, with its surroundings, in its own sides
const MOVES = ["open", "update-viewport", "flip"];

function tileSource(slide) {
  const { width, height, tile_px, overlap, levels } = slide.dzi;
  return {
    width,
    height,
    tileSize: tile_px,
    tileOverlap: overlap,
    minLevel: Math.min(COARSEST_LEVEL, levels - 1),
    maxLevel: levels - 1,
    getTileUrl: (level, column, row) => tileUrl(slide.slide_id, level, column, row),
  };
}

const options = (element, slide) => ({
  element,
  tileSources: tileSource(slide),
  drawer: "canvas", // the same on every machine, with or without a graphics card
  showNavigationControl: false, // toolbar.js has buttons; OpenSeadragon's need pictures
  showNavigator: true,
  navigatorPosition: "TOP_RIGHT",
  navigatorSizeRatio: 0.18,
  navigatorMaintainSizeRatio: true,
  navigatorAutoFade: false,
  crossOriginPolicy: false,
  animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
  maxZoomPixelRatio: MOST_SCREEN_PX,
  minZoomImageRatio: 0.5,
  visibilityRatio: 0.2,
  preserveImageSizeOnResize: true, // so a second viewer beside the first keeps its um per pixel
  zoomPerScroll: 1.3,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  rotationIncrement: 90,
});

export class SlideViewer {
  constructor(element, slide) {
    this.slide = slide;
    this.element = element;
    this.osd = new OpenSeadragon.Viewer(options(element, slide));
    this.osd.canvas.setAttribute("aria-label", `${slide.slide_id}: arrow keys move, plus and minus zoom`);
    this.osd.canvas.setAttribute("role", "application");
    this.osd.addOnceHandler("tile-load-failed", () =>
      notice(`Parts of ${slide.slide_id} could not be read: they are left white.`, "error"),
    );
    this.osd.addHandler("canvas-key", (event) => {
      // other letters are the page's
      if (/^[adsw]$/i.test(event.originalEvent.key)) event.preventDefaultAction = true;
    });
  }

  // Call work when the viewer is ready, and whenever what it shows has moved.
  // It returns what ends that.
  onMove(work) {
    const each = () => work();
    for (const event of MOVES) this.osd.addHandler(event, each);
    return () => MOVES.forEach((event) => this.osd.removeHandler(event, each));
  }

  whenOpen(work) {
    if (this.osd.isOpen()) work();
    else this.osd.addOnceHandler("open", work);
  }

  // What is on the screen now (or, with current false, when the movement has ended): see place.js.
  view(current = true) {
    const viewport = this.osd.viewport;
    const [x, y, width] = this.slide.bounds;
    const center = viewport.getCenter(current);
    const size = viewport.getContainerSize();
    return {
      center: [x + center.x * width, y + center.y * width],
      scale: (viewport.getZoom(current) * size.x) / width,
      turn: ((viewport.getRotation(current) % 360) + 360) % 360,
      mirrored: viewport.getFlip(),
      size: [size.x, size.y],
    };
  }

  // Show another part: any of center, scale, turn and mirrored. Boundaries do not hold it back.
  setView({ center, scale, turn, mirrored }, immediately = false) {
    const viewport = this.osd.viewport;
    const [x, y, width] = this.slide.bounds;
    if (mirrored !== undefined) viewport.setFlip(mirrored);
    if (turn !== undefined) viewport.setRotation(turn, immediately);
    if (scale) viewport.zoomTo((scale * width) / viewport.getContainerSize().x, null, immediately);
    if (center) {
      const place = new OpenSeadragon.Point((center[0] - x) / width, (center[1] - y) / width);
      viewport.panTo(place, immediately);
    }
  }

  // Screen pixels per level-0 pixel at which a rectangle fits with some room, but no larger than full size.
  fittingScale([, , width, height]) {
    const { clientWidth, clientHeight } = this.element;
    return Math.min(1, clientWidth / (width * ROOM), clientHeight / (height * ROOM));
  }

  home() {
    this.osd.viewport.goHome();
  }

  zoomBy(factor) {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  // Turn what is seen clockwise by some degrees more; mirrored, the slide itself turns the other way.
  turnBy(degrees) {
    const { turn, mirrored } = this.view(false);
    this.turnTo(turn + (mirrored ? -degrees : degrees));
  }

  turnTo(degrees) {
    this.osd.viewport.setRotation(degrees);
  }

  mirror() {
    this.osd.viewport.toggleFlip();
  }

  // um per screen pixel; null if the slide's scale is not known
  umPerPx(current = true) {
    return this.slide.mpp ? this.slide.mpp / this.view(current).scale : null;
  }

  toScreen(place) {
    return toScreen(this.view(), place);
  }

  toLevel0(pixel) {
    return toLevel0(this.view(), pixel);
  }

  close() {
    this.osd.destroy();
  }
}
