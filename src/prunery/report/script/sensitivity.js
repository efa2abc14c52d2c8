// What each layer bears: by how much the loss rises when it alone is pruned, as the step that pruned by it measured.

// The selected step, or the nearest before it that measured this.
const sensed = () => chain(state.current).reverse().find((i) => more(i).sensitivity.layers);
const plain = (name) => name.replace(/\.weight$/, "");

function drawSensitivity() {
  const i = sensed();
  $("sensitivity").hidden = $("to-sensitivity").hidden = i === undefined;
  if (i === undefined) return;
  const { rounds, density, layers } = more(i).sensitivity, all = layers.flatMap(({ rises }) => rises.map(([, rise]) => rise));
  $("sensitivity-of").textContent = `of ${title(i)}`;
  const got = new Map(more(i).layers.map((layer) => [layer.name, layer.density]));
  $("borne").replaceChildren(...layers.map((layer) => borne(layer, got.get(plain(layer.name)) ?? null, state.ownScales ? layer.rises.map(([, rise]) => rise) : all)));
  $("sensitivity-note").textContent = "Loss on training images minus the loss untouched, with this layer alone pruned to a density and all others as they were. "
    + `The dashed line is what the step left of the layer${density === null ? "" : ` to keep ${format.share(density)} in all`}.${rounds > 1 ? ` The last of ${rounds} rounds is shown.` : ""}`;
}

function borne({ name, rises }, got, among) {
  const points = [[1, 0], ...rises.filter(([, rise]) => rise !== null)].sort((a, b) => b[0] - a[0]);
  const range = extent([0, ...among]), xs = extent([...points.map(([x]) => x), got ?? 1]);
  const told = points.map(([x, y]) => `${format.number(y)} at ${format.share(x)}`).join(", ");
  return h("figure", {}, plot({
    width: 232, height: 138, title: plain(name), label: `${plain(name)}, rise of the loss: ${told}.${got === null ? "" : ` Left: ${format.share(got)}.`}`,
    x: { ...xs, reverse: true, text: format.points }, y: { ...range, text: format.number },
    lines: [{ points, style: { stroke: ink(state.current), strokeWidth: 1.6 } }],
    marks: got === null ? [] : [{ at: got, text: format.share(got) }],
  }).svg);
}
