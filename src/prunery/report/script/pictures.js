// The first layer of the selected step and of one before it: filters, masks, and what they make of a few test images.

const DRAWN = JSON.parse($("pictures-data").textContent), pictured = (i) => DRAWN.steps?.[STEPS[i].name];
const CELL = 32; // pixels of a filter on the page, about

function drawPictures() {
  $("pictures").hidden = $("to-pictures").hidden = !DRAWN.steps;
  if (!DRAWN.steps) return;
  const now = state.current, earlier = chain(now).slice(0, -1).reverse().filter(pictured);
  const before = earlier.includes(state.before) ? state.before : earlier[0];
  $("before").hidden = !earlier.length;
  $("before").replaceChildren(...earlier.map((i) => h("option", { value: i, selected: i === before ? "" : null }, `before: ${title(i)}`)));
  $("before").onchange = (event) => { state.before = Number(event.target.value); drawPictures(); };
  $("pictures-of").textContent = pictured(now) ? `${pictured(now).layer} of ${title(now)}` : `of ${title(now)}`;
  $("pictures-note").textContent = "Filters: grey is zero, white the layer’s largest weight, black its opposite; of three channels red, green and blue, of others their mean. "
    + "Masks: blue is kept, faint is pruned. Maps: what each filter makes of the image before activation, all of an image on one scale."
    + (DRAWN.full ? " Later steps have no pictures: those of a page have four megabytes in all." : "");
  if (!pictured(now)) return $("drawn").replaceChildren(h("p", { class: "note" }, "There are no pictures of this step."));
  $("drawn").replaceChildren(h("div", { class: "looks" }, ...(before === undefined ? [] : [look(before, "before")]), look(now, "after")));
}

function look(i, when) {
  const found = pictured(i), { layer, shape: [n, channels, rows, columns], shown, across, labels } = found;
  const size = `${shown < n ? `${shown} of ${n}` : n} filters of ${channels}×${rows}×${columns}`, left = `${format.whole(found.kept)} of ${format.whole(found.of)} weights kept`;
  const cell = Math.max(1, Math.round(CELL / (columns + 1)));
  const sheet = (uri, wide, times, alt) => h("img", { src: uri, alt, width: wide * times, class: "pixels" });
  const maps = found.maps.map((uri, nth) => h("div", { class: "seen" },
    sheet(DRAWN.images[found.images[nth]], 52, 1, `Test image of class ${labels[nth]}`),
    sheet(uri, found.shown_maps * (found.size[1] + 1) - 1, Math.max(1, Math.round(CELL / (found.size[1] + 1))), `${when}: ${found.shown_maps} maps of ${layer} for class ${labels[nth]}, ${found.size.join("×")} pixels`),
    h("span", { class: "note" }, labels[nth])));
  return h("section", { "aria-label": `${when}: ${title(i)}` }, h("h3", {}, `${when}: ${title(i)}`),
    h("div", { class: "sheets" }, h("div", {}, h("h4", {}, "Filters"), sheet(found.filters, across * (columns + 1) - 1, cell, `${when}: ${size} of ${layer}, largest weight ${format.number(found.largest)}`),
    h("p", { class: "note" }, `${size}, largest weight ${format.number(found.largest)}`)),
    h("div", {}, h("h4", {}, "Masks"), sheet(found.masks, across * (columns + 1) - 1, cell, `${when}: masks of ${layer}, ${left}, ${found.empty} filters empty`),
    h("p", { class: "note" }, `${left}${found.empty ? `, ${found.empty} filter${found.empty > 1 ? "s" : ""} empty` : ""}`))),
    ...(maps.length ? [h("h4", {}, `Maps${found.shown_maps < n ? ` of the first ${found.shown_maps}` : ""}`), ...maps] : []));
}
