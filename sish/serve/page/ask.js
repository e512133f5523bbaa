export function startAsk() {}
