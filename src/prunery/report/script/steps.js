// What every part asks: the steps, their chains, the one state of the page, and which steps are plotted.

const DATA = JSON.parse($("data").textContent);
const STEPS = DATA.steps, COLORS = 6, SLOTS = 18, OPEN = 6, PAGE = 100;
const state = { current: DATA.current, plotted: new Map(), hidden: new Set(), log: false, whole: false, at: null, sort: null, cost: "density", group: "", linear: false,
  alike: false, misses: false, ownScales: false, reading: 0, before: null, lottery: 0, metric: "accuracy_at_end", lotteryLog: false, noArms: new Set(), rows: PAGE, printing: false };
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
// Where surgery made the network smaller, what is left of the chain’s first one is less than the step’s own density.
const cut = (step) => step.of_first !== step.density;
const children = STEPS.map(() => []);
STEPS.forEach((step, i) => step.parent !== null && children[step.parent].push(i));
const say = (text) => { $("status").textContent = text; };


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
const TRAINED = [];
STEPS.forEach((step, i) => { TRAINED[i] = step.curves ? i : step.parent === null ? undefined : TRAINED[step.parent]; });
const trained = (i) => TRAINED[i];
const unlike = (steps) => {
  const seen = new Set();
  return steps.filter((i) => !seen.has(trained(i)) && seen.add(trained(i)));
};
// The plotted steps, and the current one where none of them has its curves.
const runs = () => unlike([...state.plotted.keys(), state.current]).filter((i) => trained(i) !== undefined);
const ink = (i) => (state.plotted.has(i) ? `var(--s${state.plotted.get(i) % COLORS})` : "var(--ink)");
const dash = (i) => ["none", "5 3", "1.5 2.5"][Math.floor((state.plotted.get(i) ?? 0) / COLORS)];

function select(i, focus = false) {
  state.current = i;
  show(i);
  drawMarks();
  drawDetail();
  drawFigures();
  if (focus) $(`t-${i}`).focus();
  say(`${title(i)} selected`);
}
