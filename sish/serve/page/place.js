// Where things are: between level-0 pixels of a slide and pixels of the screen. Plain arithmetic, no page.
//
// A view is {center: [x, y], scale, turn, mirrored, size: [w, h]}: the level-0 place in the middle of the
// viewer, screen pixels per level-0 pixel, degrees that the slide is turned clockwise, whether left and right
// are then swapped, and the size of the viewer in screen pixels.

const radians = (degrees) => (degrees * Math.PI) / 180;

// A step that is turned clockwise.
export function turned([dx, dy], degrees) {
  const [cos, sin] = [Math.cos(radians(degrees)), Math.sin(radians(degrees))];
  return [cos * dx - sin * dy, sin * dx + cos * dy];
}

// The step on the screen of a step in level-0 pixels.
export function stepToScreen({ scale, turn, mirrored }, step) {
  const [across, down] = turned(step, turn);
  return [(mirrored ? -across : across) * scale, down * scale];
}

export function stepToLevel0({ scale, turn, mirrored }, [across, down]) {
  return turned([(mirrored ? -across : across) / scale, down / scale], -turn);
}

export function toScreen(view, [x, y]) {
  const [dx, dy] = stepToScreen(view, [x - view.center[0], y - view.center[1]]);
  return [dx + view.size[0] / 2, dy + view.size[1] / 2];
}

export function toLevel0(view, [px, py]) {
  const [dx, dy] = stepToLevel0(view, [px - view.size[0] / 2, py - view.size[1] / 2]);
  return [dx + view.center[0], dy + view.center[1]];
}

// The same as numbers of an SVG matrix(): what is drawn in level-0 pixels lies at its place on the screen.
export function matrix(view) {
  const [a, b] = stepToScreen(view, [1, 0]);
  const [c, d] = stepToScreen(view, [0, 1]);
  return [a, b, c, d, ...toScreen(view, [0, 0])];
}

// The box between two places of the screen: its sides are the screen's, so in a turned view it is turned.
export function boxBetween(view, [ax, ay], [bx, by]) {
  const center = toLevel0(view, [(ax + bx) / 2, (ay + by) / 2]);
  return boxOf(center, [Math.abs(bx - ax) / view.scale, Math.abs(by - ay) / view.scale], -view.turn);
}

// A box by its centre. Turned by 90 degrees it is one with its sides swapped: the angle ends in (-45, 45].
export function boxOf([cx, cy], [width, height], angle) {
  const quarters = Math.ceil((angle - 45) / 90);
  const [w, h] = quarters % 2 ? [height, width] : [width, height];
  const region = [cx - w / 2, cy - h / 2, w, h];
  return { region, angle: angle - 90 * quarters };
}

export function boxCenter({ region: [x, y, width, height] }) {
  return [x + width / 2, y + height / 2];
}

// The four corners of a box that is turned clockwise about its centre.
export function corners(box) {
  const [cx, cy] = boxCenter(box);
  const [, , width, height] = box.region;
  const signs = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
  return signs.map(([across, down]) => {
    const [dx, dy] = turned([(across * width) / 2, (down * height) / 2], box.angle);
    return [cx + dx, cy + dy];
  });
}

// In whole pixels, and of a box that is not turned only what lies within bounds [x, y, w, h]; null if nothing
// does.
export function tidy(box, [left, top, width, height]) {
  const angle = Math.round(box.angle * 10) / 10 || 0; // never -0
  let [x0, y0, w, h] = box.region;
  let [x1, y1] = [x0 + w, y0 + h];
  if (!angle) {
    [x0, y0] = [Math.max(x0, left), Math.max(y0, top)];
    [x1, y1] = [Math.min(x1, left + width), Math.min(y1, top + height)];
  }
  const [x, y] = [Math.round(x0), Math.round(y0)];
  [w, h] = [Math.round(x1) - x, Math.round(y1) - y];
  return w > 0 && h > 0 ? { region: [x, y, w, h], angle } : null;
}

// The rectangle [x, y, w, h] around places.
export function around(places) {
  const xs = places.map(([x]) => x);
  const ys = places.map(([, y]) => y);
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return [x, y, Math.max(...xs) - x, Math.max(...ys) - y];
}
