// The engine's account of itself: for each layer of a timed step its kernel, why that one, and how long it takes.

const TIMES = JSON.parse($("times-data").textContent);
const reading = () => TIMES[state.reading];
const timesOf = (step) => reading()?.steps[step.name];
const us = known((value) => `${digits(value)}${NARROW}µs`);
const ms = known((value) => `${Number(value.toPrecision(3))}${NARROW}ms`);

function drawEngine() {
  $("engine").hidden = $("to-engine").hidden = !TIMES.length;
  if (!TIMES.length) return;
  const step = STEPS[state.current], found = timesOf(step);
  $("engine-of").textContent = `of ${title(state.current)}`;
  if (!found) {
    $("engine-note").textContent = "";
    return $("kernels").replaceChildren(h("p", { class: "note" }, `This step is not in the reading: prunery time ${step.name} times it.`));
  }
  const whole = found.layers.reduce((sum, layer) => sum + (layer.measured_us ?? 0), 0);
  const head = ["layer", "kernel", "density", "multiply-adds", "predicted", "measured", "", "bytes", "why this kernel"];
  const rows = found.layers.map((layer) => h("tr", {}, h("th", { scope: "row" }, layer.name), h("td", {}, layer.kernel),
    h("td", { class: "n" }, layer.multiply_adds ? format.share(layer.density) : ""), h("td", { class: "n" }, layer.multiply_adds ? format.si(layer.multiply_adds) : ""),
    h("td", { class: "n" }, us(layer.predicted_us)), h("td", { class: "n" }, us(layer.measured_us)), h("td", { class: "wide" }, bar(whole ? (layer.measured_us ?? 0) / whole : 0, ink(state.current))),
    h("td", { class: "n" }, layer.bytes ? format.bytes(layer.bytes) : ""), h("td", { class: "why" }, layer.why)));
  const names = head.map((text, i) => (text ? h("th", { scope: "col", class: i > 1 && i < 8 ? "n" : null }, text) : h("td")));
  $("kernels").replaceChildren(h("table", { class: "kernels" }, h("caption", { class: "unseen" }, "Each operation of the packed network"), h("thead", {}, h("tr", {}, ...names)), h("tbody", {}, ...rows)));
  const turns = `${ms(found.ms)} a call (turns from ${ms(found.low)} to ${ms(found.high)})`;
  $("engine-note").textContent = `${turns}: ${reading().about}. Operations are timed one by one on one thread, ${found.images} image${found.images > 1 ? "s" : ""} at a time, the fastest of ${reading().repeats} repeats; `
    + `they add up to ${us(whole)}. The packed file has ${format.whole(found.bytes)} bytes.${found.same === null ? "" : ` It answers ${format.points(found.same)} of ${format.whole(found.same_of)} training images as the step does.`}`;
}

const calls = ({ images, threads }) => `${images} image${images > 1 ? "s" : ""}, ${threads} thread${threads > 1 ? "s" : ""}`;

// One reading at a time, on the figure of costs and here: times of two readings cannot be compared.
function chooseReading() {
  for (const select of document.querySelectorAll("select.reading")) {
    select.replaceChildren(...TIMES.map((each, i) => h("option", { value: i, selected: i === state.reading ? "" : null }, `${calls(each)}, ${each.at}`)));
    select.hidden = TIMES.length < 2 || (select.id === "which-reading" && state.cost !== "ms");
    select.onchange = (event) => { state.reading = Number(event.target.value); chooseReading(); drawFront(); drawEngine(); };
  }
}
