// The page: one state, and a function for each part that draws it from that state.

const DATA = JSON.parse($("data").textContent);
const STEPS = DATA.steps, COLORS = 6, SLOTS = 18, OPEN = 6;
const state = { current: DATA.current, plotted: new Map(), hidden: new Set(), log: false, whole: false, at: null, sort: null, cost: "density", group: "" };
const details = new Map();

// Curves, layers and texts of a step, parsed when they are first looked at.
function more(i) {
  if (!details.has(i)) details.set(i, JSON.parse($(`step-${i}`).textContent));
  return details.get(i);
}
function chain(i) {
  const found = [];
  for (let at = i; at !== null; at = STEPS[at].parent) found.unshift(at);
  return found;
}
const title = (i) => `${STEPS[i].title} ${STEPS[i].short}`;
const children = STEPS.map(() => []);
STEPS.forEach((step, i) => step.parent !== null && children[step.parent].push(i));
const say = (text) => { $("status").textContent = text; };

// --- which steps are plotted, and how ----------------------------------------------------------------------------------

function toggle(i) {
  if (!state.plotted.delete(i)) {
    const taken = new Set(state.plotted.values());
    const free = Array.from({ length: SLOTS }, (_, slot) => slot).find((slot) => !taken.has(slot));
    if (free === undefined) return say(`${SLOTS} steps are plotted, and no more fit; take one away first`);
    state.plotted.set(i, free);
  }
  state.hidden.delete(i);
  say(`${title(i)} ${state.plotted.has(i) ? "plotted" : "not plotted"}`);
  drawMarks();
  drawFigures();
}
// The last training of a step's chain: steps that agree on it have the same curves.
const trained = (i) => chain(i).findLast((j) => STEPS[j].curves);
const unlike = (steps) => steps.filter((i, at) => steps.findIndex((j) => trained(j) === trained(i)) === at);
// The plotted steps, and the current one where none of them has its curves.
const runs = () => unlike([...state.plotted.keys(), state.current]).filter((i) => trained(i) !== undefined);
const ink = (i) => (state.plotted.has(i) ? `var(--s${state.plotted.get(i) % COLORS})` : "var(--ink)");
const dash = (i) => ["none", "5 3", "1.5 2.5"][Math.floor((state.plotted.get(i) ?? 0) / COLORS)];

function select(i, focus = false) {
  state.current = i;
  drawMarks();
  drawDetail();
  drawFigures();
  if (focus) $(`t-${i}`).focus();
  say(`${title(i)} selected`);
}

// --- the tree ----------------------------------------------------------------------------------------------------------

// Rows with their lanes: a chain stays in its lane, branches step to the right; the deepest child goes on in the lane.
function layout() {
  const tall = STEPS.map(() => 1), order = new Map(), rows = [];
  for (let i = STEPS.length - 1; i >= 0; i--) {
    const { parent } = STEPS[i];
    if (parent !== null) tall[parent] = Math.max(tall[parent], tall[i] + 1);
  }
  const roots = STEPS.flatMap((step, i) => (step.parent === null ? [i] : []));
  const waiting = roots.reverse().map((i) => ({ i, lane: 0, from: null, passes: [] }));
  while (waiting.length) {
    const row = waiting.pop(), kids = children[row.i], top = Math.max(0, ...kids.map((k) => tall[k]));
    const tallest = kids.filter((k) => tall[k] === top), trunk = tallest.length === 1 ? tallest[0] : null;
    const ordered = [...kids.filter((k) => k !== trunk), ...(trunk === null ? [] : [trunk])];
    rows.push(row);
    ordered.forEach((k, nth) => order.set(k, nth));
    ordered.map((k, nth) => {
      if (k === trunk) return { i: k, lane: row.lane, from: row.lane, passes: row.passes };
      const open = nth + 1 < ordered.length ? [{ lane: row.lane, parent: row.i, after: nth }] : [];
      return { i: k, lane: row.lane + 1, from: row.lane, passes: [...row.passes, ...open] };
    }).reverse().forEach((next) => waiting.push(next));
  }
  return { rows, order };
}
const TREE = layout();
const RAILS = `${20 + 16 * Math.max(...TREE.rows.map((row) => row.lane))}px`;

function rails(row) {
  const gap = 16, x = (lane) => 10 + lane * gap, y = 17, { i, lane, from } = row;
  const svg = s("svg", {});
  const line = (x1, y1, y2, on) => svg.append(fill(s("line", { x1, x2: x1, y1, y2 }), { "data-on": on }, []));
  for (const pass of row.passes) line(x(pass.lane), 0, "100%", `${pass.parent}>${pass.after}`);
  if (from === lane) line(x(lane), 0, y, `=${i}`);
  else if (from !== null) svg.append(s("path", { d: `M${x(from)} 0V${y - 7}q0 7 7 7H${x(lane)}`, "data-on": `=${i}` }));
  if (children[i].length) line(x(lane), y, "100%", `${i}>-1`);
  svg.append(s("path", { class: `glyph ${STEPS[i].role}`, d: SHAPES[STEPS[i].role], transform: `translate(${x(lane)} ${y})` }));
  return h("span", { class: "rails", "aria-hidden": "true", style: { width: RAILS } }, svg);
}

function treeRow(row) {
  const { i } = row, step = STEPS[i], siblings = step.parent === null ? STEPS.filter((other) => other.parent === null).length : children[step.parent].length;
  const settings = step.settings.filter(([key]) => key !== "model.name").map(([key, value]) => h("span", {}, `${key} `, h("b", {}, value)));
  if (step.kind === "init") settings.unshift(h("b", {}, step.network));
  const pin = h("span", { class: "pin", title: "plot this step", onclick: (event) => { event.stopPropagation(); toggle(i); } }, h("i"));
  return h("div", {
    class: "row", id: `t-${i}`, role: "treeitem", tabindex: -1, "aria-level": chain(i).length, "aria-setsize": siblings,
    "aria-posinset": (TREE.order.get(i) ?? 0) + 1, "aria-expanded": children[i].length ? "true" : null, onclick: () => select(i, true),
  }, rails(row), h("span", { class: "who" }, h("strong", {}, step.label || step.role), " ", h("code", {}, step.short)),
  h("span", { class: "what" }, ...(settings.length ? settings : [h("em", {}, step.missing ? `from ${step.missing}, not in this folder` : "as by default")])),
  h("span", { class: "acc" }, format.hundredths(step.accuracy), h("small", {}, step.se === null ? "" : ` ±${NARROW}${format.hundredths(step.se)}`)),
  h("span", { class: "den" }, step.density === null ? NONE : format.share(step.density), bar(step.density)), pin);
}

function bar(part, color) {
  const width = part === null ? 0 : Math.max(100 * part, part > 0 ? 1 : 0);
  return h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${width}%`, background: color ?? "" } }));
}

function drawMarks() {
  const path = chain(state.current), next = new Map(path.map((i, at) => [i, path[at + 1]])), on = new Set(path);
  for (const { i } of TREE.rows) {
    const row = $(`t-${i}`), slot = state.plotted.has(i);
    row.setAttribute("aria-selected", String(i === state.current));
    row.setAttribute("aria-checked", String(slot));
    row.tabIndex = i === state.current ? 0 : -1;
    row.classList.toggle("on", on.has(i));
    row.querySelector(".pin i").style.background = slot ? ink(i) : "";
  }
  for (const part of $("tree").querySelectorAll("[data-on]")) {
    const [parent, after] = part.dataset.on.split(">");
    const lit = after === undefined ? on.has(Number(parent.slice(1))) : (TREE.order.get(next.get(Number(parent))) ?? -2) > Number(after);
    part.classList.toggle("on", lit);
  }
}

function walk(event) {
  const at = TREE.rows.findIndex((row) => row.i === state.current), last = TREE.rows.length - 1;
  const to = {
    ArrowDown: () => TREE.rows[Math.min(at + 1, last)].i, ArrowUp: () => TREE.rows[Math.max(at - 1, 0)].i, Home: () => TREE.rows[0].i,
    End: () => TREE.rows[last].i, ArrowLeft: () => STEPS[state.current].parent, ArrowRight: () => children[state.current].at(-1),
    Enter: () => state.current, " ": () => { toggle(state.current); return null; },
  }[event.key];
  if (!to) return;
  event.preventDefault();
  const i = to();
  if (i !== null && i !== undefined) select(i, true);
}

// --- one step ----------------------------------------------------------------------------------------------------------

function drawDetail() {
  const step = STEPS[state.current], { toml, recipe } = more(state.current);
  const plotted = state.plotted.has(state.current);
  const pin = h("button", { type: "button", id: "pin", "aria-pressed": String(plotted), onclick: () => { toggle(state.current); drawDetail(); $("pin").focus(); } }, "Plot");
  $("detail").replaceChildren(
    h("header", {}, h("h3", { id: "detail-h" }, step.title, " ", h("code", {}, step.name)), pin),
    pairs(measured(step)),
    h("h4", {}, `Conditions ${step.conditions}`), pairs([...DATA.conditions[step.conditions], ...made(step)]),
    h("h4", {}, "Again"), ...again(step, recipe),
    h("h4", {}, "Spec"), h("pre", { class: "spec" }, ...specLines(step, toml)));
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
    ["density", step.density === null ? null : format.share(step.density)],
    ["parameters", step.parameters === null ? null : of(step.kept, step.parameters, format.whole)],
    ["multiply-adds", step.multiply_adds === null ? null : of(step.kept_multiply_adds, step.multiply_adds, format.whole)],
    ["file", step.bytes === null ? null : `${format.whole(step.bytes)} bytes`],
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

// --- curves ------------------------------------------------------------------------------------------------------------

const PANELS = [
  ["train_loss", "Train loss", format.number, true], ["val_loss", "Validation loss", format.number, true],
  ["val_accuracy", "Validation accuracy", format.percent, false], ["test_accuracy", "Test accuracy", format.percent, false],
  ["lr", "Learning rate", format.number, false],
];
let drawn = [];

// Every training step of the shown chains once: where it begins along its chain, and whose it is.
function segments(shown) {
  const found = new Map();
  for (const run of shown) {
    let start = 0;
    for (const i of chain(run)) {
      if (STEPS[i].curves) {
        if (!found.has(i)) found.set(i, { i, start, runs: [], curve: more(i).curve });
        found.get(i).runs.push(run);
      }
      start += STEPS[i].steps;
    }
  }
  return [...found.values()];
}

const points = ({ curve, start }, key) => curve.step.flatMap((x, at) => (curve[key][at] === null || x === null ? [] : [[start + x, curve[key][at]]]));

// What may share axes: one network on one set of images.
const subject = ({ i }) => groupOf(STEPS[i]);
const ending = (parts) => Math.max(1, ...parts.map(({ i, start }) => start + STEPS[i].steps));
const told = (parts, key) => parts.some(({ curve }) => curve[key].some((value) => value !== null));

function drawCurves() {
  const all = runs(), parts = segments(all.filter((i) => !state.hidden.has(i))), whole = segments(all);
  const subjects = [...new Set(whole.map(subject))], end = ending(whole);
  state.at = Math.min(state.at ?? end, end);
  Object.assign($("cursor"), { max: end });
  const sets = subjects.map((name) => ({ name, end: ending(whole.filter((part) => subject(part) === name)), parts: parts.filter((part) => subject(part) === name) }))
    .map((set) => ({ ...set, used: PANELS.filter(([key]) => told(set.parts, key)) }));
  const width = columns(Math.max(0, ...sets.map(({ used }) => used.length)));
  drawn = sets.flatMap(({ used, ...set }) => used.map((panel, nth) => curvePanel(panel, set, width, nth)));
  $("panels").replaceChildren(...sets.flatMap(({ name, used }) => [
    ...(subjects.length > 1 && used.length ? [h("h3", {}, name)] : []), ...drawn.filter((picture) => picture.name === name).map(({ svg }) => h("figure", {}, svg))]));
  drawLegend(all, PANELS.filter(([key]) => told(whole, key)), subjects.length > 1);
  const thin = Math.max(0, ...parts.map(({ i }) => STEPS[i].every));
  const shared = parts.some((part) => owner(part).stroke === "var(--soft)") ? " What several others share is grey." : "";
  $("curves-note").textContent = !all.length ? "No step here was trained." : `Horizontal: optimiser steps, added up along each chain. The selected chain has one colour all along.${shared} Open circles: the least validation loss of a training step.` +
    (thin > 1 ? ` Long histories are thinned, up to one row in ${thin}.` : "");
  moveCursor(state.at);
}

// The selected chain is in its own colour all along; what only others share is grey.
function owner({ runs }) {
  const mine = runs.find((i) => trained(i) === trained(state.current)) ?? (runs.length > 1 ? null : runs[0]);
  return mine === null ? { stroke: "var(--soft)" } : { stroke: ink(mine), strokeDasharray: dash(mine) };
}

function curvePanel([key, name, form, loss], { name: of, parts, end }, width, nth) {
  const front = ({ part }) => part.runs.some((i) => trained(i) === trained(state.current));
  const lines = parts.map((part) => ({ part, points: points(part, key) })).filter((line) => line.points.length).sort((a, b) => front(a) - front(b));
  const range = extent(lines.flatMap((line) => line.points.map(([, value]) => value)));
  const log = state.log && loss && range.lo > 0;
  const stops = key !== "val_loss" ? [] : lines.flatMap(({ part, points: all }) => {
    const stop = all.find(([x]) => x - part.start === STEPS[part.i].early_stop_step);
    return stop ? [{ x: stop[0], y: stop[1], shape: "init", style: { color: owner(part).stroke } }] : [];
  });
  const picture = plot({
    width, height: 170, title: name + (log ? ", log" : ""),
    x: { lo: 0, hi: end, tight: true, text: format.si }, y: { ...range, log, text: form === format.percent ? format.points : form },
    label: `${name} against training step. ${lines.map(({ part, points: all }) => `${title(part.i)}: ${form(all[0][1])} to ${form(all.at(-1)[1])}`).join("; ")}.`,
    lines: lines.map((line) => ({ points: line.points, style: owner(line.part) })), marks: cuts(of).map(({ at, text }) => ({ at, text: nth ? "" : text })), dots: stops,
  });
  picture.svg.addEventListener("pointermove", (event) => moveCursor(picture.value(event)));
  return { ...picture, name: of, end };
}
// As many beside each other as read well, with no row left nearly empty.
function columns(count) {
  const room = $("panels").clientWidth, fit = Math.max(1, Math.floor((room + 24) / 290)), number = Math.ceil(count / Math.ceil(count / fit)) || 1;
  $("panels").style.gridTemplateColumns = `repeat(${number}, minmax(0, 1fr))`;
  return Math.floor((room - (number - 1) * 24) / number);
}

// Where the current chain was pruned or quantised, in the panels of its subject.
function cuts(of) {
  let at = 0;
  if (groupOf(STEPS[trained(state.current) ?? state.current]) !== of) return [];
  const found = new Map();
  for (const i of chain(state.current)) {
    const { kind, density } = STEPS[i];
    if (at > 0 && kind === "quantize") found.set(at, "quantised");
    if (at > 0 && kind === "prune") found.set(at, density === null ? "pruned" : `pruned to ${format.share(density)}`);
    at += STEPS[i].steps;
  }
  const labelled = found.size <= 4;
  return [...found].map(([where, text]) => ({ at: where, text: labelled ? text : "" }));
}

function drawLegend(all, used, several) {
  const name = (i) => h("button", {
    type: "button", class: "key", "aria-pressed": String(!state.hidden.has(i)), "data-run": i,
    onclick: () => { state.hidden.delete(i) || state.hidden.add(i); drawCurves(); $("legend").querySelector(`[data-run="${i}"]`).focus(); },
  }, s("svg", { width: 22, height: 8, "aria-hidden": "true" }, s("path", { d: "M0 4H22", style: { stroke: ink(i), strokeDasharray: dash(i) } })), h("span", {}, title(i) + (several ? `, ${groupOf(STEPS[i])}` : "")));
  const head = h("tr", {}, h("th", { scope: "col" }, "chain to"), ...used.map(([, label]) => h("th", { scope: "col" }, label)), h("th", { scope: "col" }, "Test at the end"));
  const rows = all.map((i) => h("tr", {}, h("th", { scope: "row" }, name(i)),
    ...used.map(([key]) => h("td", { "data-run": i, "data-key": key })), h("td", {}, format.percent(STEPS[i].accuracy))));
  $("legend").replaceChildren(h("div", { class: "scroll" }, h("table", { class: "read" }, h("thead", {}, head), h("tbody", {}, ...rows))));
}

function moveCursor(at) {
  state.at = Math.round(Math.max(0, Math.min(at, Number($("cursor").max))));
  $("cursor").value = state.at;
  $("at").textContent = format.whole(state.at);
  for (const picture of drawn) picture.move(state.at > picture.end ? null : state.at);
  const forms = new Map(PANELS.map(([key, , form]) => [key, form]));
  for (const cellOf of $("legend").querySelectorAll("td[data-key]")) {
    const run = Number(cellOf.dataset.run), key = cellOf.dataset.key;
    cellOf.textContent = state.hidden.has(run) ? "" : forms.get(key)(lastBefore(run, key, state.at));
  }
}

// The newest value at or before a place along a chain.
function lastBefore(run, key, at) {
  for (const { start, curve } of segments([run]).reverse())
    for (let k = curve.step.length - 1; k >= 0; k--) if (start + curve.step[k] <= at && curve[key][k] !== null) return curve[key][k];
  return null;
}

// --- layers ------------------------------------------------------------------------------------------------------------

function drawLayers() {
  const { layers } = more(state.current), total = layers.reduce((sum, layer) => sum + (layer.multiply_adds ?? 0), 0);
  $("layers-of").textContent = `of ${title(state.current)}; ticks are the other plotted steps`;
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

// --- accuracy against cost ---------------------------------------------------------------------------------------------

const COSTS = {
  density: ["density", (step) => step.density, format.share],
  work: ["multiply-adds", (step) => step.kept_multiply_adds ?? step.multiply_adds, format.si],
  bytes: ["bytes", (step) => step.bytes, format.bytes],
  ...(STEPS.some((step) => step.score) ? { score: ["score", (step) => step.score, format.score] } : {}),
};
const groupOf = (step) => `${step.network || "network"} on ${step.data || "data"}`;
const costed = () => STEPS.map((step, i) => ({ i, step, x: COSTS[state.cost][1](step), y: step.accuracy }))
  .filter(({ step, x, y }) => y !== null && x > 0 && groupOf(step) === state.group);

function drawFront() {
  const [name, , form] = COSTS[state.cost], all = costed();
  const hint = "Bars are one standard error. The line joins the steps that no other beats in both. Point at a step to read it, press it to select it.";
  $("front-note").textContent = "";
  if (!all.length) return $("scatter").replaceChildren(h("p", { class: "note" }, `No step tells its accuracy and its ${name}.`));
  // Steps between two trainings are often far below: the ends of chains set the range, unless all steps are asked for.
  const ends = all.filter(({ i }) => state.whole || !children[i].length || rank(i)), low = Math.min(...ends.map(reach(-1))), seen = all.filter(({ y }) => y >= low);
  const rest = `${hint}${seen.length < all.length ? ` ${all.length - seen.length} step${all.length - seen.length > 1 ? "s lie" : " lies"} below ${format.percent(low)}.` : ""}`;
  $("front-note").textContent = rest;
  const unit = state.cost === "work" ? ` ${name}` : "";
  const note = ({ i, step, x, y }) => `${title(i)}: ${format.percent(y)}${step.se === null ? "" : ` ± ${format.hundredths(step.se)}`} at ${form(x)}${unit}`;
  const best = [];
  for (const point of [...all].sort((a, b) => a.x - b.x || b.y - a.y)) if (!best.length || point.y > best.at(-1).y) best.push(point);
  const stairs = best.filter(({ y }) => y >= low).flatMap((point, at, shown) => [[point.x, point.y], ...(shown[at + 1] ? [[shown[at + 1].x, point.y]] : [])]);
  const onTop = [...seen].sort((a, b) => rank(a.i) - rank(b.i));
  const picture = plot({
    width: $("scatter").clientWidth, height: 320, title: "Test accuracy", label: `Test accuracy against ${name}, ${all.length} steps. Best at each cost: ${best.map(note).join("; ")}.`,
    x: { ...extent(seen.map((p) => p.x)), log: true, text: form, name: `${name}${state.cost === "work" ? " kept, for one image" : ""} (log)` },
    y: { lo: low, hi: Math.max(...seen.map(reach(1))), text: format.points },
    lines: [{ points: stairs, style: { stroke: "var(--faint)", strokeWidth: 1.2 } }, ...(state.cost === "score" ? [needed(seen, low)] : [])],
    dots: onTop.map((p) => ({
      x: p.x, y: p.y, err: p.step.se, shape: p.step.role, style: { color: rank(p.i) ? ink(p.i) : "var(--soft)" },
      enter: () => { $("front-note").textContent = note(p); }, leave: () => { $("front-note").textContent = rest; }, click: () => select(p.i),
    })),
  });
  $("scatter").replaceChildren(picture.svg);
}
const NEEDED = 0.9; // of the score game
const needed = (seen, low) => ({
  points: low <= NEEDED ? [Math.min(...seen.map((p) => p.x)), Math.max(...seen.map((p) => p.x))].map((x) => [x, NEEDED]) : [],
  style: { stroke: "var(--soft)", strokeWidth: 1.2, strokeDasharray: "4 3" },
});
const reach = (sign) => ({ step, y }) => y + sign * (step.se ?? 0);
const rank = (i) => (i === state.current ? 2 : state.plotted.has(i) ? 1 : 0);

function drawChoices() {
  const groups = [...new Set(STEPS.filter((step) => step.accuracy !== null).map(groupOf))];
  const current = groupOf(STEPS[state.current]);
  state.group = groups.includes(current) ? current : groups[0] ?? "";
  $("group").replaceChildren(...groups.map((name) => h("option", { value: name, selected: name === state.group ? "" : null }, name)));
  $("group").hidden = groups.length < 2;
  $("group").onchange = (event) => { state.group = event.target.value; drawFront(); };
  $("cost").replaceChildren(...Object.entries(COSTS).map(([key, [name]]) => h("label", {},
    h("input", { type: "radio", name: "cost", value: key, checked: key === state.cost ? "" : null, onchange: () => { state.cost = key; drawFront(); } }), h("span", {}, name))));
}

// --- the table ---------------------------------------------------------------------------------------------------------

const COLUMNS = [
  ["role", "step", null], ["network", "network", format.text], ["data", "data", format.text], ["accuracy", "accuracy, %", format.hundredths],
  ["se", "± se", format.hundredths], ["n", "n", format.whole], ["density", "density", format.share], ["kept", "parameters kept", format.whole],
  ["kept_multiply_adds", "multiply-adds kept", format.si], ["bytes", "bytes", format.whole], ["seconds", "time", format.seconds], ["conditions", "cond.", format.text],
];
const numeric = (key) => !["role", "network", "data", "conditions"].includes(key);

function drawTable() {
  const head = h("tr", {}, ...COLUMNS.map(([key, label]) => h("th", { scope: "col", class: numeric(key) ? "n" : null, "aria-sort": direction(key), "data-key": key },
    h("button", { type: "button", onclick: () => sortBy(key) }, label))));
  $("grid").replaceChildren(h("caption", { class: "unseen" }, "All steps; press a column’s name to sort by it"), h("thead", {}, head), h("tbody", {}, ...sorted().map(tableRow)));
  markTable();
}
const direction = (key) => (state.sort?.key !== key ? "none" : state.sort.up ? "ascending" : "descending");

function tableRow(i) {
  const step = STEPS[i], name = h("button", { type: "button", class: "link", title: step.name, onclick: () => select(i) }, step.title, " ", h("code", {}, step.short));
  return h("tr", { "data-step": i }, h("th", { scope: "row" }, name),
    ...COLUMNS.slice(1).map(([key, , form]) => h("td", { class: numeric(key) ? "n" : null }, form(step[key]))));
}

function sorted() {
  const rows = TREE.rows.map(({ i }) => i);
  if (!state.sort) return rows;
  const { key, up } = state.sort, value = (i) => (key === "role" ? title(i) : STEPS[i][key]);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
  return rows.sort((a, b) => (value(a) === null) - (value(b) === null) || (value(a) === null ? 0 : compare(value(a), value(b))));
}

function sortBy(key) {
  const up = state.sort?.key === key ? !state.sort.up : !numeric(key);
  state.sort = { key, up };
  drawTable();
  narrow();
  $("grid").querySelector(`th[data-key="${key}"] button`).focus();
  say(`sorted by ${key}, ${up ? "ascending" : "descending"}`);
}

function markTable() {
  for (const row of $("grid").querySelectorAll("tr[data-step]")) row.toggleAttribute("aria-current", Number(row.dataset.step) === state.current);
}

function narrow() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (step) => [step.name, step.role, step.label, step.network, step.data, ...step.settings.map(([key, value]) => `${key}=${value}`)].join(" ").toLowerCase();
  for (const row of $("grid").querySelectorAll("tr[data-step]")) row.hidden = !words.every((word) => text(STEPS[Number(row.dataset.step)]).includes(word));
}

// --- data behind the figures -------------------------------------------------------------------------------------------

const layerKeys = ["name", "type", "parameters", "prunable", "kept", "density", "multiply_adds", "kept_multiply_adds"];
const stepKeys = [
  "name", "role", "title", "kind", "network", "data", "accuracy", "se", "n", "loss", "val_accuracy", "val_n", "density", "parameters", "kept",
  "multiply_adds", "kept_multiply_adds", "bytes", "score", "seconds", "parts", "started", "conditions",
];
const around = (step) => [
  step.parent === null ? step.missing : STEPS[step.parent].name, settingsText(step),
  DATA.conditions[step.conditions].map((pair) => pair.join(" ")).join("; "),
];
const layerRow = (i) => (layer) => [STEPS[i].name, layer.shape.join("x"), ...layerKeys.map((key) => layer[key])];
const settingsText = (step) => [...DATA.common, ...step.settings].map((pair) => pair.join("=")).join("; ");
const CSV = {
  curves: () => {
    const parts = segments(runs().filter((i) => !state.hidden.has(i))), keys = Object.keys(parts[0]?.curve ?? {});
    return [["run", "start", ...keys], ...parts.flatMap(({ i, start, curve }) => curve.step.map((_, at) => [STEPS[i].name, start, ...keys.map((key) => curve[key][at])]))];
  },
  layers: () => {
    const shown = [...new Set([state.current, ...state.plotted.keys()])];
    return [["run", "shape", ...layerKeys], ...shown.flatMap((i) => more(i).layers.map(layerRow(i)))];
  },
  front: () => [["run", COSTS[state.cost][0], "accuracy", "standard_error", "n"], ...costed().map(({ step, x, y }) => [step.name, x, y, step.se, step.n])],
  steps: () => [
    [...stepKeys, "parent", "settings", "environment"],
    ...sorted().map((i) => [...stepKeys.map((key) => STEPS[i][key]), ...around(STEPS[i])]),
  ],
};

// --- all together ------------------------------------------------------------------------------------------------------

function drawFigures() {
  drawCurves();
  drawLayers();
  drawFront();
  markTable();
}

function theme() {
  const root = document.documentElement, dark = () => getComputedStyle(root).colorScheme === "dark" || (!root.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
  const show = () => $("theme").setAttribute("aria-pressed", String(dark()));
  $("theme").addEventListener("click", () => { root.style.colorScheme = dark() ? "light" : "dark"; show(); });
  show();
}

function press(id, key, draw) {
  $(id).addEventListener("click", () => { state[key] = !state[key]; $(id).setAttribute("aria-pressed", String(state[key])); draw(); });
}

// First the best ends of chains, then the rest stay a keypress away.
function start() {
  const ends = STEPS.map((_, i) => i).filter((i) => !children[i].length && trained(i) !== undefined);
  const here = (i) => groupOf(STEPS[i]) === groupOf(STEPS[state.current]);
  const best = [state.current, ...ends.sort((a, b) => here(b) - here(a) || (STEPS[b].accuracy ?? 0) - (STEPS[a].accuracy ?? 0))];
  unlike(best).slice(0, OPEN).forEach((i, slot) => state.plotted.set(i, slot));
  $("common").textContent = DATA.common.length ? `all with ${DATA.common.map((pair) => pair.join(" ")).join(", ")}` : "";
  $("tree").append(...TREE.rows.map(treeRow));
  $("tree").addEventListener("keydown", walk);
  document.querySelector(".row.cols .rails").style.width = RAILS;
  $("cursor").addEventListener("input", (event) => moveCursor(Number(event.target.value)));
  press("logloss", "log", drawCurves);
  press("whole", "whole", drawFront);
  for (const button of document.querySelectorAll("[data-csv]")) {
    button.setAttribute("aria-label", `Download the data of ${button.dataset.csv} as CSV`);
    button.addEventListener("click", () => download(`${button.dataset.csv}.csv`, csv(CSV[button.dataset.csv]()), "text/csv"));
  }
  $("filter").addEventListener("input", narrow);
  $("letters").replaceChildren(...Object.entries(DATA.conditions).map(([letter, rows]) => h("section", {}, h("h3", {}, letter), pairs(rows))));
  theme();
  drawChoices();
  drawMarks();
  drawDetail();
  drawFigures();
  drawTable();
  const box = $("tree").parentElement;
  box.scrollTop = $(`t-${state.current}`).offsetTop - box.clientHeight / 2;
  let width = 0;
  new ResizeObserver(() => {
    if (width && width !== $("scatter").clientWidth) { drawCurves(); drawFront(); }
    width = $("scatter").clientWidth;
  }).observe($("scatter"));
}
start();
