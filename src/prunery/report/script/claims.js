// What is promised and measured: every claim with its value, its target and PASS or MISS.

const CLAIMS = JSON.parse($("claims-data").textContent);
const verdict = (passes) => h("b", { class: passes ? "pass" : "miss" }, passes ? "PASS" : "MISS");

function drawClaims() {
  const found = CLAIMS.filter((row) => !state.misses || !row.passes), missed = CLAIMS.filter((row) => !row.passes).length;
  $("claims").hidden = $("to-claims").hidden = !CLAIMS.length;
  $("claims-of").textContent = `${CLAIMS.length - missed} of ${CLAIMS.length} hold what was promised`;
  const head = ["", "claim", "value", "spread", "n", "target", "result", "conditions"];
  const rows = found.map((row) => h("tr", {}, h("td", {}, verdict(row.passes)), h("th", { scope: "row" }, row.claim), h("td", { class: "n" }, row.value), h("td", {}, row.spread),
    h("td", { class: "n" }, row.n), h("td", {}, row.target), h("td", {}, row.result), h("td", {}, `${row.machine}; ${row.versions}; commit ${row.commit}`)));
  $("promises").replaceChildren(h("table", { class: "claims" }, h("caption", { class: "unseen" }, "Claims with their conditions"),
    h("thead", {}, h("tr", {}, ...head.map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))), h("tbody", {}, ...rows)));
}
