// The calls of the server. Each throws an Error whose message is the server's one line.

async function call(path, options = {}) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  const error = new Error(told.error);
  error.status = response.status;
  throw error;
}

const json = async (path, options) => (await call(path, options)).json();
const query = (values) => {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== "") words.append(name, one);
  }
  return words.toString();
};

export const slideUrl = (id, rest = "") => `/api/slides/${encodeURIComponent(id)}${rest}`;
export const thumbnailUrl = (id, size = 256) => slideUrl(id, `/thumbnail?size=${size}`);
export const patchUrl = (id, [x, y], size = 160) => slideUrl(id, `/patch?x=${x}&y=${y}&size=${size}`);
export const tileUrl = (id, level, column, row) => slideUrl(id, `/tiles/${level}/${column}_${row}.jpg`);
export const downloadUrl = (searchId, file) => `/api/searches/${searchId}/${file}`;

export const info = () => json("/api/info");
export const slides = (asked, options) => json(`/api/slides?${query(asked)}`, options);
export const slide = (id) => json(slideUrl(id));
export const mosaic = (id) => json(slideUrl(id, "/mosaic"));
export const tissue = (id) => json(slideUrl(id, "/tissue"));
export const map = () => json("/api/map");
export const heatmap = (id, searchId, options) => json(slideUrl(id, `/heatmap?search=${searchId}`), options);
export const explain = (searchId, id) => json(`/api/searches/${searchId}/explain?${query({ slide_id: id })}`);
export const download = async (searchId, file) => (await call(downloadUrl(searchId, file))).blob();
export const progress = (searchId) => json(`/api/searches/${searchId}`);
export const cancel = (searchId) => json(`/api/searches/${searchId}`, { method: "DELETE" });

// Ask; the caller chooses the search's id (newId()), under which its progress can be asked for and it be cancelled.
export const newId = () => crypto.randomUUID();
export const search = (question, id, options = {}) =>
  json("/api/search", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Search-Id": id },
    body: JSON.stringify(question),
    ...options,
  });
