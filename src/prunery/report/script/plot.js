"use strict";
// Elements, numbers and plots: what knows nothing of steps. Data becomes text nodes and attributes, never markup.

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const h = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);
const s = (tag, props = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
const $ = (id) => document.getElementById(id);

// --- numbers as text ---------------------------------------------------------------------------------------------------

const NARROW = "\u202f", NONE = "–";
const known = (format) => (value) => (value === null || value === undefined ? NONE : format(value));
const digits = (value) => value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
const si = known((value) => {
  let unit = 0;
  for (; value >= 999.5 && unit < 4; unit++) value /= 1000;
  return unit ? digits(value) + NARROW + " kMGT"[unit] : String(Math.round(value));
});
const format = {
  text: known((value) => value || NONE),
  hundredths: known((value) => (100 * value).toFixed(2)),
  percent: known((value) => (100 * value).toFixed(2) + NARROW + "%"),
  points: known((value) => String(Number((100 * value).toPrecision(4))) + NARROW + "%"),
  share: known((value) => digits(100 * value) + NARROW + "%"),
  whole: known((value) => Math.round(value).toLocaleString("en-US")),
  si,
  score: known((value) => value.toPrecision(3)),
  bytes: known((value) => si(value) + (value >= 1000 ? "" : NARROW) + "B"),
  number: known((value) => (value && Math.abs(value) < 1e-3 ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4))))),
  seconds: known((value) => {
    if (value < 100) return value.toFixed(1) + NARROW + "s";
    const minutes = Math.floor(value / 60);
    return minutes < 100 ? `${minutes}${NARROW}min ${String(Math.floor(value % 60)).padStart(2, "0")}` : digits(value / 3600) + NARROW + "h";
  }),
};

// A cell that a spreadsheet would run as a formula is made a text.
const cell = (value) => {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value.replace(/^(?=[=+\-@\t\r])/, "'") : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";

function download(name, text, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// --- axes --------------------------------------------------------------------------------------------------------------

function ticks(lo, hi, n) {
  const raw = (hi - lo) / n, size = 10 ** Math.floor(Math.log10(raw));
  const step = size * ([1, 2, 2.5, 5, 10].find((m) => m * size >= raw * 0.999) ?? 10);
  const first = Math.ceil(lo / step - 1e-9), count = Math.floor(hi / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function logTicks(lo, hi, n) {
  const decades = Math.log10(hi / lo), all = [];
  const factors = decades > 3 ? [1] : decades > 1 ? [1, 3] : decades > 0.5 ? [1, 2, 5] : null;
  if (!factors) return ticks(lo, hi, n);
  for (let e = Math.floor(Math.log10(lo)); e <= Math.ceil(Math.log10(hi)); e++)
    for (const f of factors) if (f * 10 ** e >= lo * 0.999 && f * 10 ** e <= hi * 1.001) all.push(Number((f * 10 ** e).toPrecision(3)));
  return all.filter((_, i) => i % Math.ceil(all.length / 8) === 0);
}

// Values to pixels and back; a little room at both ends unless `tight`.
function scale({ lo, hi, log, tight }, from, to) {
  const f = log ? Math.log10 : (v) => v, back = log ? (v) => 10 ** v : (v) => v;
  let [a, b] = [f(lo), f(hi)];
  const room = (b - a) * (tight ? 0 : 0.06) || (b === a ? Math.abs(a) * 0.1 || 1 : 0);
  [a, b] = [a - room, b + room];
  const place = (value) => from + ((f(value) - a) / (b - a)) * (to - from);
  place.back = (pixel) => back(a + ((pixel - from) / (to - from)) * (b - a));
  place.ticks = (n) => (log ? logTicks : ticks)(back(a), back(b), n);
  return place;
}

function extent(values) {
  let lo = Infinity, hi = -Infinity;
  for (const v of values) if (v !== null && Number.isFinite(v)) { lo = Math.min(lo, v); hi = Math.max(hi, v); }
  return lo <= hi ? { lo, hi } : null;
}

// --- a plot ------------------------------------------------------------------------------------------------------------

// {width, height, title, label, x, y, bands: [{points: [[x, low, high]], style}], lines: [{points, style}], marks: [{at, text}],
// dots: [{x, y, err, spread, shape, style, on}]}; an axis: {lo, hi, log, tight, reverse, text, name}
function plot(spec) {
  const { width, height } = spec, box = { left: 48, right: width - 10, top: 24, bottom: height - (spec.x.name ? 36 : 22) };
  const x = spec.x.reverse ? scale(spec.x, box.right, box.left) : scale(spec.x, box.left, box.right), y = scale(spec.y, box.bottom, box.top);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spec.label, class: "plot" });
  svg.append(s("text", { x: 0, y: 11, class: "name" }, spec.title));
  axes(svg, spec, box, x, y);
  for (const [row, mark] of (spec.marks ?? []).entries()) {
    const at = x(mark.at), end = at > width - 90;
    svg.append(s("path", { class: "mark", d: `M${at} ${box.top}V${box.bottom}` }),
      s("text", { class: "tick", x: at + (end ? -4 : 4), y: box.top + 8 + 11 * row, "text-anchor": end ? "end" : "start" }, mark.text));
  }
  for (const band of spec.bands ?? []) {
    const edge = (all, side) => all.map((point) => `${x(point[0]).toFixed(1)} ${y(point[side]).toFixed(1)}`);
    const around = [...edge(band.points, 2), ...edge([...band.points].reverse(), 1)];
    svg.append(s("path", { class: "band", d: `M${around.join("L")}Z`, style: band.style }));
  }
  for (const line of spec.lines ?? []) {
    const d = line.points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    svg.append(s("path", { class: "line", d, style: line.style }));
  }
  for (const dot of spec.dots ?? []) svg.append(dotted(dot, x, y));
  const hair = s("path", { class: "hair", d: "" });
  svg.append(hair);
  const move = (value) => hair.setAttribute("d", value === null ? "" : `M${x(value).toFixed(1)} ${box.top}V${box.bottom}`);
  const value = (event) => {
    const place = svg.getBoundingClientRect();
    return x.back(((event.clientX - place.left) / place.width) * width);
  };
  return { svg, move, value };
}

function axes(svg, spec, box, x, y) {
  for (const value of y.ticks(4)) {
    svg.append(s("path", { class: "rule", d: `M${box.left} ${y(value)}H${box.right}` }),
      s("text", { class: "tick", x: box.left - 6, y: y(value) + 3.5, "text-anchor": "end" }, spec.y.text(value)));
  }
  for (const value of x.ticks(Math.max(2, Math.floor((box.right - box.left) / 70)))) {
    svg.append(s("path", { class: "notch", d: `M${x(value)} ${box.bottom}v4` }),
      s("text", { class: "tick", x: x(value), y: box.bottom + 15, "text-anchor": "middle" }, spec.x.text(value)));
  }
  svg.append(s("path", { class: "base", d: `M${box.left} ${box.bottom}H${box.right}` }));
  if (spec.x.name) svg.append(s("text", { class: "tick", x: box.right, y: box.bottom + 31, "text-anchor": "end" }, spec.x.name));
}

// Outlines around 0,0 by role, so that colour is never the only sign.
const SHAPES = {
  init: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z", train: "M4.5 0A4.5 4.5 0 1 1-4.5 0A4.5 4.5 0 1 1 4.5 0Z",
  finetune: "M-4-4H4V4H-4Z", prune: "M-5-4H5L0 5Z", quantize: "M0-5.5L5.5 0L0 5.5L-5.5 0Z", pack: "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
  cross: "M-4-5L0-1L4-5L5-4L1 0L5 4L4 5L0 1L-4 5L-5 4L-1 0L-5-4Z", shrink: "M-5 4H5L0-5Z", reset: "M4-5V5L-5 0Z", factorise: "M-4-2L-2-4L0-2L2-4L4-2L2 0L4 2L2 4L0 2L-2 4L-4 2L-2 0Z",
};

function dotted(dot, x, y) {
  const group = s("g", { class: "dot", style: dot.style, onmouseenter: dot.enter, onmouseleave: dot.leave, onclick: dot.click });
  const [a, b] = [x(dot.x), y(dot.y)];
  if (dot.err) group.append(s("path", { class: "whisker", d: `M${a} ${y(dot.y - dot.err)}V${y(dot.y + dot.err)}` }));
  if (dot.spread) group.append(s("path", { class: "whisker", d: `M${x(dot.spread[0])} ${b}H${x(dot.spread[1])}` }));
  group.append(s("circle", { cx: a, cy: b, r: 11, class: "reach" }),
    s("path", { class: `glyph ${dot.shape}`, d: SHAPES[dot.shape] ?? SHAPES.train, transform: `translate(${a} ${b})` }));
  return group;
}
