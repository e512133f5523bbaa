// The question that the panel puts together (`draft` in the store), and the body of POST /api/search made of it.

import { get, set } from "./store.js";

export const EMPTY = {
  of: "slide", // what is searched for: "slide" (all of it), "box" (what was drawn on it) or "image"
  image: null, // {url, name, mpp, width, height}: url is a data: URL
  k: 10,
  ranking: "auto",
  where: {}, // conditions by column, as in sish/filters.py: {"site": ["lung", "breast"]}
  exclude_patient: true,
  relevant: [], // marked hits: {slide_id} or {slide_id, region, angle}
  irrelevant: [],
  positive: [], // boxes that show a concept, and boxes that do not: {slide_id, region, angle}
  negative: [],
  strength: 0.5, // of the concept, -1 to 1
};

export const change = (changes) => set({ draft: { ...get().draft, ...changes } });

export const isReady = ({ draft, slideId, box }) =>
  draft.of === "image"
    ? Boolean(draft.image?.mpp)
    : Boolean(slideId) && (draft.of === "slide" || Boolean(box));

// The body of POST /api/search for what is chosen in the panel. Fields that say nothing are left out.
export const freshQuestion = (state) => ({ ...subjectOf(state), ...optionsOf(state.draft) });

// What was asked before, again, with what was marked and drawn since.
export function refinedQuestion(state) {
  const { draft, answer } = state;
  const question = { ...(answer ? askedSubject(answer.question) : subjectOf(state)), ...optionsOf(draft) };
  const { relevant, irrelevant, positive, negative, strength } = draft;
  if (relevant.length) question.relevant = relevant;
  if (irrelevant.length) question.irrelevant = irrelevant;
  if (positive.length && negative.length) question.concept = { positive, negative, strength };
  return question;
}

function optionsOf({ of, k, ranking, where, exclude_patient }) {
  const options = { k, ranking };
  if (of !== "image") options.exclude_patient = exclude_patient;
  return Object.keys(where).length ? { ...options, where } : options;
}

function subjectOf({ draft, slideId, box }) {
  if (draft.of === "image") return { image: draft.image.url, mpp: draft.image.mpp };
  if (draft.of === "slide") return { slide_id: slideId };
  return { slide_id: slideId, region: box.region, ...(box.angle ? { angle: box.angle } : {}) };
}

const SUBJECT = ["slide_id", "region", "angle", "image", "mpp"];
const askedSubject = (question) =>
  Object.fromEntries(Object.entries(question).filter(([name]) => SUBJECT.includes(name)));

export const boxOf = ({ region, angle = 0 }) => (region ? { region, angle } : null);

// The draft that leads to a question: to take up an earlier one, or one from a file.
export function draftOf(question) {
  const { positive, negative, strength } = question.concept ?? get().draft; // drawn boxes are not lost
  return {
    ...EMPTY,
    of: question.image ? "image" : question.region ? "box" : "slide",
    image: question.image ? { url: question.image, name: "image", mpp: question.mpp } : null,
    k: question.k ?? EMPTY.k,
    ranking: question.ranking ?? EMPTY.ranking,
    where: question.where ?? {},
    exclude_patient: question.exclude_patient ?? EMPTY.exclude_patient,
    relevant: question.relevant ?? [],
    irrelevant: question.irrelevant ?? [],
    positive,
    negative,
    strength,
  };
}

// The question in words: "Box on a-01, 2 relevant, site: lung".
export function inWords(question) {
  const { relevant, irrelevant, concept, where = {} } = question;
  const words = [subjectInWords(question)];
  if (relevant) words.push(`${relevant.length} relevant`);
  if (irrelevant) words.push(`${irrelevant.length} not relevant`);
  if (concept) words.push(`concept of ${concept.positive.length} + ${concept.negative.length} boxes`);
  for (const [column, wanted] of Object.entries(where))
    words.push(`${column}: ${[wanted].flat().join(" or ")}`);
  return words.join(", ");
}

export function subjectInWords({ image, mpp, region, slide_id }) {
  if (image) return `An image at ${mpp} µm/px`;
  return region ? `Box on ${slide_id}` : `All of ${slide_id}`;
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
