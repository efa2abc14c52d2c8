// The selected step and the plotted ones side by side: what was measured of each, and the settings in which they differ.

const compared = () => [...new Set([...state.plotted.keys(), state.current])];

const RESULTS = [
  ["test accuracy", (step) => (step.accuracy === null ? NONE : `${format.percent(step.accuracy)}${step.se === null ? "" : ` ± ${format.hundredths(step.se)}`}`)],
  ["test images", (step) => format.whole(step.n)], ["density", (step) => format.share(step.density)],
  ["of the first network’s weights", (step) => (STEPS.some(cut) ? format.share(step.of_first) : NONE)], ["weights kept", (step) => format.whole(step.kept)],
  ["multiply-adds kept", (step) => format.whole(step.kept_multiply_adds)], ["bytes", (step) => format.whole(step.bytes)], ["score", (step) => format.score(step.score)],
  ["milliseconds", (step) => ms(timesOf(step)?.ms)],
  ["time of the step", (step) => format.seconds(step.seconds)],
  ["network", (step) => step.network || NONE], ["data", (step) => step.data || NONE], ["conditions", (step) => step.conditions],
];

// Settings along a chain, by the role of their step; the second training of a kind is "train 2".
function settingsAlong(i) {
  const times = {}, found = new Map(), stages = new Set();
  for (const j of chain(i)) {
    const { role, settings } = STEPS[j], nth = (times[role] = (times[role] ?? 0) + 1), stage = nth > 1 ? `${role} ${nth}` : role;
    stages.add(stage);
    for (const [key, value] of settings) found.set(`${stage}: ${key}`, value);
  }
  return { found, stages };
}

function comparison() {
  const shown = compared(), along = shown.map(settingsAlong), keys = [...new Set(along.flatMap(({ found }) => [...found.keys()]))];
  const of = (key) => along.map(({ found, stages }) => found.get(key) ?? (stages.has(key.split(": ")[0]) ? "default" : NONE));
  const settings = keys.map((key) => [key, of(key)]).filter(([, values]) => state.alike || new Set(values).size > 1);
  const results = RESULTS.map(([name, read]) => [name, shown.map((i) => read(STEPS[i]))]).filter(([, values]) => values.some((value) => value !== NONE));
  return { shown, results, settings };
}

function drawComparison() {
  const { shown, results, settings } = comparison();
  const away = (i) => (i !== state.current
    ? h("button", { type: "button", class: "away", "aria-label": `Take ${title(i)} away`, onclick: () => { toggle(i); $("alike").focus(); } }, "×") : null);
  const head = shown.map((i) => h("th", { scope: "col" }, h("span", { class: "swatch", style: { background: ink(i) }, "aria-hidden": "true" }), title(i), away(i)));
  const rows = (name, all) => [h("tr", { class: "part" }, h("th", { scope: "colgroup", colspan: shown.length + 1 }, name)),
    ...all.map(([key, values]) => h("tr", {}, h("th", { scope: "row" }, key), ...values.map((value) => h("td", {}, value))))];
  const none = h("tr", {}, h("td", { colspan: shown.length + 1 }, h("em", {}, shown.length > 1 ? "They differ in no setting." : "Plot another step (space, or its box in the tree) to compare it.")));
  $("compared").replaceChildren(h("table", { class: "side" }, h("caption", { class: "unseen" }, "The plotted steps side by side"),
    h("thead", {}, h("tr", {}, h("td"), ...head)), h("tbody", {}, ...rows("Measured", results)),
    h("tbody", {}, ...rows(state.alike ? "All settings" : "Settings that differ", settings), ...(settings.length ? [] : [none]))));
}
