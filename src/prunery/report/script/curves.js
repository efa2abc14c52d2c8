// Training curves along chains, read at a cursor.

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
