// What the selected network is made of: its layers by what they do, what each kind holds and costs, and why.

const KINDS = {
  stem: ["first layer", "It alone reads pixels. It has few weights, and each works at every place of a large image: little is gained by pruning it, and all that follows rests on it."],
  convolution: ["convolutions", "Every output looks at all channels of a small window: side × side × inputs × outputs weights, each used once at every place."],
  depthwise: ["depthwise convolutions", "Each channel has a small filter of its own: it looks around and mixes nothing. Hardly any weights; but a channel that goes takes its filter with it, and little is done with each number that is fetched, so time is more than the products say."],
  pointwise: ["pointwise (1×1) convolutions", "They mix the channels of one place and do not look around. Beside depthwise filters they hold most of the weights and do most of the work: here pruning pays."],
  squeeze: ["layers that see one place", "As in squeeze-and-excitation: from each channel’s mean over the whole image comes a factor for each channel. They have weights and hardly any work: pruning them makes files smaller and nothing faster."],
  linear: ["linear layers", "Every weight is used once for an image: many weights, little work."],
  head: ["last layer", "A score for each class. Each of its rows is all that one class has."],
};

// Layers come in the order in which images pass them.
function kindOf(layer, at, layers) {
  const [, inputs, ...sides] = layer.shape, places = layer.output.slice(2).reduce((a, b) => a * b, 1);
  if (!at) return "stem";
  if (at === layers.length - 1) return "head";
  if (!sides.length) return "linear";
  if (inputs === 1 && Math.max(...sides) > 1) return "depthwise";
  if (Math.max(...sides) > 1) return "convolution";
  return layer.output.length > 2 && places === 1 ? "squeeze" : "pointwise";
}

// What is kept of a layer counts its weights; biases, and whatever else is not pruned, stay.
const keptOf = ({ parameters, prunable, kept }) => (kept ?? 0) + Math.max(0, (parameters ?? 0) - (prunable ?? parameters ?? 0));

function kindRows(layers) {
  const weighty = layers.filter(({ shape }) => shape.length > 1), found = new Map();
  weighty.forEach((layer, at) => {
    const kind = kindOf(layer, at, weighty);
    const row = found.get(kind) ?? { kind, layers: 0, parameters: 0, kept: 0, multiply_adds: 0, kept_multiply_adds: 0 };
    row.layers += 1;
    for (const key of ["parameters", "multiply_adds", "kept_multiply_adds"]) row[key] += layer[key] ?? 0;
    row.kept += keptOf(layer);
    found.set(kind, row);
  });
  return Object.keys(KINDS).filter((kind) => found.has(kind)).map((kind) => found.get(kind));
}

function drawMade() {
  const rows = kindRows(more(state.current).layers), sum = (key) => rows.reduce((total, row) => total + row[key], 0);
  $("made").hidden = !rows.length;
  if (!rows.length) return;
  const weights = sum("parameters"), work = sum("multiply_adds"), number = (text) => h("td", { class: "n" }, text);
  const head = ["kind", "layers", "parameters", "share", "kept", "multiply-adds", "share", "kept", "products a parameter"];
  const cells = (row) => [
    row.layers, format.whole(row.parameters), format.share(row.parameters / weights), format.share(row.kept / row.parameters),
    format.si(row.multiply_adds), format.share(work ? row.multiply_adds / work : null),
    format.share(row.multiply_adds ? row.kept_multiply_adds / row.multiply_adds : null), format.whole(Math.round(row.multiply_adds / row.parameters)),
  ];
  const body = rows.map((row) => h("tr", {}, h("th", { scope: "row" }, KINDS[row.kind][0]), ...cells(row).map(number)));
  const names = head.map((text, i) => h("th", { scope: "col", class: i ? "n" : null }, text));
  $("kinds").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...names)), h("tbody", {}, ...body)));
  $("why").replaceChildren(...rows.flatMap(({ kind }) => [h("dt", {}, KINDS[kind][0]), h("dd", {}, KINDS[kind][1])]));
}
