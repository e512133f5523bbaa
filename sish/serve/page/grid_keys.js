// Where a key leads in a grid: by how many cells, or null for other keys.

export function stepOf(event, { at, last, columns, rowsInView }) {
  const page = columns * Math.max(1, rowsInView);
  const inRow = at % columns;
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: columns,
    ArrowUp: -columns,
    PageDown: page,
    PageUp: -page,
    Home: event.ctrlKey ? -at : -inRow,
    End: event.ctrlKey ? last - at : columns - 1 - inRow,
  };
  return event.key in steps ? steps[event.key] : null;
}
