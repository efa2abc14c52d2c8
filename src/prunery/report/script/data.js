// The data behind the figures, as CSV.

const layerKeys = ["name", "type", "parameters", "prunable", "kept", "density", "multiply_adds", "kept_multiply_adds"];
const stepKeys = [
  "name", "role", "title", "kind", "network", "data", "accuracy", "se", "n", "loss", "val_accuracy", "val_n", "density", "of_first", "parameters", "kept",
  "multiply_adds", "kept_multiply_adds", "bytes", "score", "seconds", "parts", "started", "conditions",
];
const around = (step) => [
  step.parent === null ? step.missing : STEPS[step.parent].name, settingsText(step),
  DATA.conditions[step.conditions].map((pair) => pair.join(" ")).join("; "),
];
const layerRow = (i) => (layer) => [STEPS[i].name, layer.shape.join("x"), ...layerKeys.map((key) => layer[key])];
const settingsText = (step) => [...DATA.common, ...step.settings].map((pair) => pair.join("=")).join("; ");
const CSV = {
  curves: () => {
    const parts = segments(runs().filter((i) => !state.hidden.has(i))), keys = Object.keys(parts[0]?.curve ?? {});
    return [["run", "start", ...keys], ...parts.flatMap(({ i, start, curve }) => curve.step.map((_, at) => [STEPS[i].name, start, ...keys.map((key) => curve[key][at])]))];
  },
  layers: () => {
    const shown = [...new Set([state.current, ...state.plotted.keys()])];
    return [["run", "shape", ...layerKeys], ...shown.flatMap((i) => more(i).layers.map(layerRow(i)))];
  },
  front: () => {
    const timed = state.cost === "ms", more = ({ low, high }) => [low, high, reading().about];
    return [["run", COSTS[state.cost][0], "accuracy", "standard_error", "n", ...(timed ? ["low", "high", "conditions"] : [])],
      ...costed().map(({ step, x, y }) => [step.name, x, y, step.se, step.n, ...(timed ? more(timesOf(step)) : [])])];
  },
  sensitivity: () => [["run", "layer", "density", "loss_rise"], ...more(sensed()).sensitivity.layers.flatMap(({ name, rises }) => rises.map(([x, y]) => [STEPS[sensed()].name, plain(name), x, y]))],
  engine: () => {
    const keys = ["name", "kernel", "density", "multiply_adds", "predicted_us", "measured_us", "bytes", "why"], found = timesOf(STEPS[state.current]);
    return [["run", "conditions", ...keys], ...(found?.layers ?? []).map((layer) => [STEPS[state.current].name, reading().about, ...keys.map((key) => layer[key])])];
  },
  compare: () => {
    const { shown, results, settings } = comparison();
    return [["", ...shown.map((i) => STEPS[i].name)], ...[...results, ...settings].map(([key, values]) => [key, ...values])];
  },
  lottery: () => {
    const found = lottery(), keys = Object.keys(found.metrics), edges = ["mean", "min", "max", "low95", "high95"];
    return [["arm", "percent", "networks", ...keys.flatMap((key) => edges.map((edge) => `${key}_${edge}`))],
      ...found.levels.map((row) => [row.arm, row.percent, row.networks, ...keys.flatMap((key) => row[key])])];
  },
  claims: () => {
    const keys = Object.keys(CLAIMS[0]);
    return [keys, ...CLAIMS.map((row) => keys.map((key) => row[key]))];
  },
  steps: () => [
    [...stepKeys, "parent", "settings", "environment"],
    ...sorted().map((i) => [...stepKeys.map((key) => STEPS[i][key]), ...around(STEPS[i])]),
  ],
};
