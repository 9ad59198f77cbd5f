// The summary in words and bars, the trade-off chart above the slider, and the outcome table.

const NORMAL_ORDER = ["pass", "uncertain", "unknown", "false_alarm"];
const DEFECT_ORDER = ["hit", "uncertain", "unknown", "miss"];
const KINDS = { normal: ["normal image", "normal images"], anomalous: ["defective image", "defective images"] };

function selectedImages() {
  return state.product ? IMAGES.filter((image) => image.product === state.product) : IMAGES;
}

function joinWords(parts) {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}

function normalWords(count) {
  if (!count.total) return "there are no normal images, so the observed false-alarm rate is unknown.";
  const flagged = count.total - count.pass;
  const kinds = [[count.false_alarm, "anomalous"], [count.uncertain, "uncertain"],
    [count.unknown, "unknown product"]].filter(([n]) => n).map(([n, word]) => `${formatCount(n)} ${word}`);
  const result = flagged ? `${formatCount(flagged)} ${flagged === 1 ? "was" : "were"} flagged (${kinds.join(", ")})` : "none was flagged";
  return `of ${plural(count.total, ...KINDS.normal)}, ${result}.`;
}

function defectWords(count) {
  if (!count.total) return "There are no defective images, so the detection rate is unknown.";
  const verb = (n) => `${n ? formatCount(n) : "none"} ${n > 1 ? "were" : "was"}`;
  const parts = [`${verb(count.hit)} detected`];
  if (count.uncertain) parts.push(`${verb(count.uncertain)} uncertain (to be checked by a person)`);
  if (count.unknown) parts.push(`${verb(count.unknown)} called an unknown product`);
  parts.push(`${verb(count.miss)} missed`);
  return `Of ${plural(count.total, ...KINDS.anomalous)}, ${joinWords(parts)}.`;
}

function showSummary(counts) {
  const { normal, anomalous } = counts.selected;
  const images = selectedImages();
  const first = make("p", { class: "headline" });
  if (state.product) first.append("Only ", bdi(state.product), ". ");
  first.append(`At a false-alarm rate of ${percent(state.rate)}: `);
  first.append(make("span", { id: "normal-words", text: normalWords(normal) }), " ",
    make("span", { id: "defect-words", text: defectWords(anomalous) }));
  const more = [];
  if (images.length && images.every((image) => image.p === null)) {
    more.push("No decision was possible, because there are too few held-out calibration images to set a threshold: all images are uncertain.");
  } else if (normal.total && normal.false_alarm) {
    more.push(`The observed false-alarm rate is ${percentOf(normal.false_alarm, normal.total)}; the selected one is ${percent(state.rate)}.`);
  }
  const recognised = images.filter((image) => image.recognised !== null);
  if (recognised.length) {
    const correct = recognised.filter((image) => image.recognised === image.product).length;
    more.push(`Product-recognition accuracy: ${percentOf(correct, recognised.length)} (${formatCount(correct)} of ${plural(recognised.length, "image", "images")}).`);
  }
  byId("sentences").replaceChildren(first, ...(more.length ? [make("p", { text: more.join(" ") })] : []));
  byId("labels").replaceChildren(labelPanel("normal", normal, NORMAL_ORDER), labelPanel("anomalous", anomalous, DEFECT_ORDER));
  const brief = [];
  if (anomalous.total) brief.push(`detected ${formatCount(anomalous.hit)} of ${formatCount(anomalous.total)}`);
  if (normal.total) brief.push(`false alarms ${formatCount(normal.false_alarm)} of ${formatCount(normal.total)}`);
  byId("brief").textContent = brief.join(" · ");
}

/** Returns a bar of the outcomes of all normal (or defective) images, and a button for each outcome. */
function labelPanel(kind, count, order) {
  const shown = order.filter((key) => key !== "unknown" || HAS_UNKNOWN);
  const good = count[order[0]];
  return make("div", { class: "label-panel" },
    make("p", { class: "label-head" },
      make("b", { text: plural(count.total, ...KINDS[kind]) }),
      make("span", { text: count.total ? `${percentOf(good, count.total)} ${OUTCOMES[order[0]].word}` : "" })),
    outcomeBar(count, order),
    make("div", { class: "label-keys" }, ...shown.map((key) => make("button", {
      type: "button", class: `quiet ${toneOf(key)}`, "data-outcome": key, "data-kind": kind,
      onclick: () => showOutcome(state.product, key, kind),
    }, make("i", { class: "swatch" }), make("b", { text: formatCount(count[key]) }), ` ${OUTCOMES[key].word}`))));
}

/** Returns the CSS class of an outcome's colour. */
function toneOf(key) {
  const { good } = OUTCOMES[key];
  return good === null ? key : good ? "right" : "wrong";
}

function outcomeBar(count, order) {
  const node = make("div", { class: "bar", "aria-hidden": "true" });
  for (const key of order) {
    if (!count[key]) continue;
    const part = make("i", { class: toneOf(key), "data-tip": `${OUTCOMES[key].word}: ${count[key]}` });
    part.style.flexGrow = count[key];
    node.append(part);
  }
  return node;
}

// the trade-off chart, with the scale of the slider

const tradeoff = { width: 0, product: null, unknown: 0 };
const THUMB = 10; // pixels; half the slider's thumb, where both scales begin

/** Returns a function from a rate to the share of images that are called anomalous at it. */
function cumulativeShare(images) {
  const values = images.filter((i) => i.p !== null && !isUnknown(i))
    .map((i) => i.p).sort((a, b) => a - b);
  return (rate) => {
    let low = 0, high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] <= rate) low = middle + 1; else high = middle;
    }
    return images.length ? low / images.length : null;
  };
}

function showTradeoff() {
  const box = byId("tradeoff"), width = Math.round(box.clientWidth), height = 132;
  if (!width) return;
  if (tradeoff.width !== width || tradeoff.product !== state.product || tradeoff.unknown !== state.unknown) {
    Object.assign(tradeoff, { width, product: state.product, unknown: state.unknown });
    const images = selectedImages();
    const lines = [
      ["detection", "detection rate", cumulativeShare(images.filter((image) => image.anomalous))],
      ["false-alarms", "observed false-alarm rate", cumulativeShare(images.filter((image) => !image.anomalous))],
      ["nominal", "selected false-alarm rate", (rate) => rate],
    ];
    const y = (value) => 6 + (1 - value) * (height - 12);
    const svg = draw("svg", { width, height, role: "img", "aria-label": "Detection rate and observed false-alarm rate as functions of the selected false-alarm rate" });
    for (const level of [0, 0.5, 1]) {
      svg.append(draw("line", { class: "grid", x1: 0, x2: width, y1: y(level), y2: y(level) }));
      if (level) svg.append(draw("text", { class: "axis", x: 2, y: y(level) + 12, text: percent(level) }));
    }
    for (const [kind, , value] of lines) {
      if (value(MIN_RATE) === null) continue;
      const points = [];
      for (let x = 0; x <= width - 2 * THUMB; x += 2) {
        points.push(`${x + THUMB},${y(value(rateAt(x / (width - 2 * THUMB)))).toFixed(1)}`);
      }
      svg.append(draw("polyline", { class: `line ${kind}`, points: points.join(" ") }));
    }
    svg.append(draw("line", { class: "now", id: "now", y1: 0, y2: height }));
    const keys = lines.filter(([, , value]) => value(MIN_RATE) !== null).map(([kind, word]) =>
      make("span", {}, make("i", { class: `dash ${kind}` }), word));
    box.replaceChildren(svg, make("p", { class: "key" }, ...keys));
  }
  const x = THUMB + positionOf(state.rate) * (width - 2 * THUMB);
  byId("now").setAttribute("x1", x);
  byId("now").setAttribute("x2", x);
}

/** Draws the scale under the slider, with a mark at the smallest rate that the calibration images of each product allow. */
function drawScale() {
  const scale = byId("scale");
  const at = (rate) => `calc(${THUMB}px + ${positionOf(rate)} * (100% - ${2 * THUMB}px))`;
  for (const product of PRODUCTS) {
    const basis = hasSharedTail(product) ? "the calibration images allow" : "its own calibration images guarantee";
    const mark = make("i", { class: "mark", "data-tip": `${product}: ${basis} ${percent(smallestRate(product))} or more` });
    mark.style.left = at(smallestRate(product));
    if (smallestRate(product) <= MAX_RATE) scale.append(mark);
  }
  for (const rate of [0.001, 0.01, 0.05, 0.1, 0.5]) {
    const label = make("span", { text: percent(rate) });
    label.style.left = at(rate);
    scale.append(label);
  }
}

/** Says for how many products the selected rate is guaranteed, and for how many it was only measured to hold. */
function showGuarantee() {
  const isAllowed = (rate) => rate <= state.rate + 1e-12;
  const count = (products) => make("b", { text: `${products.length} of ${plural(PRODUCTS.length, "product", "products")}` });
  const list = (products) => [...products.slice(0, 4).flatMap((product, n) => [n ? ", " : "", bdi(product)]),
    products.length > 4 ? ` and ${products.length - 4} more` : ""];
  const shared = PRODUCTS.filter(hasSharedTail), own = PRODUCTS.filter((product) => !hasSharedTail(product));
  const sentences = [];
  if (shared.length) {
    sentences.push(["For ", count(shared), `, thresholds follow from their own held-out images and the tail of all products’ scores: a false-alarm rate of ${percent(state.rate)} was measured to hold, it is not guaranteed.`]);
    const few = shared.filter((product) => !isAllowed(smallestRate(product)));
    if (few.length) sentences.push(["For ", ...list(few), `, the calibration images allow only ${percent(Math.max(...few.map(smallestRate)))} or more.`]);
  }
  if (own.length) {
    const enough = own.filter((product) => isAllowed(smallestRate(product)));
    sentences.push(["For ", count(enough), `, their own held-out calibration images guarantee a false-alarm rate of ${percent(state.rate)} (marks under the slider).`]);
    const pooled = own.filter((product) => !enough.includes(product)), rate = DATA.pooled_least_rate;
    if (pooled.length) {
      sentences.push(["For ", ...list(pooled), ", ", rate === null || rate >= 1
        ? "no rate is guaranteed, because there are no calibration images."
        : isAllowed(rate) ? "the calibration images of all products are pooled."
        : `this rate is not guaranteed: even the pooled calibration images of all products guarantee only ${percent(rate)} or more.`]);
    }
  }
  byId("guarantee").replaceChildren(...sentences.flatMap((sentence, n) => n ? [" ", ...sentence] : sentence));
  byId("band").textContent = state.uncertain <= state.rate ? "no uncertain band: not above the false-alarm rate"
    : `uncertain: p from ${percent(state.rate)} to ${percent(state.uncertain)}`;
}

// the outcome table: created once, then only its counts are updated

const COLUMNS = [
  ...NORMAL_ORDER.map((key) => ["normal", key]), ["normal", "bar"],
  ...DEFECT_ORDER.map((key) => ["anomalous", key]), ["anomalous", "bar"],
].filter(([, key]) => key !== "unknown" || HAS_UNKNOWN);
const cells = new Map();

function drawConfusion() {
  const width = COLUMNS.length / 2;
  const heads = COLUMNS.map(([kind, key]) => key === "bar"
    ? make("th", { scope: "col", class: "bars" }, make("span", { class: "hidden", text: "bar" }))
    : make("th", { scope: "col", class: kind, text: OUTCOMES[key].word }));
  const body = make("tbody");
  for (const product of PRODUCTS) {
    const row = make("tr", {}, make("th", { scope: "row" }, make("button", {
      type: "button", class: "quiet", "data-tip": "Show only this product",
      onclick: () => change({ product: state.product === product ? "" : product }),
    }, bdi(product))));
    const entry = { row, counts: [] };
    for (const [kind, key] of COLUMNS) {
      const inner = key === "bar" ? make("div") : make("button", {
        type: "button", class: `quiet ${toneOf(key)}`, onclick: () => showOutcome(product, key, kind),
      });
      row.append(make("td", { class: key === "bar" ? "bars" : key === "pass" || key === "hit" ? "begins" : "" }, inner));
      entry.counts.push(inner);
    }
    cells.set(product, entry);
    body.append(row);
  }
  byId("confusion").append(make("table", { class: "confusion" },
    make("thead", {},
      make("tr", {}, make("th", { scope: "col", rowspan: 2, text: "Product" }),
        make("th", { scope: "colgroup", colspan: width, text: "Normal images" }),
        make("th", { scope: "colgroup", colspan: width, text: "Defective images" })),
      make("tr", {}, ...heads)), body));
}

function showConfusion(counts) {
  for (const [product, { row, counts: inner }] of cells) {
    row.classList.toggle("chosen", state.product === product);
    COLUMNS.forEach(([kind, key], n) => {
      const count = counts.products.get(product)[kind];
      if (key === "bar") {
        inner[n].replaceChildren(outcomeBar(count, kind === "normal" ? NORMAL_ORDER : DEFECT_ORDER));
        return;
      }
      const text = count.total ? formatCount(count[key]) : "–";
      if (inner[n].textContent === text) return;
      inner[n].textContent = text;
      inner[n].setAttribute("aria-label", `${product}, ${KINDS[kind][1]}, ${OUTCOMES[key].word}: ${text}`);
      inner[n].classList.toggle("zero", !count[key]);
      inner[n].disabled = !count[key];
    });
  }
}
