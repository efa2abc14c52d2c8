// A lottery: an arm's mean over its networks with a band from the smallest to the largest, and the paper's points.

const LOTTERIES = JSON.parse($("lotteries-data").textContent);
const lottery = () => LOTTERIES[state.lottery];
const armsOf = (found) => [...new Set(found.levels.map(({ arm }) => arm))];
const armStyle = (nth) => ({ stroke: `var(--s${nth % COLORS})`, strokeDasharray: ["none", "5 3", "1.5 2.5"][Math.floor(nth / COLORS) % 3] });
const inMetric = (unit) => (unit === "%" ? (value) => `${Number(value.toFixed(2))}${NARROW}%` : format.si);
const weightShare = (percent) => format.share(percent / 100);

function drawLottery() {
  $("lottery").hidden = $("to-lottery").hidden = !LOTTERIES.length;
  if (!LOTTERIES.length) return;
  const found = lottery(), [label, unit] = found.metrics[state.metric], form = inMetric(unit), arms = armsOf(found);
  const shown = arms.map((arm, nth) => ({ arm, nth })).filter(({ arm }) => !state.noArms.has(arm));
  const rows = ({ arm }) => found.levels.filter((row) => row.arm === arm).sort((a, b) => b.percent - a.percent);
  const crosses = shown.flatMap(({ arm, nth }) => (found.paper[state.metric]?.[arm] ?? []).map(([x, y]) => ({ x, y, shape: "cross", style: { color: armStyle(nth).stroke } })));
  const of = (row) => row[state.metric], all = shown.flatMap((arm) => rows(arm));
  const values = [...all.flatMap((row) => [of(row)[1], of(row)[2]]), ...crosses.map(({ y }) => y)];
  const range = extent(values), log = state.lotteryLog && range?.lo > 0;
  $("lottery-note").textContent = [found.network && `${found.network}.`, "Lines are means over networks, bands reach from the smallest to the largest.",
    crosses.length && "Crosses: the paper’s points, read off its figures.", Object.keys(found.differs).length && `Not the paper’s: ${Object.entries(found.differs).map((pair) => pair.join(" = ")).join(", ")}.`,
    found.conditions && `Conditions: ${found.conditions}.`].filter(Boolean).join(" ");
  if (!all.length) $("tickets").replaceChildren(h("p", { class: "note" }, "Every arm is hidden; press one to see it."));
  else {
    const say = ({ arm }) => `${arm}: ${rows({ arm }).map((row) => `${form(of(row)[0])} at ${weightShare(row.percent)}`).join(", ")}`;
    $("tickets").replaceChildren(plot({
      width: $("tickets").clientWidth, height: 300, title: `${label}${log ? ", log" : ""}`, label: `${label} against the share of weights that is kept. ${shown.map(say).join("; ")}.`,
      x: { ...extent([...all.map((row) => row.percent), ...crosses.map(({ x }) => x)]), log: true, reverse: true, text: weightShare, name: "weights kept (log)" }, y: { ...range, log, text: form },
      bands: shown.map((arm) => ({ points: rows(arm).map((row) => [row.percent, of(row)[1], of(row)[2]]), style: { fill: armStyle(arm.nth).stroke } })),
      lines: shown.map((arm) => ({ points: rows(arm).map((row) => [row.percent, of(row)[0]]), style: armStyle(arm.nth) })),
      dots: crosses,
    }).svg);
  }
  $("arms").replaceChildren(...arms.map((arm, nth) => h("button", {
    type: "button", class: "key", "aria-pressed": String(!state.noArms.has(arm)), "data-arm": arm,
    onclick: () => { state.noArms.delete(arm) || state.noArms.add(arm); drawLottery(); $("arms").querySelector(`[data-arm="${arm}"]`).focus(); },
  }, s("svg", { width: 22, height: 8, "aria-hidden": "true" }, s("path", { d: "M0 4H22", style: armStyle(nth) })), h("span", {}, arm))));
  drawLotteryTables(found, label, form, shown, rows);
}

function drawLotteryTables(found, label, form, shown, rows) {
  const numbers = shown.flatMap((arm) => rows(arm).map((row) => h("tr", {}, h("th", { scope: "row" }, row.arm), h("td", { class: "n" }, weightShare(row.percent)),
    h("td", { class: "n" }, format.whole(row.networks)), ...row[state.metric].map((value) => h("td", { class: "n" }, value === null ? "" : form(value))))));
  const heads = ["arm", "weights", "networks", "mean", "smallest", "largest", "95 % low", "95 % high"];
  $("lottery-numbers").replaceChildren(h("table", {}, h("caption", { class: "unseen" }, label), h("thead", {}, h("tr", {}, ...heads.map((text, i) => h("th", { scope: "col", class: i ? "n" : null }, text)))), h("tbody", {}, ...numbers)));
  const spread = (v) => (v.spread ? `${format.number(v.low)} to ${format.number(v.high)}` : "");
  const verdicts = found.verdicts.map((v) => h("tr", {}, h("td", {}, verdict(v.verdict === "PASS")), h("th", { scope: "row" }, `${v.name} ${v.text}${v.stop ? ` (${v.stop} early stop)` : ""}`),
    h("td", { class: "n" }, `${format.number(v.value)} ${v.unit}`), h("td", {}, spread(v)), h("td", { class: "n" }, format.whole(v.n)), h("td", {}, v.paper), h("td", {}, v.expected)));
  $("lottery-claims").replaceChildren(h("table", { class: "claims" }, h("caption", { class: "unseen" }, "The paper’s claims and what became of them"),
    h("thead", {}, h("tr", {}, h("td"), ...["claim", "value", "interval", "n", "paper", "expected"].map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, ...verdicts)));
}

function chooseLottery() {
  if (!LOTTERIES.length) return;
  const options = (id, all, now, change) => {
    $(id).replaceChildren(...all.map(([value, text]) => h("option", { value, selected: value === now ? "" : null }, text)));
    $(id).onchange = (event) => { change(event.target.value); drawLottery(); };
  };
  options("which-lottery", LOTTERIES.map(({ name }, i) => [String(i), name]), "0", (value) => { state.lottery = Number(value); state.noArms.clear(); });
  options("metric", Object.entries(lottery().metrics).map(([key, [label]]) => [key, label]), state.metric, (value) => { state.metric = value; });
  $("which-lottery").hidden = LOTTERIES.length < 2;
}
