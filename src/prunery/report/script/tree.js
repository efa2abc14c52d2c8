// The tree of steps: rows with their lanes, walked by keys.

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
  h("span", { class: "den", title: cut(step) ? `${format.share(step.of_first)} of the first network’s weights` : null }, step.density === null ? NONE : format.share(step.density), bar(step.density)), pin);
}

function bar(part, color) {
  const width = part === null ? 0 : Math.max(100 * part, part > 0 ? 1 : 0);
  return h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${width}%`, background: color ?? "" } }));
}

// A long tree has rows of one height, and only those in sight are in the document.
const LONG = 200, SPARE = 15, long = TREE.rows.length > LONG;
const PLACE = new Map(TREE.rows.map(({ i }, place) => [i, place]));
const rowHeight = () => (matchMedia("screen and (max-width: 720px)").matches ? 60 : 35);
let inDocument = "";

function drawRows() {
  const box = $("tree").parentElement, height = rowHeight(), count = TREE.rows.length;
  const whole = state.printing || !long, first = whole ? 0 : Math.max(0, Math.floor(box.scrollTop / height) - SPARE);
  const last = whole ? count : Math.min(count, Math.ceil((box.scrollTop + innerHeight) / height) + SPARE);
  if (inDocument === `${first} ${last} ${height}`) return;
  inDocument = `${first} ${last} ${height}`;
  const focused = $("tree").contains(document.activeElement);
  $("tree").classList.toggle("long", long);
  Object.assign($("tree").style, { paddingTop: `${first * height}px`, paddingBottom: `${(count - last) * height}px` });
  $("tree").replaceChildren(...TREE.rows.slice(first, last).map(treeRow));
  drawMarks();
  if (focused) $(`t-${state.current}`)?.focus({ preventScroll: true });
}

// Into the document and into sight.
function show(i, middle = false) {
  const box = $("tree").parentElement, height = rowHeight(), top = PLACE.get(i) * height;
  if (!long) return;
  if (middle || top < box.scrollTop || top > box.scrollTop + box.clientHeight - 2 * height) box.scrollTop = top - box.clientHeight / 2;
  drawRows();
}

function drawMarks() {
  const path = chain(state.current), next = new Map(path.map((i, at) => [i, path[at + 1]])), on = new Set(path);
  for (const { i } of TREE.rows) {
    const row = $(`t-${i}`), slot = state.plotted.has(i);
    if (!row) continue;
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
  const at = PLACE.get(state.current), last = TREE.rows.length - 1;
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
