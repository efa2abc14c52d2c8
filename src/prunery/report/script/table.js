// All steps as a table, sorted and filtered.

const COLUMNS = [
  ["role", "step", null], ["network", "network", format.text], ["data", "data", format.text], ["accuracy", "accuracy, %", format.hundredths],
  ["se", "± se", format.hundredths], ["n", "n", format.whole], ["density", "density", format.share],
  ...(STEPS.some(cut) ? [["of_first", "of the first network", format.share]] : []), ["kept", "parameters kept", format.whole],
  ["kept_multiply_adds", "multiply-adds kept", format.si], ["bytes", "bytes", format.whole], ["seconds", "time", format.seconds], ["conditions", "cond.", format.text],
];
const numeric = (key) => !["role", "network", "data", "conditions"].includes(key);

function drawTable() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), found = sorted().filter((i) => words.every((word) => wordsOf(i).includes(word)));
  const head = h("tr", {}, ...COLUMNS.map(([key, label]) => h("th", { scope: "col", class: numeric(key) ? "n" : null, "aria-sort": direction(key), "data-key": key },
    h("button", { type: "button", onclick: () => sortBy(key) }, label))));
  $("grid").replaceChildren(h("caption", { class: "unseen" }, "All steps; press a column’s name to sort by it"), h("thead", {}, head), h("tbody", {}, ...found.slice(0, state.rows).map(tableRow)));
  $("more").hidden = found.length <= state.rows;
  $("more").textContent = `Show ${Math.max(0, Math.min(PAGE, found.length - state.rows))} more of ${format.whole(found.length)}`;
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
  $("grid").querySelector(`th[data-key="${key}"] button`).focus();
  say(`sorted by ${key}, ${up ? "ascending" : "descending"}`);
}

function markTable() {
  for (const row of $("grid").querySelectorAll("tr[data-step]")) Number(row.dataset.step) === state.current ? row.setAttribute("aria-current", "true") : row.removeAttribute("aria-current");
}

// What the filter looks through.
const TEXTS = new Map();
function wordsOf(i) {
  const step = STEPS[i];
  if (!TEXTS.has(i)) TEXTS.set(i, [step.name, step.role, step.label, step.network, step.data, ...step.settings.map(([key, value]) => `${key}=${value}`)].join(" ").toLowerCase());
  return TEXTS.get(i);
}

function showMore() {
  const before = state.rows;
  state.rows += PAGE;
  drawTable();
  $("grid").tBodies[0].rows[before]?.querySelector("button").focus();
}
