// The page's data and state, and the decision rule. No thumbnails are read here.

// objects without prototype, so that a product may be called "constructor"
const DATA = JSON.parse(document.getElementById("data").textContent, (_, value) =>
  value && typeof value === "object" && !Array.isArray(value) ? Object.setPrototypeOf(value, null) : value);
const PRODUCTS = DATA.products;
const RATES = DATA.rates;
const MIN_RATE = 0.001, MAX_RATE = 0.5; // ends of the sliders

const OUTCOMES = {
  miss: { word: "missed", plural: "Missed", good: false, decision: "normal" },
  false_alarm: { word: "false alarm", plural: "False alarms", good: false, decision: "anomalous" },
  uncertain: { word: "uncertain", plural: "Uncertain", good: null, decision: "uncertain" },
  unknown: { word: "unknown product", plural: "Unknown product", good: null, decision: "unknown" },
  hit: { word: "detected", plural: "Detected", good: true, decision: "anomalous" },
  pass: { word: "passed", plural: "Passed", good: true, decision: "normal" },
};
const DECISIONS = {
  normal: "normal", uncertain: "uncertain", anomalous: "anomalous", unknown: "unknown product",
};

const IMAGES = DATA.images.path.map((path, index) => ({
  index, path,
  product: PRODUCTS[DATA.images.product[index]],
  anomalous: DATA.images.label[index] === "anomalous",
  defect: DATA.images.defect[index] || "",
  score: DATA.images.score[index],
  calibrated: DATA.images.calibrated[index],
  p: DATA.images.p_value[index],
  unknownP: DATA.images.unknown_p[index],
  recognised: DATA.images.recognised[index],
  part: DATA.images.part[index],
  mask: DATA.images.mask[index],
  sha256: DATA.images.sha256[index],
  decision: "", outcome: "",
}));
for (const image of IMAGES) {
  image.text = `${image.path}\n${image.product}\n${image.defect}\n${image.part}`.toLocaleLowerCase();
}
const HAS_MASKS = IMAGES.some((image) => image.mask);
const HAS_PARTS = IMAGES.some((image) => image.part);
const HAS_UNKNOWN = IMAGES.some((image) => image.unknownP !== null);
rankImages();

/** Sets `scoreRank` of every image: its rank by score in (0, 1), which breaks ties of p-values. */
function rankImages() {
  const value = (image) => image.calibrated ?? image.score ?? -Infinity;
  const order = [...IMAGES].sort((a, b) => value(a) - value(b) || a.index - b.index);
  order.forEach((image, position) => { image.scoreRank = (position + 0.5) / order.length; });
}

const INITIAL = {
  rate: RATES.anomalous, uncertain: RATES.uncertain, unknown: RATES.unknown, product: "", outcome: "", query: "",
  sort: "worst", costMiss: 100, costAlarm: 1, defects: 0.01,
};
const state = { ...INITIAL };

/** The decision rule, as documented for `Shown` in page.py; the only one on this page. */
function decide(image, rate, uncertain) {
  if (isUnknown(image)) return "unknown";
  if (image.p === null || rate < decidingRate(image) - 1e-12) return "uncertain";
  if (image.p <= rate) return "anomalous";
  return image.p <= uncertain ? "uncertain" : "normal";
}

/** Returns whether the image is called an unknown product at the selected rate. */
function isUnknown({ unknownP }) { return unknownP !== null && unknownP <= unknownRate(); }

/** Returns the rate of unknown products in force: as selected, or the smallest that the calibration images allow. */
function unknownRate() { return Math.max(state.unknown, DATA.least_unknown_rate); }

/** Returns the smallest rate at which images of the product that the image was judged as are decided. */
function decidingRate({ product, recognised, unknownP }) {
  return DATA.deciding_rates[unknownP === null ? product : recognised ?? product] ?? 0;
}

function outcome(image) {
  if (image.decision === "uncertain" || image.decision === "unknown") return image.decision;
  if (image.anomalous) return image.decision === "anomalous" ? "hit" : "miss";
  return image.decision === "anomalous" ? "false_alarm" : "pass";
}

function emptyCounts() {
  const zero = () => ({ total: 0, miss: 0, false_alarm: 0, uncertain: 0, unknown: 0, hit: 0, pass: 0 });
  return { normal: zero(), anomalous: zero() };
}

/** Decides all images; returns the outcome counts by product and of the selected product(s). */
function decideAll() {
  const counts = { products: new Map(PRODUCTS.map((product) => [product, emptyCounts()])), selected: emptyCounts() };
  for (const image of IMAGES) {
    image.decision = decide(image, state.rate, state.uncertain);
    image.outcome = outcome(image);
    const kind = image.anomalous ? "anomalous" : "normal";
    const groups = [counts.products.get(image.product)[kind]];
    if (!state.product || image.product === state.product) groups.push(counts.selected[kind]);
    for (const group of groups) {
      group.total += 1;
      group[image.outcome] += 1;
    }
  }
  return counts;
}

/** Sort key of "worst first": 12 to 13 for a wrong decision, 8 to 9 unknown, 4 to 5 uncertain, 0 to 1 correct. */
function severity(image) {
  const { outcome: key, anomalous, p, scoreRank } = image;
  const level = { miss: 3, false_alarm: 3, unknown: 2, uncertain: 1, hit: 0, pass: 0 }[key];
  const abnormality = 1 - (p ?? 0.5) + 1e-6 * scoreRank; // according to the inspector
  return 4 * level + (anomalous ? 1 - abnormality : abnormality);
}

/** Returns the score above which p <= rate, from the product's curve of thresholds or else from its own calibration
 * images; null if they are too few. */
function threshold(product, rate, kind) {
  const curve = DATA.threshold_curves[product], initial = rate === RATES[kind] ? DATA.thresholds[product]?.[kind] ?? null : null;
  if (curve) {
    if (initial !== null) return initial;
    const [rates, values] = curve, next = rates.findIndex((known) => known >= rate);
    if (next < 1) return next === 0 && rates[0] <= rate + 1e-12 ? values[0] : null;
    const share = (rate - rates[next - 1]) / (rates[next] - rates[next - 1]);
    return values[next - 1] + share * (values[next] - values[next - 1]);
  }
  const scores = DATA.calibration[product] ?? [];
  const k = Math.ceil(Number(((scores.length + 1) * (1 - rate)).toFixed(9)));
  return k >= 1 && k <= scores.length ? scores[k - 1] : initial;
}

/** Returns whether the product's thresholds follow from a centre of its own and the tail of all products: measured, not
 * guaranteed. */
function hasSharedTail(product) { return product in DATA.threshold_curves; }

/** Returns the smallest false-alarm rate that the calibration images allow for the product. */
function smallestRate(product) {
  return DATA.least_rates[product] ?? 1 / ((DATA.calibration[product]?.length ?? 0) + 1);
}

// the slider is logarithmic: position 0 is MIN_RATE, position 1 is MAX_RATE

function rateAt(position) { return MIN_RATE * (MAX_RATE / MIN_RATE) ** position; }
function positionOf(rate) {
  return Math.log(Math.min(Math.max(rate, MIN_RATE), MAX_RATE) / MIN_RATE) / Math.log(MAX_RATE / MIN_RATE);
}
