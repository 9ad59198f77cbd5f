// Score histograms by product: drawn when they come near the visible area, thresholds updated later.

const histograms = new Map();
const MAX_HISTOGRAMS = 12; // shown before the button "Show all" is clicked
let allHistograms = false;

const byProduct = new Map(PRODUCTS.map((product) => [product, []]));
for (const image of IMAGES) if (image.score !== null) byProduct.get(image.product).push(image);

function drawHistograms() {
  const container = byId("histograms");
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const item = histograms.get(entry.target.dataset.product);
      item.near = entry.isIntersecting;
      if (item.near) moveThresholds(item);
    }
  }, { rootMargin: "300px" });
  for (const product of PRODUCTS) {
    const note = make("p", { class: "note" }), chart = make("div", { class: "chart" });
    const card = make("figure", { class: "histogram", "data-product": product },
      make("figcaption", {}, bdi(product)), chart, note);
    histograms.set(product, { product, card, chart, note, near: false, scale: null });
    container.append(card);
    watcher.observe(card);
  }
  byId("scores-key").append(
    make("span", {}, make("i", { class: "box good" }), "normal"),
    make("span", {}, make("i", { class: "box calibration" }), "held-out calibration images, which set the thresholds"),
    make("span", {}, make("i", { class: "box bad" }), "defective"),
    make("span", {}, make("i", { class: "dash solid" }), "threshold: anomalous"),
    make("span", {}, make("i", { class: "dash dashed" }), "threshold: uncertain"));
  byId("histograms-more").addEventListener("click", () => {
    allHistograms = !allHistograms;
    showHistograms();
  });
}

function showHistograms() {
  PRODUCTS.forEach((product, n) => {
    const item = histograms.get(product);
    item.card.hidden = state.product ? product !== state.product : !allHistograms && n >= MAX_HISTOGRAMS;
    if (item.near && !item.card.hidden) moveThresholds(item);
  });
  const more = byId("histograms-more");
  more.hidden = Boolean(state.product) || PRODUCTS.length <= MAX_HISTOGRAMS;
  more.textContent = allHistograms ? `Show only the first ${MAX_HISTOGRAMS}` : `Show all ${PRODUCTS.length} products`;
}

function drawHistogram(item) {
  const images = byProduct.get(item.product), calibration = DATA.calibration[item.product] ?? [];
  const good = images.filter((image) => !image.anomalous).map((image) => image.score);
  const bad = images.filter((image) => image.anomalous).map((image) => image.score);
  const scale = scoreScale([...good, ...bad, ...calibration]);
  const counts = { good: countBins(good, scale), calibration: countBins(calibration, scale), bad: countBins(bad, scale) };
  const sizes = { good: good.length || 1, calibration: calibration.length || 1, bad: bad.length || 1 };
  const share = (kind, n) => counts[kind][n] / sizes[kind];
  const highest = (kinds) => Math.max(1e-9, ...kinds.flatMap((kind) => counts[kind].map((_, n) => share(kind, n))));
  const up = (AXIS_Y - 22) / highest(["good", "calibration"]), down = (HEIGHT - AXIS_Y - 36) / highest(["bad"]);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `Scores of ${item.product}: ${good.length} normal, ${calibration.length} calibration and ${bad.length} defective images` });
  const width = (WIDTH - 2 * MARGIN_X) / BINS, outline = [];
  for (let n = 0; n < BINS; n += 1) {
    const x = MARGIN_X + n * width, above = share("good", n) * up, below = share("bad", n) * down;
    if (above) svg.append(draw("rect", { class: "good", x: x + 0.6, y: AXIS_Y - above, width: width - 1.2, height: above, rx: 1 }));
    if (below) svg.append(draw("rect", { class: "bad", x: x + 0.6, y: AXIS_Y, width: width - 1.2, height: below, rx: 1 }));
    const edge = AXIS_Y - share("calibration", n) * up;
    outline.push(`${x},${edge} ${x + width},${edge}`);
    svg.append(draw("rect", { class: "hover-area", x, y: 14, width, height: HEIGHT - 34,
      "data-tip": `score ${formatNumber(scale.at(n / BINS))} to ${formatNumber(scale.at((n + 1) / BINS))}: ${counts.good[n]} normal, ${counts.calibration[n]} calibration, ${counts.bad[n]} defective` }));
  }
  if (calibration.length) svg.append(draw("polyline", { class: "calibration", points: outline.join(" ") }));
  svg.append(draw("line", { class: "base", x1: MARGIN_X, x2: WIDTH - MARGIN_X, y1: AXIS_Y, y2: AXIS_Y }));
  for (const value of scoreTicks(scale)) {
    svg.append(draw("text", { class: "axis", x: scale.x(value), y: HEIGHT - 6, "text-anchor": "middle", text: formatNumber(value) }));
    svg.append(draw("line", { class: "tick", x1: scale.x(value), x2: scale.x(value), y1: HEIGHT - 20, y2: HEIGHT - 16 }));
  }
  const lines = {};
  for (const kind of ["uncertain", "anomalous"]) {
    lines[kind] = draw("g", { class: `limit ${kind}` },
      draw("line", { y1: 14, y2: HEIGHT - 20 }), draw("text", { y: 11, "text-anchor": "middle" }));
    svg.append(lines[kind]);
  }
  item.chart.replaceChildren(svg);
  Object.assign(item, { scale, lines, calibrationCount: calibration.length });
}

/** Draws both thresholds at the selected rates; a note explains a missing or pooled threshold. */
function moveThresholds(item) {
  if (!item.scale) drawHistogram(item);
  const missing = [];
  let pooledShown = false; // a drawn threshold comes from the images of all products
  for (const [kind, rate] of [["anomalous", state.rate], ["uncertain", state.uncertain]]) {
    const value = threshold(item.product, rate, kind), group = item.lines[kind];
    const shown = value !== null && !(kind === "uncertain" && state.uncertain <= state.rate);
    group.classList.toggle("off", !shown);
    if (value === null || rate < smallestRate(item.product) - 1e-12) {
      missing.push(rate);
      pooledShown ||= shown;
    }
    if (!shown) continue;
    const x = Math.min(Math.max(item.scale.x(value), MARGIN_X), WIDTH - MARGIN_X);
    const [line, label] = group.children;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    label.setAttribute("x", Math.min(Math.max(x, 24), WIDTH - 24));
    label.textContent = kind === "anomalous" ? formatNumber(value) : "";
  }
  const note = item.scale.logarithmic ? "Logarithmic scale. " : "";
  item.note.textContent = note + (missing.length ? missingThresholdNote(item, missing) : "")
    + (pooledShown ? " The threshold drawn here is such a pooled threshold." : "") + trueRateNote(item.product);
}

/** Says in which range the true false-alarm rate lies, where it is known for the selected rate. */
function trueRateNote(product) {
  const range = state.rate === RATES.anomalous ? DATA.true_rates[product] : null;
  if (!range) return "";
  return ` True rate at ${percent(state.rate)}: ${range.map((end) => percent(end, 1)).join(" to ")} in 95${SPACE}% of such calibrations.`;
}

function missingThresholdNote(item, missing) {
  const rates = missing.length > 1 && missing[0] !== missing[1] ? missing.map((rate) => percent(rate)) : [percent(missing[0])];
  if (!item.calibrationCount) return "No threshold from this product’s own images: it has no calibration images.";
  if (DATA.threshold_curves[item.product]) {
    return `No threshold at ${joinWords(rates)}: the calibration images of all products allow ${percent(smallestRate(item.product))} or more.`;
  }
  const guarantee = plural(item.calibrationCount, "calibration image guarantees", "calibration images guarantee");
  return `No threshold from this product’s own images at ${joinWords(rates)}: ${guarantee} ${percent(smallestRate(item.product))} or more. For lower rates, the calibration images of all products are pooled.`;
}
