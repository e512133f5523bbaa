export function startHistory() {}
