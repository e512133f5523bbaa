export function startTakeAlong() {}
