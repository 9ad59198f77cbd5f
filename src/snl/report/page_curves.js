// ROC and PRO curves: chosen by the legend, read by pointing.

const PAINTS = 8, DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const POOLED = "pooled";
const CURVES = Object.keys(FACTS.curves).sort((a, b) => (b === POOLED) - (a === POOLED) || PRODUCTS.indexOf(a) - PRODUCTS.indexOf(b));
const shownCurves = new Set(CURVES.slice(0, 9));
const FRAME = { width: 460, height: 360, left: 54, right: 24, top: 12, bottom: 44 };
const CHARTS = [
  { kind: "roc", title: "ROC: whole images", x: "normal parts flagged by mistake", y: "defective parts found" },
  { kind: "pro", title: "PRO: where the defect is", x: "good pixels marked by mistake", y: "defect area marked, mean over defects" },
].filter(({ kind }) => CURVES.some((key) => FACTS.curves[key][kind]?.[0]?.length));

function curveStyle(key) {
  if (key === POOLED) return { class: "curve pooled", "stroke-dasharray": "" };
  const n = CURVES.indexOf(key) - (CURVES[0] === POOLED ? 1 : 0);
  return { class: `curve paint${n % PAINTS}`, "stroke-dasharray": DASHES[Math.floor(n / PAINTS) % DASHES.length] };
}

function drawCurves() {
  const section = byId("curves");
  section.hidden = CHARTS.length === 0;
  const legend = byId("legend");
  const all = (wanted) => () => {
    shownCurves.clear();
    if (wanted) for (const key of CURVES) shownCurves.add(key); else shownCurves.add(CURVES[0]);
    showCurves();
  };
  for (const key of CURVES) {
    const { class: kind, ...dash } = curveStyle(key);
    legend.append(make("button", {
      type: "button", class: "chip", "aria-pressed": "true", "data-curve": key,
      onclick: () => {
        if (!shownCurves.delete(key)) shownCurves.add(key);
        showCurves();
      },
    }, draw("svg", { viewBox: "0 0 22 8", width: 22, height: 8, "aria-hidden": "true" },
      draw("line", { class: kind, ...dash, x1: 1, x2: 21, y1: 4, y2: 4 })),
    key === POOLED ? "all pooled" : name(key)));
  }
  if (CURVES.length > 2) {
    legend.append(make("button", { type: "button", class: "chip plain", text: "all", onclick: all(true) }),
      make("button", { type: "button", class: "chip plain", text: "one", onclick: all(false) }));
  }
  for (const chart of CHARTS) drawFrame(chart);
}

function drawFrame(chart) {
  const { width, height, left, right, top, bottom } = FRAME;
  const most = Math.max(...CURVES.map((key) => Math.max(0, ...(FACTS.curves[key][chart.kind]?.[0] ?? [0]))));
  chart.most = most > 0 ? most : 1;
  chart.px = (value) => left + value / chart.most * (width - left - right);
  chart.py = (value) => top + (1 - value) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.title });
  for (const value of ticks(0, 1, 5)) {
    svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: chart.py(value), y2: chart.py(value) }),
      draw("text", { class: "axis", x: left - 6, y: chart.py(value) + 4, "text-anchor": "end", text: percent(value) }));
  }
  for (const value of ticks(0, chart.most, 5)) {
    svg.append(draw("text", { class: "axis", x: chart.px(value), y: height - bottom + 16, "text-anchor": "middle", text: percent(value) }));
  }
  svg.append(draw("text", { class: "name", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", text: chart.x }));
  if (chart.kind === "roc") svg.append(draw("line", { class: "chance", x1: chart.px(0), y1: chart.py(0), x2: chart.px(chart.most), y2: chart.py(chart.most) }));
  chart.lines = draw("g");
  chart.dots = draw("g");
  chart.cross = draw("line", { class: "cross off", y1: top, y2: height - bottom });
  svg.append(chart.lines, chart.cross, chart.dots);
  svg.addEventListener("pointermove", (event) => pointAt(chart, svg, event));
  svg.addEventListener("pointerleave", () => {
    chart.cross.classList.add("off");
    hideTip();
  });
  byId("curve-charts").append(make("figure", { class: "curves" },
    make("figcaption", {}, chart.title, make("small", { text: `upwards: ${chart.y}` })), svg));
}

function showCurves(counts) {
  for (const button of byId("legend").querySelectorAll("[data-curve]")) {
    button.setAttribute("aria-pressed", String(shownCurves.has(button.dataset.curve)));
  }
  for (const chart of CHARTS) {
    chart.lines.replaceChildren(...[...shownCurves].reverse().flatMap((key) => {
      const [x, y] = FACTS.curves[key][chart.kind] ?? [[], []];
      if (!x.length) return [];
      const points = x.map((value, n) => `${chart.px(value).toFixed(1)},${chart.py(y[n]).toFixed(1)}`);
      return [draw("polyline", { ...curveStyle(key), "data-curve": key, points: points.join(" ") })];
    }));
  }
  showDots(counts ?? judge());
}

/** On the ROC, what the decisions of this moment come to. */
function showDots(counts) {
  const chart = CHARTS.find(({ kind }) => kind === "roc");
  if (!chart) return;
  chart.dots.replaceChildren(...[...shownCurves].reverse().flatMap((key) => {
    const { normal, anomalous } = key === POOLED ? total(counts) : counts.get(key) ?? noCounts();
    if (!normal.total || !anomalous.total) return [];
    const at = [normal.false_alarm / normal.total, anomalous.hit / anomalous.total];
    return [draw("circle", { class: `${curveStyle(key).class} dot`, cx: chart.px(at[0]), cy: chart.py(at[1]), r: 4.5 })];
  }));
}

function total(counts) {
  const sum = noCounts();
  for (const product of PRODUCTS) {
    for (const kind of ["normal", "anomalous"]) {
      for (const [key, value] of Object.entries(counts.get(product)[kind])) sum[kind][key] += value;
    }
  }
  return sum;
}

/** The height of a curve; on an upright piece, its upper end. */
function heightAt([x, y], value) {
  let n = 0;
  while (n + 1 < x.length && x[n + 1] <= value) n += 1;
  if (n + 1 >= x.length || x[n] > value) return y[n];
  return y[n] + (y[n + 1] - y[n]) * (value - x[n]) / (x[n + 1] - x[n]);
}

function pointAt(chart, svg, event) {
  const box = svg.getBoundingClientRect();
  const inside = (event.clientX - box.left) / box.width * FRAME.width;
  const value = (inside - FRAME.left) / (FRAME.width - FRAME.left - FRAME.right) * chart.most;
  const within = value >= 0 && value <= chart.most;
  chart.cross.classList.toggle("off", !within);
  if (!within) return hideTip();
  chart.cross.setAttribute("x1", chart.px(value));
  chart.cross.setAttribute("x2", chart.px(value));
  const rows = [...shownCurves].filter((key) => FACTS.curves[key][chart.kind]?.[0]?.length)
    .map((key) => [key, heightAt(FACTS.curves[key][chart.kind], value)]).sort((a, b) => b[1] - a[1]);
  const lines = rows.slice(0, 10).map(([key, y]) => `${percent(y, 1)}  ${key === POOLED ? "all pooled" : key}`);
  if (rows.length > 10) lines.push(`and ${rows.length - 10} more`);
  return showTip([`at ${percent(value, 1)} ${chart.x}:`, ...lines].join("\n"), event.clientX, event.clientY);
}
