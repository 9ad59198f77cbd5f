// Sliders, filters, and the state in the page's address.

/** Rates that the slider can select, in percent: 0.1, 0.11 ... 0.2, 0.22 ... 0.5, 0.55 ... 1 ... */
const roundRates = [];
for (const power of [-3, -2, -1]) {
  for (const [from, to, step] of [[10, 20, 1], [20, 50, 2], [50, 100, 5]]) {
    for (let n = from; n < to; n += step) roundRates.push(Number(`${n / 10}e${power}`));
  }
}
roundRates.push(0.5, RATES.anomalous, RATES.uncertain, RATES.unknown);
const RATE_STEPS = [...new Set(roundRates)].filter((rate) => rate >= MIN_RATE && rate <= MAX_RATE).sort((a, b) => a - b);

/** Returns the selectable rate nearest to a rate, by ratio. */
function nearestRate(rate) {
  return RATE_STEPS.reduce((best, other) => Math.abs(Math.log(other / rate)) < Math.abs(Math.log(best / rate)) ? other : best);
}

let frameRequested = false;

/** Changes the state; the page is updated in the next animation frame. */
function change(changes) {
  Object.assign(state, changes);
  if (frameRequested) return;
  frameRequested = true;
  requestAnimationFrame(() => {
    frameRequested = false;
    refresh();
    writeAddress();
  });
}

function drawRate(key) {
  const slider = byId(key), number = byId(`${key}-number`);
  slider.addEventListener("input", () => change({ [key]: nearestRate(rateAt(Number(slider.value))) }));
  slider.addEventListener("keydown", (event) => {
    const current = RATE_STEPS.findIndex((rate) => rate >= state[key] - 1e-12);
    const next = RATE_STEPS[current] <= state[key] + 1e-12 ? current + 1 : current; // a typed rate lies between two steps
    const steps = { ArrowRight: next, ArrowUp: next, ArrowLeft: current - 1, ArrowDown: current - 1,
      PageUp: current + 10, PageDown: current - 10, Home: 0, End: RATE_STEPS.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    change({ [key]: RATE_STEPS[Math.min(RATE_STEPS.length - 1, Math.max(0, steps[event.key]))] });
  });
  number.addEventListener("change", () => {
    const rate = Number((Number(number.value) / 100).toPrecision(6));
    if (rate > 0) change({ [key]: Math.min(MAX_RATE, Math.max(MIN_RATE, rate)) });
    else showRate(key);
  });
}

function showRate(key) {
  const slider = byId(key), number = byId(`${key}-number`), position = positionOf(state[key]);
  if (document.activeElement !== slider || Math.abs(Number(slider.value) - position) > 0.004) slider.value = position;
  slider.setAttribute("aria-valuetext", percent(state[key]));
  slider.style.setProperty("--position", position);
  number.value = Number((100 * state[key]).toPrecision(4));
}

function drawControls() {
  drawRate("rate");
  drawRate("uncertain");
  drawRate("unknown");
  byId("unknown-control").hidden = !HAS_UNKNOWN;
  document.body.classList.toggle("recognised", HAS_UNKNOWN);
  const product = byId("product");
  product.append(make("option", { value: "", text: "all products" }),
    ...PRODUCTS.map((text) => make("option", { value: `=${text}`, text })));
  product.addEventListener("change", () => change({ product: product.value.slice(1) }));
  byId("query").addEventListener("input", () => change({ query: byId("query").value.trim() }));
  if (HAS_PARTS) byId("query").placeholder = "path, product, part or defect";
  else byId("sort").querySelector("[value=part]").remove();
  byId("sort").addEventListener("change", () => change({ sort: byId("sort").value }));
  byId("reset").addEventListener("click", () => {
    byId("query").value = "";
    change({ ...INITIAL });
  });
  byId("clear").addEventListener("click", () => {
    byId("query").value = "";
    change({ product: "", outcome: "", query: "" });
    byId("query").focus();
  });
}

function showControls() {
  showRate("rate");
  showRate("uncertain");
  showRate("unknown");
  byId("unknown-words").textContent = state.unknown < DATA.least_unknown_rate - 1e-12
    ? `${percent(DATA.least_unknown_rate)}: the least that the calibration images allow`
    : "share of known products called unknown";
  byId("product").value = state.product ? `=${state.product}` : "";
  byId("sort").value = state.sort;
  if (byId("query").value.trim() !== state.query) byId("query").value = state.query;
}

/** Returns the height in pixels that the sticky controls take at the top of the window; 0 if they scroll away. */
function stickyHeight() {
  const node = [byId("row"), document.querySelector(".wide")].find((one) => getComputedStyle(one).position === "sticky");
  return node ? node.getBoundingClientRect().height + 16 : 0;
}

/** Filters the gallery to the images of one count and scrolls to it. */
function showOutcome(product, key, kind) {
  const both = key === "uncertain" || key === "unknown";
  change({ product, outcome: both && kind ? `${key}-${kind}` : key, query: "", sort: "worst" });
  requestAnimationFrame(() => scrollToNode(byId("gallery-title")));
}

function scrollToNode(node) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  scrollTo({ top: node.getBoundingClientRect().top + scrollY - stickyHeight() - 8, behavior: calm ? "instant" : "smooth" });
}

// the address: after the # it holds the values that differ from the initial state

const ADDRESS_KEYS = { rate: "rate", uncertain: "uncertain", unknown: "unknown", product: "product", outcome: "outcome", query: "search", sort: "order",
  costMiss: "cost-miss", costAlarm: "cost-alarm", defects: "defects" };

function writeAddress() {
  const parameters = new URLSearchParams();
  for (const [key, parameter] of Object.entries(ADDRESS_KEYS)) {
    if (state[key] !== INITIAL[key]) parameters.set(parameter, state[key]);
  }
  const hash = parameters.toString() ? `#${parameters}` : location.pathname + location.search;
  try {
    if (hash !== location.hash) history.replaceState(null, "", hash);
  } catch {
    // the page has no address of its own, for example in a preview
  }
}

/** Returns the state in the address; invalid values are ignored. */
function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1)), result = { ...INITIAL };
  for (const key of ["rate", "uncertain", "unknown"]) {
    const rate = Number(parameters.get(ADDRESS_KEYS[key]));
    if (rate >= MIN_RATE && rate <= MAX_RATE) result[key] = rate;
  }
  for (const key of Object.keys(COSTS)) {
    const value = Number(parameters.get(ADDRESS_KEYS[key]));
    if (isCost(key, value)) result[key] = value;
  }
  if (PRODUCTS.includes(parameters.get("product"))) result.product = parameters.get("product");
  const [key, kind] = (parameters.get("outcome") ?? "").split("-");
  if (Object.hasOwn(OUTCOMES, key) && (kind === undefined || Object.hasOwn(KINDS, kind))) result.outcome = parameters.get("outcome");
  result.query = parameters.get("search") ?? "";
  if ([...byId("sort").options].some(({ value }) => value === parameters.get("order"))) result.sort = parameters.get("order");
  return result;
}
