export function startGallery() {}
