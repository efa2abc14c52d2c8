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

// Whatever steps there are.
function wire() {
  press("misses", "misses", drawClaims);
  press("lottery-log", "lotteryLog", drawLottery);
  for (const button of document.querySelectorAll("[data-csv]")) {
    button.setAttribute("aria-label", `Download the data of ${button.dataset.csv} as CSV`);
    button.addEventListener("click", () => download(`${button.dataset.csv}.csv`, csv(CSV[button.dataset.csv]()), "text/csv"));
  }
  $("theme").addEventListener("click", () => theme(isDark() ? "light" : "dark"));
  theme(document.documentElement.style.colorScheme);
}

// A page of lotteries and claims alone: what shows steps is not there, nor are the ways to it.
function startWithoutSteps() {
  for (const part of document.querySelectorAll("main > section[id]")) part.hidden = true;
  for (const link of document.querySelectorAll("nav a, .skip")) link.hidden = true;
  chooseLottery();
  drawClaims();
  drawLottery();
  watch("tickets", drawLottery);
  document.body.dataset.drawn = "all";
}

// First the best ends of chains, then the rest stay a keypress away.
function start() {
  wire();
  if (!STEPS.length) return startWithoutSteps();
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
  press("own-scales", "ownScales", drawSensitivity);
  $("filter").addEventListener("input", () => { state.rows = PAGE; drawTable(); });
  $("more").addEventListener("click", showMore);
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
  $("letters").replaceChildren(...Object.entries(DATA.conditions).map(([letter, rows]) => h("section", {}, h("h3", {}, letter), pairs(rows))));
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
  watch("scatter", () => {
    drawCurves();
    drawFront();
    drawLottery();
    drawRows();
  });
  document.body.dataset.drawn = "all";
}

// Drawn again at another width; also from no width at all, which is what a page has that is loaded out of sight.
function watch(id, draw) {
  let width = $(id).clientWidth;
  new ResizeObserver(() => {
    if (width === $(id).clientWidth) return;
    width = $(id).clientWidth;
    draw();
  }).observe($(id));
}
start();
