// All parts together, once at the start.

function drawFigures() {
  drawComparison();
  drawCurves();
  drawLayers();
  drawSensitivity();
  drawEngine();
  drawPictures();
  drawFront();
  markTable();
}

const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
function theme(scheme) {
  document.documentElement.style.colorScheme = scheme;
  $("theme").setAttribute("aria-pressed", String(isDark()));
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
  drawRows();
  $("tree").parentElement.addEventListener("scroll", () => drawRows());
  $("tree").addEventListener("keydown", walk);
  document.querySelector(".row.cols .rails").style.width = RAILS;
  $("cursor").addEventListener("input", (event) => moveCursor(Number(event.target.value)));
  press("logloss", "log", drawCurves);
  press("whole", "whole", drawFront);
  press("linear", "linear", drawFront);
  press("alike", "alike", drawComparison);
  press("misses", "misses", drawClaims);
  press("own-scales", "ownScales", drawSensitivity);
  press("lottery-log", "lotteryLog", drawLottery);
  for (const button of document.querySelectorAll("[data-csv]")) {
    button.setAttribute("aria-label", `Download the data of ${button.dataset.csv} as CSV`);
    button.addEventListener("click", () => download(`${button.dataset.csv}.csv`, csv(CSV[button.dataset.csv]()), "text/csv"));
  }
  $("filter").addEventListener("input", () => { state.rows = PAGE; drawTable(); });
  $("more").addEventListener("click", showMore);
  $("theme").addEventListener("click", () => theme(isDark() ? "light" : "dark"));
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
  $("letters").replaceChildren(...Object.entries(DATA.conditions).map(([letter, rows]) => h("section", {}, h("h3", {}, letter), pairs(rows))));
  theme(document.documentElement.style.colorScheme);
  drawChoices();
  drawMarks();
  drawDetail();
  show(state.current, true);
  const box = $("tree").parentElement;
  box.scrollTop = $(`t-${state.current}`).offsetTop - box.clientHeight / 2;
  // A long page is seen first and drawn to its end after that.
  if (long) requestAnimationFrame(() => setTimeout(below));
  else below();
}

// Paper holds all rows.
function printing(on) {
  state.printing = on;
  state.rows = on ? Infinity : PAGE;
  drawRows();
  drawTable();
}

function below() {
  drawFigures();
  drawTable();
  chooseLottery();
  drawClaims();
  drawLottery();
  // Also from no width at all, which is what a page has that is loaded out of sight.
  let width = $("scatter").clientWidth;
  new ResizeObserver(() => {
    if (width === $("scatter").clientWidth) return;
    width = $("scatter").clientWidth;
    drawCurves();
    drawFront();
    drawLottery();
    drawRows();
  }).observe($("scatter"));
  document.body.dataset.drawn = "all";
}
start();
