// Accuracy against what it costs, with the front.

const COSTS = {
  density: [STEPS.some(cut) ? "density of the first network" : "density", (step) => step.of_first, format.share],
  work: ["multiply-adds", (step) => step.kept_multiply_adds ?? step.multiply_adds, format.si],
  bytes: ["bytes", (step) => step.bytes, format.bytes],
  ...(TIMES.length ? { ms: ["milliseconds", (step) => timesOf(step)?.ms, ms] } : {}),
  ...(STEPS.some((step) => step.score) ? { score: ["score", (step) => step.score, format.score] } : {}),
};
const groupOf = (step) => `${step.network || "network"} on ${step.data || "data"}`;
const costed = () => STEPS.map((step, i) => ({ i, step, x: COSTS[state.cost][1](step), y: step.accuracy }))
  .filter(({ step, x, y }) => y !== null && x > 0 && groupOf(step) === state.group);

function drawFront() {
  const [name, , form] = COSTS[state.cost], all = costed();
  const hint = `${state.cost === "ms" ? `All points are of one reading, their steps timed in turns: ${reading().about}. Level bars reach over the turns. ` : ""}Upright bars are one standard error. The line joins the steps that no other beats in both. Point at a step to read it, press it to select it.`;
  $("front-note").textContent = "";
  if (!all.length) return $("scatter").replaceChildren(h("p", { class: "note" }, `No step tells its accuracy and its ${name}.`));
  // Steps between two trainings are often far below: the ends of chains set the range, unless all steps are asked for.
  const ends = all.filter(({ i }) => state.whole || !children[i].length || rank(i)), low = Math.min(...ends.map(reach(-1))), seen = all.filter(({ y }) => y >= low);
  const rest = `${hint}${state.cost === "score" && seen[0].step.data === GAME ? "Crosses are what others have published. " : ""}${seen.length < all.length ? ` ${all.length - seen.length} step${all.length - seen.length > 1 ? "s lie" : " lies"} below ${format.percent(low)}.` : ""}`;
  $("front-note").textContent = rest;
  const timed = state.cost === "ms", game = seen[0].step.data === GAME;
  const others = state.cost === "score" && game ? DATA.entries.filter((entry) => entry.accuracy >= low).map((entry) => ({ x: entry.score, y: entry.accuracy, name: entry.name })) : [];
  const unit = state.cost === "work" ? ` ${name}` : "";
  const note = ({ i, step, x, y }) => `${title(i)}: ${format.percent(y)}${step.se === null ? "" : ` ± ${format.hundredths(step.se)}`} at ${form(x)}${unit}${timed ? ` (turns from ${form(timesOf(step).low)} to ${form(timesOf(step).high)})` : ""}`;
  const best = [];
  for (const point of [...all].sort((a, b) => a.x - b.x || b.y - a.y)) if (!best.length || point.y > best.at(-1).y) best.push(point);
  const stairs = best.filter(({ y }) => y >= low).flatMap((point, at, shown) => [[point.x, point.y], ...(shown[at + 1] ? [[shown[at + 1].x, point.y]] : [])]);
  const onTop = [...seen].sort((a, b) => rank(a.i) - rank(b.i));
  const picture = plot({
    width: $("scatter").clientWidth, height: 320, title: "Test accuracy", label: `Test accuracy against ${name}, ${all.length} steps${timed ? `, ${reading().about}` : ""}. Best at each cost: ${best.map(note).join("; ")}.`,
    x: { ...extent([...seen.flatMap((p) => (timed ? [timesOf(p.step).low, timesOf(p.step).high] : [p.x])), ...others.map((p) => p.x)]), log: !state.linear, text: form, name: `${name}${state.cost === "work" ? " kept, for one image" : timed ? ` of a call, ${calls(reading())}` : ""}${state.linear ? "" : " (log)"}` },
    y: { lo: low, hi: Math.max(...seen.map(reach(1)), ...others.map((p) => p.y)), text: format.points },
    lines: [{ points: stairs, style: { stroke: "var(--faint)", strokeWidth: 1.2 } }, ...(state.cost === "score" || game ? [needed([...seen, ...others], low)] : [])],
    dots: [...others.map((p) => ({
      x: p.x, y: p.y, shape: "cross", style: { color: "var(--faint)" },
      enter: () => { $("front-note").textContent = `${p.name}, published by others: ${format.percent(p.y)} at ${form(p.x)}`; }, leave: () => { $("front-note").textContent = rest; },
    })), ...onTop.map((p) => ({
      x: p.x, y: p.y, err: p.step.se, spread: timed ? [timesOf(p.step).low, timesOf(p.step).high] : null, shape: p.step.role, style: { color: rank(p.i) ? ink(p.i) : "var(--soft)" },
      enter: () => { $("front-note").textContent = note(p); }, leave: () => { $("front-note").textContent = rest; }, click: () => select(p.i),
    }))],
  });
  $("scatter").replaceChildren(picture.svg);
}
const NEEDED = 0.9, GAME = "cifar10"; // of the score game
const needed = (seen, low) => ({
  points: low <= NEEDED ? [Math.min(...seen.map((p) => p.x)), Math.max(...seen.map((p) => p.x))].map((x) => [x, NEEDED]) : [],
  style: { stroke: "var(--soft)", strokeWidth: 1.2, strokeDasharray: "4 3" },
});
const reach = (sign) => ({ step, y }) => y + sign * (step.se ?? 0);
const rank = (i) => (i === state.current ? 2 : state.plotted.has(i) ? 1 : 0);

function drawChoices() {
  chooseReading();
  const groups = [...new Set(STEPS.filter((step) => step.accuracy !== null).map(groupOf))];
  const current = groupOf(STEPS[state.current]);
  state.group = groups.includes(current) ? current : groups[0] ?? "";
  $("group").replaceChildren(...groups.map((name) => h("option", { value: name, selected: name === state.group ? "" : null }, name)));
  $("group").hidden = groups.length < 2;
  $("group").onchange = (event) => { state.group = event.target.value; drawFront(); };
  $("cost").replaceChildren(...Object.entries(COSTS).map(([key, [name]]) => h("label", {},
    h("input", { type: "radio", name: "cost", value: key, checked: key === state.cost ? "" : null, onchange: () => { state.cost = key; chooseReading(); drawFront(); } }), h("span", {}, name))));
}
