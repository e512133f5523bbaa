// Move and zoom a camera with pointer, wheel and keys.

const CLICK_PX = 4; // a pointer that moved less has clicked
const STEP_PX = 60; // of an arrow key
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ZOOMS = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 };

export const pixelOf = (event) => [event.offsetX, event.offsetY];

export function startCameraInput(canvas, camera, clicked) {
  canvas.addEventListener("wheel", (event) => wheel(event, camera), { passive: false });
  canvas.addEventListener("pointerdown", (event) => event.button || drag(canvas, camera, event, clicked));
  canvas.addEventListener("keydown", (event) => key(event, camera));
}

function wheel(event, camera) {
  event.preventDefault();
  camera.zoomBy(Math.exp(-event.deltaY / 400), pixelOf(event));
}

function drag(canvas, camera, down, clicked) {
  const start = camera.at;
  const listening = new AbortController();
  let farthest = 0;
  const move = (event) => {
    const [dx, dy] = [event.clientX - down.clientX, event.clientY - down.clientY];
    farthest = Math.max(farthest, Math.hypot(dx, dy));
    if (farthest >= CLICK_PX) camera.moveBy(dx, dy, start);
  };
  const end = (event) => {
    listening.abort();
    if (farthest < CLICK_PX && event.type === "pointerup") clicked(pixelOf(event));
  };
  canvas.setPointerCapture(down.pointerId);
  for (const [type, listener] of [["pointermove", move], ["pointerup", end], ["pointercancel", end]]) {
    canvas.addEventListener(type, listener, { signal: listening.signal });
  }
}

function key(event, camera) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in ARROWS) camera.moveBy(...ARROWS[event.key].map((way) => way * STEP_PX));
  else if (event.key in ZOOMS) camera.zoomBy(ZOOMS[event.key]);
  else if (event.key === "0") camera.reset();
  else return;
  event.preventDefault();
}
