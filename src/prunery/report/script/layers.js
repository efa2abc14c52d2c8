// The layers of the selected step: what is kept of their weights and of their work.

function drawLayers() {
  const { layers } = more(state.current), total = layers.reduce((sum, layer) => sum + (layer.multiply_adds ?? 0), 0);
  $("layers-of").textContent = `of ${title(state.current)}; ticks are the other plotted steps`;
  drawMade();
  if (!layers.length) return $("bars").replaceChildren(h("p", { class: "note" }, "This step did not measure its layers."));
  const others = [...state.plotted.keys()].filter((i) => i !== state.current && STEPS[i].network === STEPS[state.current].network);
  const head = ["layer", "kind", "weights", "kept", "density", "", "multiply-adds", "kept", "share of the network’s"];
  const rows = layers.map((layer) => h("tr", {},
    h("th", { scope: "row" }, layer.name), h("td", {}, layer.type), h("td", {}, layer.shape.join("×") || NONE), h("td", { class: "n" }, format.whole(layer.kept)),
    h("td", { class: "n" }, format.share(layer.density)), h("td", { class: "wide" }, layerBar(layer, others)),
    h("td", { class: "n" }, format.si(layer.multiply_adds)), h("td", { class: "n" }, format.si(layer.kept_multiply_adds)),
    h("td", { class: "wide" }, workBar(layer, total))));
  const names = head.map((text, i) => (text ? h("th", { scope: "col", class: i > 2 && i < 8 ? "n" : null }, text) : h("td")));
  $("bars").replaceChildren(h("table", { class: "layers" }, h("thead", {}, h("tr", {}, ...names)), h("tbody", {}, ...rows)));
}

function layerBar(layer, others) {
  const track = bar(layer.density, ink(state.current));
  for (const i of others) {
    const part = more(i).layers.find(({ name }) => name === layer.name)?.density ?? null;
    if (part !== null) track.append(h("i", { style: { left: `${100 * part}%`, background: ink(i) }, title: `${title(i)}: ${format.share(part)}` }));
  }
  return track;
}

// How much of the work is this layer's, and how much of that is left.
function workBar(layer, total) {
  const part = total ? (layer.multiply_adds ?? 0) / total : 0, kept = total ? (layer.kept_multiply_adds ?? 0) / total : 0;
  const track = bar(kept, ink(state.current));
  track.prepend(h("span", { class: "whole", style: { width: `${100 * part}%` } }));
  track.classList.add("open");
  return track;
}
