// The summary in words and bars, the trade-off above the slider, and the table of outcomes.

const NORMAL_ORDER = ["pass", "uncertain", "unknown", "false_alarm"];
const DEFECT_ORDER = ["hit", "uncertain", "unknown", "miss"];
const KINDS = { normal: ["normal part", "normal parts"], anomalous: ["defective part", "defective parts"] };

function chosenImages() {
  return state.product ? IMAGES.filter((image) => image.product === state.product) : IMAGES;
}

function listed(parts) {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}

function normalWords(count) {
  if (!count.total) return "there are no normal parts among these images, so nothing is known of false alarms.";
  const flagged = count.total - count.pass;
  const kinds = [[count.false_alarm, "anomalous"], [count.uncertain, "uncertain"],
    [count.unknown, "of an unknown product"]].filter(([n]) => n).map(([n, word]) => `${tally(n)} ${word}`);
  const told = flagged ? `${tally(flagged)} ${flagged === 1 ? "was" : "were"} flagged (${kinds.join(", ")})` : "none was flagged";
  return `of ${plural(count.total, ...KINDS.normal)} ${told}.`;
}

function defectWords(count) {
  if (!count.total) return "There are no defective parts among these images, so nothing is known of missed defects.";
  const parts = [`${tally(count.hit)} ${count.hit === 1 ? "was" : "were"} found`];
  if (count.uncertain) parts.push(`${tally(count.uncertain)} left for a person to judge (uncertain)`);
  if (count.unknown) parts.push(`${tally(count.unknown)} taken for an unknown product`);
  parts.push(`${count.miss ? tally(count.miss) : "none"} missed`);
  return `Of ${plural(count.total, ...KINDS.anomalous)} ${listed(parts)}.`;
}

function showSummary(counts) {
  const { normal, anomalous } = counts.get("");
  const images = chosenImages();
  const first = make("p", { class: "headline" });
  if (state.product) first.append("Only ", name(state.product), ". ");
  first.append(`At a false-alarm rate of ${percent(state.rate)}: `);
  first.append(make("span", { id: "normal-words", text: normalWords(normal) }), " ",
    make("span", { id: "defect-words", text: defectWords(anomalous) }));
  const more = [];
  if (images.length && images.every((image) => image.p === null)) {
    more.push("No image could be judged, because there were too few held-back normal images to set a threshold: all are uncertain.");
  } else if (normal.total && normal.false_alarm) {
    more.push(`That is a false alarm on ${share(normal.false_alarm, normal.total)} of the normal parts; ${percent(state.rate)} were accepted.`);
  }
  const named = images.filter((image) => image.recognised !== null);
  if (named.length) {
    const right = named.filter((image) => image.recognised === image.product).length;
    more.push(`The product was recognised rightly on ${right === named.length ? "all" : `${tally(right)} of`} ${plural(named.length, "image", "images")}.`);
  }
  byId("sentences").replaceChildren(first, ...(more.length ? [make("p", { text: more.join(" ") })] : []));
  byId("truths").replaceChildren(truth("normal", normal, NORMAL_ORDER), truth("anomalous", anomalous, DEFECT_ORDER));
  const brief = [];
  if (anomalous.total) brief.push(`found ${tally(anomalous.hit)} of ${tally(anomalous.total)}`);
  if (normal.total) brief.push(`false alarms ${tally(normal.false_alarm)} of ${tally(normal.total)}`);
  byId("brief").textContent = brief.join(" · ");
}

/** One bar of all normal (or all defective) parts, and buttons that show the images of each part. */
function truth(kind, count, order) {
  const shown = order.filter((key) => key !== "unknown" || SOME_UNKNOWN);
  const good = count[order[0]];
  return make("div", { class: "truth" },
    make("p", { class: "truth-head" },
      make("b", { text: plural(count.total, ...KINDS[kind]) }),
      make("span", { text: count.total ? `${share(good, count.total)} ${OUTCOMES[order[0]].word}` : "" })),
    bar(count, order),
    make("div", { class: "truth-keys" }, ...shown.map((key) => make("button", {
      type: "button", class: `quiet ${tone(key)}`, "data-outcome": key, "data-kind": kind,
      onclick: () => showOutcome(state.product, key, kind),
    }, make("i", { class: "swatch" }), make("b", { text: tally(count[key]) }), ` ${OUTCOMES[key].word}`))));
}

function tone(key) {
  const { good } = OUTCOMES[key];
  return good === null ? key : good ? "right" : "wrong";
}

function bar(count, order) {
  const node = make("div", { class: "bar", "aria-hidden": "true" });
  for (const key of order) {
    if (!count[key]) continue;
    const part = make("i", { class: tone(key), "data-tip": `${OUTCOMES[key].word}: ${count[key]}` });
    part.style.flexGrow = count[key];
    node.append(part);
  }
  return node;
}

// the trade-off, drawn to the slider's own scale

const trade = { found: [], alarms: [], width: 0, product: null };
const THUMB = 10; // half the slider's thumb: both scales begin there

function shares(images) {
  const values = images.filter((i) => i.p !== null && !(i.unknownP !== null && i.unknownP <= RATES.unknown))
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
  if (trade.width !== width || trade.product !== state.product) {
    Object.assign(trade, { width, product: state.product });
    const images = chosenImages();
    const lines = [
      ["found", "defects found", shares(images.filter((image) => image.anomalous))],
      ["alarms", "false alarms seen", shares(images.filter((image) => !image.anomalous))],
      ["promise", "false alarms accepted", (rate) => rate],
    ];
    const y = (value) => 6 + (1 - value) * (height - 12);
    const svg = draw("svg", { width, height, role: "img", "aria-label": "Share of defects found and of false alarms, by the false-alarm rate" });
    for (const level of [0, 0.5, 1]) {
      svg.append(draw("line", { class: "grid", x1: 0, x2: width, y1: y(level), y2: y(level) }));
      if (level) svg.append(draw("text", { class: "axis", x: 2, y: y(level) + 12, text: percent(level) }));
    }
    for (const [kind, , value] of lines) {
      if (value(LEAST) === null) continue;
      const points = [];
      for (let x = 0; x <= width - 2 * THUMB; x += 2) {
        points.push(`${x + THUMB},${y(value(rateAt(x / (width - 2 * THUMB)))).toFixed(1)}`);
      }
      svg.append(draw("polyline", { class: `line ${kind}`, points: points.join(" ") }));
    }
    svg.append(draw("line", { class: "now", id: "now", y1: 0, y2: height }));
    const keys = lines.filter(([, , value]) => value(LEAST) !== null).map(([kind, word]) =>
      make("span", {}, make("i", { class: `dash ${kind}` }), word));
    box.replaceChildren(svg, make("p", { class: "key" }, ...keys));
  }
  const x = THUMB + placeOf(state.rate) * (width - 2 * THUMB);
  byId("now").setAttribute("x1", x);
  byId("now").setAttribute("x2", x);
}

/** The scale under the slider; a mark for every product where its own images begin to promise. */
function drawScale() {
  const scale = byId("scale");
  const at = (rate) => `calc(${THUMB}px + ${placeOf(rate)} * (100% - ${2 * THUMB}px))`;
  for (const product of PRODUCTS) {
    const mark = make("i", { class: "mark", "data-tip": `${product}: its own images can promise ${percent(leastRate(product))} and more` });
    mark.style.left = at(leastRate(product));
    if (leastRate(product) <= MOST) scale.append(mark);
  }
  for (const rate of [0.001, 0.01, 0.05, 0.1, 0.5]) {
    const label = make("span", { text: percent(rate) });
    label.style.left = at(rate);
    scale.append(label);
  }
}

function showPromise() {
  const able = PRODUCTS.filter((product) => leastRate(product) <= state.rate + 1e-12);
  const unable = PRODUCTS.filter((product) => !able.includes(product));
  const text = byId("promise");
  text.replaceChildren(make("b", { text: `${able.length} of ${plural(PRODUCTS.length, "product", "products")}` }),
    ` can promise ${percent(state.rate)} by held-back images of their own (the marks under the slider).`);
  if (unable.length) {
    text.append(" For ", ...unable.slice(0, 4).flatMap((product, n) => [n ? ", " : "", name(product)]),
      unable.length > 4 ? ` and ${unable.length - 4} more` : "");
    const all = FACTS.least_rates[ALL];
    if (all !== undefined && all <= state.rate + 1e-12) text.append(" the images of all products together decide.");
    else text.append(all === undefined ? " nothing is promised at this rate."
      : ` even all products together promise ${percent(all)} at best.`);
  }
  const none = state.uncertain <= state.rate;
  byId("band").textContent = none ? "no band: nothing lies between the two rates"
    : `uncertain: between ${percent(state.rate)} and ${percent(state.uncertain)}`;
}

// the table of outcomes: made once, its counts written anew

const COLUMNS = [
  ...NORMAL_ORDER.map((key) => ["normal", key]), ["normal", "bar"],
  ...DEFECT_ORDER.map((key) => ["anomalous", key]), ["anomalous", "bar"],
].filter(([, key]) => key !== "unknown" || SOME_UNKNOWN);
const cells = new Map();

function drawConfusion() {
  const width = COLUMNS.length / 2;
  const heads = COLUMNS.map(([kind, key]) => key === "bar"
    ? make("th", { scope: "col", class: "bars" }, make("span", { class: "hidden", text: "as a bar" }))
    : make("th", { scope: "col", class: kind, text: OUTCOMES[key].word }));
  const body = make("tbody");
  for (const product of PRODUCTS) {
    const row = make("tr", {}, make("th", { scope: "row" }, make("button", {
      type: "button", class: "quiet", "data-tip": "Show this product alone",
      onclick: () => change({ product: state.product === product ? "" : product }),
    }, name(product))));
    const entry = { row, counts: [] };
    for (const [kind, key] of COLUMNS) {
      const inner = key === "bar" ? make("div") : make("button", {
        type: "button", class: `quiet ${tone(key)}`, onclick: () => showOutcome(product, key, kind),
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
        make("th", { scope: "colgroup", colspan: width, text: "Normal parts" }),
        make("th", { scope: "colgroup", colspan: width, text: "Defective parts" })),
      make("tr", {}, ...heads)), body));
}

function showConfusion(counts) {
  for (const [product, { row, counts: inner }] of cells) {
    row.classList.toggle("chosen", state.product === product);
    COLUMNS.forEach(([kind, key], n) => {
      const count = counts.get(product)[kind];
      if (key === "bar") {
        inner[n].replaceChildren(bar(count, kind === "normal" ? NORMAL_ORDER : DEFECT_ORDER));
        return;
      }
      const text = count.total ? tally(count[key]) : "–";
      if (inner[n].textContent === text) return;
      inner[n].textContent = text;
      inner[n].setAttribute("aria-label", `${product}, ${KINDS[kind][1]}, ${OUTCOMES[key].word}: ${text}`);
      inner[n].classList.toggle("zero", !count[key]);
      inner[n].disabled = !count[key];
    });
  }
}
