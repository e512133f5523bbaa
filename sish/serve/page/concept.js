export function startConcept() {}
