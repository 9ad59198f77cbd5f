// ROC and PRO curves: selected in the legend, values in a tooltip.

const COLOUR_COUNT = 8, DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const INITIAL_CURVES = 9; // shown at first
const FRAME = { width: 460, height: 360, left: 54, right: 24, top: 12, bottom: 44 };

/** One entry for each legend item; `product` is null for the curves pooled over all products. */
const CURVES = [
  { product: null, label: "pooled over products", curves: DATA.pooled_curves },
  ...PRODUCTS.filter((product) => product in DATA.curves)
    .map((product) => ({ product, label: product, curves: DATA.curves[product] })),
].filter(({ curves }) => Object.keys(curves).length > 0);
CURVES.forEach((entry, n) => { entry.style = curveStyle(entry, CURVES[0].product === null ? n - 1 : n); });
const shownCurves = new Set(CURVES.slice(0, INITIAL_CURVES));

const CHARTS = [
  { kind: "roc", title: "ROC: images", x: "false-positive rate", y: "true-positive rate" },
  { kind: "pro", title: "PRO: defect regions", x: "pixel false-positive rate", y: "per-region overlap, mean over defect regions" },
].filter(({ kind }) => CURVES.some((entry) => hasCurve(entry, kind)));

function hasCurve({ curves }, kind) {
  return Boolean(curves[kind]?.[0]?.length);
}

function curveStyle({ product }, n) {
  if (product === null) return { class: "curve pooled", "stroke-dasharray": "" };
  return { class: `curve colour${n % COLOUR_COUNT}`, "stroke-dasharray": DASHES[Math.floor(n / COLOUR_COUNT) % DASHES.length] };
}

function drawCurves() {
  byId("curves").hidden = CHARTS.length === 0;
  const legend = byId("legend");
  const select = (entries) => () => {
    shownCurves.clear();
    for (const entry of entries) shownCurves.add(entry);
    showCurves();
  };
  for (const entry of CURVES) {
    const { class: kind, ...dash } = entry.style;
    entry.button = make("button", {
      type: "button", class: "chip", "aria-pressed": "true", "data-curve": entry.product,
      onclick: () => {
        if (!shownCurves.delete(entry)) shownCurves.add(entry);
        showCurves();
      },
    }, draw("svg", { viewBox: "0 0 22 8", width: 22, height: 8, "aria-hidden": "true" },
      draw("line", { class: kind, ...dash, x1: 1, x2: 21, y1: 4, y2: 4 })),
    entry.product === null ? entry.label : bdi(entry.label));
    legend.append(entry.button);
  }
  if (CURVES.length > 2) {
    legend.append(make("button", { type: "button", class: "chip plain", text: "show all", onclick: select(CURVES) }),
      make("button", { type: "button", class: "chip plain", text: "show only the first", onclick: select(CURVES.slice(0, 1)) }));
  }
  for (const chart of CHARTS) drawChart(chart);
}

function drawChart(chart) {
  const { width, height, left, right, top, bottom } = FRAME;
  const highest = Math.max(...CURVES.map(({ curves }) => Math.max(0, ...(curves[chart.kind]?.[0] ?? [0]))));
  chart.xMax = highest > 0 ? highest : 1;
  chart.px = (value) => left + value / chart.xMax * (width - left - right);
  chart.py = (value) => top + (1 - value) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.title });
  for (const value of ticks(0, 1, 5)) {
    svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: chart.py(value), y2: chart.py(value) }),
      draw("text", { class: "axis", x: left - 6, y: chart.py(value) + 4, "text-anchor": "end", text: percent(value) }));
  }
  for (const value of ticks(0, chart.xMax, 5)) {
    svg.append(draw("text", { class: "axis", x: chart.px(value), y: height - bottom + 16, "text-anchor": "middle", text: percent(value) }));
  }
  svg.append(draw("text", { class: "name", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", text: chart.x }));
  if (chart.kind === "roc") svg.append(draw("line", { class: "chance", x1: chart.px(0), y1: chart.py(0), x2: chart.px(chart.xMax), y2: chart.py(chart.xMax) }));
  chart.lines = draw("g");
  chart.points = draw("g");
  chart.cursor = draw("line", { class: "cursor off", y1: top, y2: height - bottom });
  svg.append(chart.lines, chart.cursor, chart.points);
  svg.addEventListener("pointermove", (event) => showValues(chart, svg, event));
  svg.addEventListener("pointerleave", () => {
    chart.cursor.classList.add("off");
    hideTip();
  });
  byId("curve-charts").append(make("figure", { class: "curves" },
    make("figcaption", {}, chart.title, make("small", { text: `y axis: ${chart.y}` })), svg));
}

function showCurves(counts) {
  for (const entry of CURVES) entry.button.setAttribute("aria-pressed", String(shownCurves.has(entry)));
  for (const chart of CHARTS) {
    chart.lines.replaceChildren(...[...shownCurves].reverse().filter((entry) => hasCurve(entry, chart.kind)).map((entry) => {
      const [x, y] = entry.curves[chart.kind];
      const points = x.map((value, n) => `${chart.px(value).toFixed(1)},${chart.py(y[n]).toFixed(1)}`);
      return draw("polyline", { ...entry.style, "data-curve": entry.product, points: points.join(" ") });
    }));
  }
  showOperatingPoints(counts ?? decideAll());
}

/** Marks on the ROC chart the rates that the current decisions have on these images. */
function showOperatingPoints(counts) {
  const chart = CHARTS.find(({ kind }) => kind === "roc");
  if (!chart) return;
  chart.points.replaceChildren(...[...shownCurves].reverse().flatMap((entry) => {
    const { normal, anomalous } = entry.product === null ? totalCounts(counts) : counts.products.get(entry.product);
    if (!normal.total || !anomalous.total) return [];
    const [x, y] = [normal.false_alarm / normal.total, anomalous.hit / anomalous.total];
    return [draw("circle", { class: `${entry.style.class} dot`, cx: chart.px(x), cy: chart.py(y), r: 4.5 })];
  }));
}

function totalCounts(counts) {
  const sum = emptyCounts();
  for (const count of counts.products.values()) {
    for (const kind of ["normal", "anomalous"]) {
      for (const [key, value] of Object.entries(count[kind])) sum[kind][key] += value;
    }
  }
  return sum;
}

/** Returns y of a curve at x, by linear interpolation; the upper end of a vertical segment. */
function curveValue([x, y], value) {
  let n = 0;
  while (n + 1 < x.length && x[n + 1] <= value) n += 1;
  if (n + 1 >= x.length || x[n] > value) return y[n];
  return y[n] + (y[n + 1] - y[n]) * (value - x[n]) / (x[n + 1] - x[n]);
}

/** Shows the values of all shown curves at the pointer in a tooltip. */
function showValues(chart, svg, event) {
  const box = svg.getBoundingClientRect();
  const position = (event.clientX - box.left) / box.width * FRAME.width;
  const value = (position - FRAME.left) / (FRAME.width - FRAME.left - FRAME.right) * chart.xMax;
  const inside = value >= 0 && value <= chart.xMax;
  chart.cursor.classList.toggle("off", !inside);
  if (!inside) return hideTip();
  chart.cursor.setAttribute("x1", chart.px(value));
  chart.cursor.setAttribute("x2", chart.px(value));
  const rows = [...shownCurves].filter((entry) => hasCurve(entry, chart.kind))
    .map((entry) => [entry.label, curveValue(entry.curves[chart.kind], value)]).sort((a, b) => b[1] - a[1]);
  const lines = rows.slice(0, 10).map(([label, y]) => `${percent(y, 1)}  ${label}`);
  if (rows.length > 10) lines.push(`and ${rows.length - 10} more`);
  return showTip([`${chart.x} ${percent(value, 1)}:`, ...lines].join("\n"), event.clientX, event.clientY);
}
