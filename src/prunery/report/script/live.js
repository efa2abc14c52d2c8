// A served page: asks its server every other second whether a step was finished, and how far those in the making are.

const EVERY = 2000, KEPT = "prunery";

// Before the page is loaded anew: where the reader was.
function remember() {
  const names = [...state.plotted.keys()].map((i) => STEPS[i].name);
  sessionStorage.setItem(KEPT, JSON.stringify({ current: STEPS[state.current].name, names, cost: state.cost, scheme: document.documentElement.style.colorScheme, y: scrollY }));
}

function remembered() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null"), at = (name) => STEPS.findIndex((step) => step.name === name);
  sessionStorage.removeItem(KEPT);
  if (!kept) return;
  state.plotted = new Map(kept.names.map(at).filter((i) => i >= 0).map((i, slot) => [i, slot]));
  if (COSTS[kept.cost]) { state.cost = kept.cost; drawChoices(); }
  theme(kept.scheme);
  if (at(kept.current) >= 0) select(at(kept.current));
  scrollTo({ top: kept.y, behavior: "instant" });
}

function working(steps) {
  const told = ({ name, row }) => [name, row.step && `step ${format.whole(row.step)}`, row.train_loss && `loss ${format.number(row.train_loss)}`,
    row.val_accuracy && `validation ${format.percent(row.val_accuracy)}`].filter(Boolean).join(", ");
  $("live").hidden = false;
  $("live").textContent = steps.length ? `In the making: ${steps.map(told).join("; ")}` : "Live: nothing is in the making.";
}

async function ask() {
  try {
    const answer = await fetch("state.json", { cache: "no-cache" });
    const found = await answer.json();
    if (found.version !== DATA.live) { remember(); return location.reload(); }
    working(found.working);
  } catch { $("live").hidden = false; $("live").textContent = "The server does not answer; what is shown stays as it was."; }
  setTimeout(ask, document.hidden ? 5 * EVERY : EVERY);
}
remembered();
ask();
