// One step, beside the tree: what was measured, under which conditions, and how to make it again.

function drawDetail() {
  const step = STEPS[state.current], { toml, recipe } = more(state.current);
  const plotted = state.plotted.has(state.current);
  const pin = h("button", { type: "button", id: "pin", "aria-pressed": String(plotted), onclick: () => { toggle(state.current); drawDetail(); $("pin").focus(); } }, "Plot");
  $("detail").replaceChildren(
    h("header", {}, h("h3", { id: "detail-h" }, step.title, " ", h("code", {}, step.name)), pin),
    pairs(measured(step)),
    h("h4", {}, `Conditions ${step.conditions}`), pairs([...DATA.conditions[step.conditions], ...made(step)]),
    h("h4", {}, "Again"), ...again(step, recipe),
    h("h4", {}, "Spec"), h("pre", { class: "spec", tabindex: "0", "aria-label": "Spec" }, ...specLines(step, toml)));
}

// The whole spec, with the lines that were chosen in ink and the defaults pale.
function specLines(step, toml) {
  const chosen = new Set([...DATA.common, ...step.settings].map(([key]) => key));
  let table = "";
  return toml.trim().split("\n").map((line) => {
    if (line.startsWith("[")) table = line.slice(1, -1) + ".";
    return h("span", { class: line.startsWith("kind") || chosen.has(table + line.split(" = ")[0]) ? "chosen" : null }, line + "\n");
  });
}

function measured(step) {
  const of = (kept, all, form) => (kept === null ? form(all) : `${form(kept)} of ${form(all)}`);
  const near = (value, error, n) => `${format.percent(value)}${error === null ? "" : ` ± ${format.hundredths(error)}`}${n ? `, n = ${format.whole(n)}` : ""}`;
  return [
    ["test accuracy", step.accuracy === null ? null : near(step.accuracy, step.se, step.n)],
    ["test loss", step.loss === null ? null : format.number(step.loss)],
    ["validation", step.val_accuracy === null ? null : near(step.val_accuracy, null, step.val_n)],
    ["density", step.density === null ? null : `${format.share(step.density)}${cut(step) ? `; ${format.share(step.of_first)} of the first network’s weights` : ""}`],
    ["parameters", step.parameters === null ? null : of(step.kept, step.parameters, format.whole)],
    ["multiply-adds", step.multiply_adds === null ? null : of(step.kept_multiply_adds, step.multiply_adds, format.whole)],
    ["file", step.bytes === null ? null : `${format.whole(step.bytes)} bytes`],
    ["milliseconds", timesOf(step) ? `${ms(timesOf(step).ms)} (${reading().about})` : null],
    ["training steps", step.steps ? format.whole(step.steps) : null],
    ["least val. loss", step.early_stop_step === null ? null : `at step ${format.whole(step.early_stop_step)}`],
    ["speed", step.images_per_second === null ? null : `${format.whole(step.images_per_second)} images/s`],
  ];
}

const made = (step) => [
  ["started", step.started === null ? null : new Date(1000 * step.started).toISOString().replace("T", " ").slice(0, 19) + " UTC"],
  ["took", `${format.seconds(step.seconds)}${step.parts > 1 ? ` in ${step.parts} parts` : ""}`],
];

const pairs = (rows) => h("dl", { class: "pairs" }, ...rows.filter(([, value]) => value !== null).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));

function again(step, recipe) {
  const look = [h("p", { class: "note" }, "This step’s own page:"), command(`prunery report ${step.name}`)];
  if (!recipe) return look;
  const save = h("button", { type: "button", onclick: () => download(`${step.name}.toml`, recipe, "text/plain") }, "Save recipe");
  return [h("p", { class: "note" }, "The chain as a recipe. Steps that are finished are reused, an interrupted one is resumed; add steps at its end to go on from here."),
    command(`prunery run ${step.name}.toml`), save, h("details", {}, h("summary", {}, "Recipe"), h("pre", { id: "recipe" }, recipe.trim())), ...look];
}

function command(text) {
  const put = () => (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => say("copied"), () => say("the browser did not allow copying"));
  return h("div", { class: "command" }, h("code", {}, text), h("button", { type: "button", "aria-label": `Copy: ${text}`, onclick: put }, "Copy"));
}
