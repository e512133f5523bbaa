export function startKeys() {}
