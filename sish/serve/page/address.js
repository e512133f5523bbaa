// What the page shows, as words of its address, and back:
// #view=slide&slide=a-01&see=X,Y,WIDTH,TURN,MIRRORED&box=X,Y,W,H,ANGLE&hit=b-02&beside=... in level-0 pixels.

const round = (value) => Math.round(value * 10) / 10;

// What a viewer shows: the place in its middle, how wide it sees, its turn and mirror.
export function seenBy(viewer) {
  const { center, scale, turn, mirrored } = viewer.view(false);
  return [...center, viewer.element.clientWidth / scale, turn, Number(mirrored)].map(round);
}

export function showSeen(viewer, [x, y, width, turn, mirrored]) {
  const scale = viewer.element.clientWidth / width;
  viewer.setView({ center: [x, y], scale, turn, mirrored: Boolean(mirrored) }, true);
}

export function addressOf({ view, slideId, box, hit, see, beside }) {
  const words = new URLSearchParams({ view });
  if (slideId !== null) words.set("slide", slideId);
  if (see) words.set("see", see);
  if (box) words.set("box", [...box.region, box.angle]);
  if (hit) words.set("hit", hit.slide_id);
  if (hit && beside) words.set("beside", beside);
  return `#${words.toString().replaceAll("%2C", ",")}`;
}

// What an address says; parts that are wrong are left out.
export function readAddress(hash) {
  const words = new URLSearchParams(hash.slice(1));
  const box = numbers(words.get("box"));
  return {
    view: ["gallery", "map", "slide"].includes(words.get("view")) ? words.get("view") : "gallery",
    slideId: words.get("slide"),
    see: numbers(words.get("see")),
    box: box && box[2] > 0 && box[3] > 0 ? { region: box.slice(0, 4), angle: box[4] } : null,
    hitId: words.get("hit"),
    beside: numbers(words.get("beside")),
  };
}

// Five numbers, or null.
function numbers(text) {
  const values = (text ?? "").split(",").map(Number);
  return text && values.length === 5 && values.every(Number.isFinite) ? values : null;
}
