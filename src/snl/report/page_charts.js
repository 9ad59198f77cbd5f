// Histograms of scores, one a product: drawn when they come into view, lines moved with the slider.

const BINS = 28, WIDE = 360, HIGH = 190, MIDDLE = 96, SIDE = 14;
const histograms = new Map();
const FEW = 12; // histograms shown before the button "show all"
let allHistograms = false;

const byProduct = new Map(PRODUCTS.map((product) => [product, []]));
for (const image of IMAGES) if (image.score !== null) byProduct.get(image.product).push(image);

function drawHistograms() {
  const place = byId("histograms");
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const item = histograms.get(entry.target.dataset.product);
      item.near = entry.isIntersecting;
      if (item.near) moveLines(item);
    }
  }, { rootMargin: "300px" });
  for (const product of PRODUCTS) {
    const note = make("p", { class: "note" }), chart = make("div", { class: "chart" });
    const card = make("figure", { class: "histogram", "data-product": product },
      make("figcaption", {}, name(product)), chart, note);
    histograms.set(product, { product, card, chart, note, near: false, scale: null });
    place.append(card);
    watcher.observe(card);
  }
  byId("scores-key").append(
    make("span", {}, make("i", { class: "box good" }), "normal"),
    make("span", {}, make("i", { class: "box held" }), "normal, held back to set the thresholds"),
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
    item.card.hidden = state.product ? product !== state.product : !allHistograms && n >= FEW;
    if (item.near && !item.card.hidden) moveLines(item);
  });
  const more = byId("histograms-more");
  more.hidden = Boolean(state.product) || PRODUCTS.length <= FEW;
  more.textContent = allHistograms ? `Show the first ${FEW} only` : `Show all ${PRODUCTS.length} products`;
}

/** A scale of scores; by powers where a few are far above the rest. */
function scoreScale(values) {
  const ordered = [...values].sort((a, b) => a - b);
  let low = ordered[0] ?? 0, high = ordered.at(-1) ?? 1;
  const middle = ordered[ordered.length >> 1] ?? 1;
  const powers = low > 0 && high > 8 * middle;
  if (high === low) { low -= 0.5; high += 0.5; }
  const bend = powers ? Math.log : (value) => value;
  const margin = 0.03 * (bend(high) - bend(low));
  const [from, to] = [bend(low) - margin, bend(high) + margin];
  const unbend = powers ? Math.exp : (value) => value;
  return {
    powers, low: unbend(from), high: unbend(to),
    x: (value) => SIDE + (bend(powers ? Math.max(value, 1e-300) : value) - from) / (to - from) * (WIDE - 2 * SIDE),
    at: (part) => unbend(from + part * (to - from)),
    bin: (value) => Math.min(BINS - 1, Math.max(0, Math.floor((bend(value) - from) / (to - from) * BINS))),
  };
}

function binned(values, scale) {
  const counts = new Array(BINS).fill(0);
  for (const value of values) counts[scale.bin(value)] += 1;
  return counts;
}

function drawHistogram(item) {
  const images = byProduct.get(item.product), held = FACTS.calibration[item.product] ?? [];
  const good = images.filter((image) => !image.anomalous).map((image) => image.score);
  const bad = images.filter((image) => image.anomalous).map((image) => image.score);
  const scale = scoreScale([...good, ...bad, ...held]);
  const groups = { good: binned(good, scale), held: binned(held, scale), bad: binned(bad, scale) };
  const sizes = { good: good.length || 1, held: held.length || 1, bad: bad.length || 1 };
  const part = (kind, n) => groups[kind][n] / sizes[kind];
  const top = (kinds) => Math.max(1e-9, ...kinds.flatMap((kind) => groups[kind].map((_, n) => part(kind, n))));
  const up = (MIDDLE - 22) / top(["good", "held"]), down = (HIGH - MIDDLE - 36) / top(["bad"]);
  const svg = draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
    "aria-label": `Scores of ${item.product}: ${good.length} normal, ${held.length} held back, ${bad.length} defective` });
  const width = (WIDE - 2 * SIDE) / BINS, outline = [];
  for (let n = 0; n < BINS; n += 1) {
    const x = SIDE + n * width, above = part("good", n) * up, below = part("bad", n) * down;
    if (above) svg.append(draw("rect", { class: "good", x: x + 0.6, y: MIDDLE - above, width: width - 1.2, height: above, rx: 1 }));
    if (below) svg.append(draw("rect", { class: "bad", x: x + 0.6, y: MIDDLE, width: width - 1.2, height: below, rx: 1 }));
    const edge = MIDDLE - part("held", n) * up;
    outline.push(`${x},${edge} ${x + width},${edge}`);
    svg.append(draw("rect", { class: "catch", x, y: 14, width, height: HIGH - 34,
      "data-tip": `score ${figure(scale.at(n / BINS))} to ${figure(scale.at((n + 1) / BINS))}: ${groups.good[n]} normal, ${groups.held[n]} held back, ${groups.bad[n]} defective` }));
  }
  if (held.length) svg.append(draw("polyline", { class: "held", points: outline.join(" ") }));
  svg.append(draw("line", { class: "base", x1: SIDE, x2: WIDE - SIDE, y1: MIDDLE, y2: MIDDLE }));
  for (const value of scoreTicks(scale)) {
    svg.append(draw("text", { class: "axis", x: scale.x(value), y: HIGH - 6, "text-anchor": "middle", text: figure(value) }));
    svg.append(draw("line", { class: "tick", x1: scale.x(value), x2: scale.x(value), y1: HIGH - 20, y2: HIGH - 16 }));
  }
  const lines = {};
  for (const kind of ["uncertain", "anomalous"]) {
    lines[kind] = draw("g", { class: `limit ${kind}` },
      draw("line", { y1: 14, y2: HIGH - 20 }), draw("text", { y: 11, "text-anchor": "middle" }));
    svg.append(lines[kind]);
  }
  item.chart.replaceChildren(svg);
  Object.assign(item, { scale, lines, held: held.length });
}

function scoreTicks(scale) {
  const fits = (value) => scale.x(value) > SIDE && scale.x(value) < WIDE - SIDE;
  if (!scale.powers) return ticks(scale.low, scale.high, 5).filter(fits);
  const values = [];
  for (let power = Math.floor(Math.log10(scale.low)); power <= Math.log10(scale.high); power += 1) {
    for (const factor of [1, 2, 5]) values.push(factor * 10 ** power);
  }
  const inside = values.filter(fits).map((value) => Number(value.toPrecision(3)));
  return inside.length > 7 ? inside.filter((_, n) => n % 2 === 0) : inside;
}

/** Puts both thresholds where the sliders stand, or says why one is not there. */
function moveLines(item) {
  if (!item.scale) drawHistogram(item);
  const missing = [];
  let lent = false; // a line that all products' images promise together
  for (const [kind, rate] of [["anomalous", state.rate], ["uncertain", state.uncertain]]) {
    const value = threshold(item.product, rate, kind), group = item.lines[kind];
    const shown = value !== null && !(kind === "uncertain" && state.uncertain <= state.rate);
    group.classList.toggle("off", !shown);
    if (value === null || rate < leastRate(item.product) - 1e-12) {
      missing.push(rate);
      lent ||= shown;
    }
    if (!shown) continue;
    const x = Math.min(Math.max(item.scale.x(value), SIDE), WIDE - SIDE);
    const [line, label] = group.children;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    label.setAttribute("x", Math.min(Math.max(x, 24), WIDE - 24));
    label.textContent = kind === "anomalous" ? figure(value) : "";
  }
  const note = item.scale.powers ? "Scale of powers: every step multiplies. " : "";
  item.note.textContent = note + (missing.length ? withoutThreshold(item, missing) : "")
    + (lent ? " A threshold drawn below that is theirs." : "");
}

function withoutThreshold(item, missing) {
  const rates = missing.length > 1 && missing[0] !== missing[1] ? missing.map((rate) => percent(rate)) : [percent(missing[0])];
  if (!item.held) return "No threshold of its own: no images were held back.";
  return `No threshold of its own at ${listed(rates)}: ${plural(item.held, "held-back image promises", "held-back images promise")} ${percent(leastRate(item.product))} at best; below that, all products’ images decide together.`;
}
