// What filters of the first layer look like, their masks and their feature maps: before pruning and after.

const PICTURES = JSON.parse($("pictures-data").textContent);
const SIDE = 4; // pixels of the screen for one of a small picture

// A small picture: bytes as base64, drawn to a canvas. Weights go from one colour through paper to the other.
function canvas(picture, signed, label) {
  const [high, wide] = picture.shape, bytes = Uint8Array.from(atob(picture.bytes), (c) => c.charCodeAt(0));
  const scale = Math.max(1, Math.round(48 / wide));
  const node = h("canvas", { width: wide, height: high, role: "img", "aria-label": label, style: { width: `${wide * scale}px`, height: `${high * scale}px` } });
  const context = node.getContext("2d"), image = context.createImageData(wide, high);
  bytes.forEach((byte, at) => image.data.set(signed ? diverging((byte - 128) / 127) : [byte, byte, byte, 255], 4 * at));
  context.putImageData(image, 0, 0);
  return node;
}
const mixed = (from, to, part) => from.map((c, k) => Math.round(c + (to[k] - c) * part));
const diverging = (value) => [...mixed([247, 247, 247], value < 0 ? [203, 100, 16] : [31, 118, 188], Math.min(1, Math.abs(value))), 255];

function drawPictures() {
  const able = Object.keys(PICTURES).length;
  $("pictures").hidden = $("to-pictures").hidden = !able;
  if (!able) return;
  const at = chain(state.current).findLast((i) => PICTURES[STEPS[i].name]), rows = at === undefined ? [] : PICTURES[STEPS[at].name].filters;
  $("pictures-of").textContent = at === undefined ? "" : `of ${title(at)}, layer ${PICTURES[STEPS[at].name].layer}; before: ${PICTURES[STEPS[at].name].before}`;
  if (!rows.length) return $("filters").replaceChildren(h("p", { class: "note" }, "No pictures were made of this chain; select one of those that have them."));
  const head = ["filter", "before", "mask", "after", "feature map before", "feature map after"];
  $("filters").replaceChildren(h("table", { class: "filters" }, h("caption", { class: "unseen" }, "Filters, their masks and feature maps"),
    h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, h("th", { scope: "row" }, `${row.index}`, h("small", {}, ` ${format.share(row.density)} kept`)),
      ...["before", "mask", "after", "map_before", "map_after"].map((key, nth) => h("td", {}, row[key] ? canvas(row[key], nth < 3 && nth !== 1, `${head[nth + 1]}, filter ${row.index}`) : NONE)))))));
}
