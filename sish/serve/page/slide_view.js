export function startSlideView() {}
