// Figures, the rule of decision, what is chosen, and small helpers. No picture is read here.

// without prototypes, so that a product may be called "constructor"
const FACTS = JSON.parse(document.getElementById("facts").textContent, (_, value) =>
  value && typeof value === "object" && !Array.isArray(value) ? Object.setPrototypeOf(value, null) : value);
const PRODUCTS = FACTS.products;
const RATES = FACTS.rates;
const ALL = "all products";
const LEAST = 0.001, MOST = 0.5; // ends of the sliders

const OUTCOMES = {
  miss: { word: "missed", plural: "Missed", good: false, decision: "normal" },
  false_alarm: { word: "false alarm", plural: "False alarms", good: false, decision: "anomalous" },
  uncertain: { word: "uncertain", plural: "Uncertain", good: null, decision: "uncertain" },
  unknown: { word: "unknown product", plural: "Unknown product", good: null, decision: "unknown" },
  hit: { word: "found", plural: "Found", good: true, decision: "anomalous" },
  pass: { word: "passed", plural: "Passed", good: true, decision: "normal" },
};
const DECISIONS = {
  normal: "normal", uncertain: "uncertain", anomalous: "anomalous", unknown: "unknown product",
};

const IMAGES = FACTS.images.path.map((path, index) => ({
  index, path,
  product: PRODUCTS[FACTS.images.product[index]],
  anomalous: FACTS.images.label[index] === "anomalous",
  defect: FACTS.images.defect[index] || "",
  score: FACTS.images.score[index],
  calibrated: FACTS.images.calibrated[index],
  p: FACTS.images.p_value[index],
  unknownP: FACTS.images.unknown_p[index],
  recognised: FACTS.images.recognised[index],
  mask: FACTS.images.mask[index],
  decision: "", outcome: "",
}));
for (const image of IMAGES) {
  image.text = `${image.path}\n${image.product}\n${image.defect}`.toLocaleLowerCase();
}
const SOME_MASK = IMAGES.some((image) => image.mask);
const SOME_UNKNOWN = IMAGES.some((image) => image.unknownP !== null);
rank();

/** Place of every image in the order of scores, 0..1: breaks ties of p-values, and stands for them. */
function rank() {
  const value = (image) => image.calibrated ?? image.score ?? -Infinity;
  const order = [...IMAGES].sort((a, b) => value(a) - value(b) || a.index - b.index);
  order.forEach((image, place) => { image.strength = (place + 0.5) / order.length; });
}

const FIRST = {
  rate: RATES.anomalous, uncertain: RATES.uncertain, product: "", outcome: "", query: "",
  sort: "worst",
};
const state = { ...FIRST };

/** The rule of decision; the same as in Python, and the only one on this page. */
function decide(image, rate, uncertain) {
  if (image.unknownP !== null && image.unknownP <= RATES.unknown) return "unknown";
  if (image.p === null) return "uncertain";
  if (image.p <= rate) return "anomalous";
  return image.p <= uncertain ? "uncertain" : "normal";
}

function outcome(image) {
  if (image.decision === "uncertain" || image.decision === "unknown") return image.decision;
  if (image.anomalous) return image.decision === "anomalous" ? "hit" : "miss";
  return image.decision === "anomalous" ? "false_alarm" : "pass";
}

function noCounts() {
  const zero = () => ({ total: 0, miss: 0, false_alarm: 0, uncertain: 0, unknown: 0, hit: 0, pass: 0 });
  return { normal: zero(), anomalous: zero() };
}

/** Decides all images; counts by product and, under "", for what the product filter leaves. */
function judge() {
  const counts = new Map([...PRODUCTS, ""].map((name) => [name, noCounts()]));
  for (const image of IMAGES) {
    image.decision = decide(image, state.rate, state.uncertain);
    image.outcome = outcome(image);
    const kind = image.anomalous ? "anomalous" : "normal";
    const places = [counts.get(image.product)[kind]];
    if (!state.product || image.product === state.product) places.push(counts.get("")[kind]);
    for (const place of places) {
      place.total += 1;
      place[image.outcome] += 1;
    }
  }
  return counts;
}

/** How wrong a decision is, for the order "worst first": 3.. wrong, 2 unknown, 1 uncertain, 0 right. */
function wrongness(image) {
  const { outcome: name, anomalous, p, strength } = image;
  const level = { miss: 3, false_alarm: 3, unknown: 2, uncertain: 1, hit: 0, pass: 0 }[name];
  const odd = 1 - (p ?? 0.5) + 1e-6 * strength; // how anomalous it was taken for
  return 4 * level + (anomalous ? 1 - odd : odd);
}

/** The score above which p <= rate by a product's own held-back images; null: too few of them. */
function threshold(product, rate, kind) {
  const scores = FACTS.calibration[product] ?? [];
  const k = Math.ceil(Number(((scores.length + 1) * (1 - rate)).toFixed(9)));
  if (k >= 1 && k <= scores.length) return scores[k - 1];
  return rate === RATES[kind] ? FACTS.thresholds[product]?.[kind] ?? null : null;
}

function leastRate(product) {
  return FACTS.least_rates[product] ?? 1 / ((FACTS.calibration[product]?.length ?? 0) + 1);
}

// words and figures

const SPACE = "\u202f"; // narrow, and keeps figure and sign on one line

function percent(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const hundred = 100 * value;
  const text = digits === undefined ? String(Number(hundred.toPrecision(3))) : hundred.toFixed(digits);
  return `${text}${SPACE}%`;
}

/** A share of counted things: whole percent, one decimal where that would say 0 or 100 falsely. */
function share(part, whole) {
  if (!whole) return "–";
  const digits = whole >= 200 && part !== whole && part !== 0 ? 1 : 0;
  return percent(part / whole, digits);
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 100 ? 5 : 4)));
}

function tally(count) { return count.toLocaleString("en-GB"); }

function plural(count, one, many) { return `${tally(count)} ${count === 1 ? one : many}`; }

function rateAt(place) { return LEAST * (MOST / LEAST) ** place; }
function placeOf(rate) {
  return Math.log(Math.min(Math.max(rate, LEAST), MOST) / LEAST) / Math.log(MOST / LEAST);
}

// elements; text is only ever set as text

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function icon(decision) {
  return draw("svg", { class: `icon ${decision}`, "aria-hidden": "true", viewBox: "0 0 16 16" },
    draw("use", { href: `#i-${decision}` }));
}

function name(text) { return make("bdi", { text }); }

function byId(id) { return document.getElementById(id); }

/** Three or more round values in a range, for an axis. */
function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) * power;
  const values = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) {
    values.push(Number((n * step).toPrecision(12)));
  }
  return values;
}
