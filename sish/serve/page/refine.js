export function startRefine() {}
export const markButtons = () => null;
