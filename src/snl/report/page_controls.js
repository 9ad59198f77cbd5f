// Sliders, filters, the address, and the small notes that appear on pointing.

/** Round rates, a step of the slider each: 0.1, 0.11 ... 0.2, 0.22 ... 0.5, 0.55 ... 1 percent ... */
const STEPS = [];
for (const power of [-3, -2, -1]) {
  for (const [from, to, step] of [[10, 20, 1], [20, 50, 2], [50, 100, 5]]) {
    for (let n = from; n < to; n += step) STEPS.push(Number(`${n / 10}e${power}`));
  }
}
STEPS.push(0.5, RATES.anomalous, RATES.uncertain);
const ROUND = [...new Set(STEPS)].filter((rate) => rate >= LEAST && rate <= MOST).sort((a, b) => a - b);

function nearest(rate) {
  return ROUND.reduce((best, other) => Math.abs(Math.log(other / rate)) < Math.abs(Math.log(best / rate)) ? other : best);
}

let waiting = false;

/** Takes over a choice; the page follows with the next frame. */
function change(changes) {
  Object.assign(state, changes);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    refresh();
    remember();
  });
}

function drawRate(key) {
  const slider = byId(key), number = byId(`${key}-number`);
  slider.addEventListener("input", () => change({ [key]: nearest(rateAt(Number(slider.value))) }));
  slider.addEventListener("keydown", (event) => {
    const now = ROUND.findIndex((rate) => rate >= state[key] - 1e-12), on = ROUND[now] <= state[key] + 1e-12;
    const places = { ArrowRight: on ? now + 1 : now, ArrowUp: on ? now + 1 : now, ArrowLeft: now - 1, ArrowDown: now - 1,
      PageUp: now + 10, PageDown: now - 10, Home: 0, End: ROUND.length - 1 };
    if (!(event.key in places)) return;
    event.preventDefault();
    change({ [key]: ROUND[Math.min(ROUND.length - 1, Math.max(0, places[event.key]))] });
  });
  number.addEventListener("change", () => {
    const rate = Number((Number(number.value) / 100).toPrecision(6));
    if (rate > 0) change({ [key]: Math.min(MOST, Math.max(LEAST, rate)) });
    else showRate(key);
  });
}

function showRate(key) {
  const slider = byId(key), number = byId(`${key}-number`), place = placeOf(state[key]);
  if (document.activeElement !== slider || Math.abs(Number(slider.value) - place) > 0.004) slider.value = place;
  slider.setAttribute("aria-valuetext", percent(state[key]));
  slider.style.setProperty("--place", place);
  number.value = Number((100 * state[key]).toPrecision(4));
}

function drawControls() {
  drawRate("rate");
  drawRate("uncertain");
  const product = byId("product");
  product.append(make("option", { value: "", text: "all products" }),
    ...PRODUCTS.map((text) => make("option", { value: `=${text}`, text })));
  product.addEventListener("change", () => change({ product: product.value.slice(1) }));
  byId("query").addEventListener("input", () => change({ query: byId("query").value.trim() }));
  byId("sort").addEventListener("change", () => change({ sort: byId("sort").value }));
  byId("reset").addEventListener("click", () => {
    byId("query").value = "";
    change({ ...FIRST });
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
  byId("product").value = state.product ? `=${state.product}` : "";
  byId("sort").value = state.sort;
  if (byId("query").value.trim() !== state.query) byId("query").value = state.query;
}

/** Lets all above the slider scroll away; the slider stays in sight. */
function stick() {
  const panel = byId("what-if").getBoundingClientRect(), slider = document.querySelector(".wide").getBoundingClientRect();
  document.documentElement.style.setProperty("--above", `${Math.round(8 + panel.top - slider.top)}px`);
}

/** Height of what stays in sight at the top of the window. */
function roof() {
  return byId("what-if").getBoundingClientRect().bottom - document.querySelector(".wide").getBoundingClientRect().top + 8;
}

/** Leads from a count to its images. */
function showOutcome(product, key, kind) {
  const both = key === "uncertain" || key === "unknown";
  change({ product, outcome: both && kind ? `${key}-${kind}` : key, query: "", sort: "worst" });
  requestAnimationFrame(() => goTo(byId("gallery-title")));
}

function goTo(node) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  scrollTo({ top: node.getBoundingClientRect().top + scrollY - roof() - 8, behavior: calm ? "instant" : "smooth" });
}

// the address: what differs from the first state, after the #

const KEYS = { rate: "rate", uncertain: "uncertain", product: "product", outcome: "outcome", query: "search", sort: "order" };

function remember() {
  const words = new URLSearchParams();
  for (const [key, word] of Object.entries(KEYS)) if (state[key] !== FIRST[key]) words.set(word, state[key]);
  const hash = words.toString() ? `#${words}` : location.pathname + location.search;
  try {
    if (hash !== location.hash) history.replaceState(null, "", hash);
  } catch {
    // a page without an address of its own, as in a preview
  }
}

/** The state that an address asks for; what makes no sense in it is left out. */
function recall() {
  const words = new URLSearchParams(location.hash.slice(1)), asked = { ...FIRST };
  for (const key of ["rate", "uncertain"]) {
    const rate = Number(words.get(KEYS[key]));
    if (rate >= LEAST && rate <= MOST) asked[key] = rate;
  }
  if (PRODUCTS.includes(words.get("product"))) asked.product = words.get("product");
  const [key, kind] = (words.get("outcome") ?? "").split("-");
  if (Object.hasOwn(OUTCOMES, key) && (kind === undefined || Object.hasOwn(KINDS, kind))) asked.outcome = words.get("outcome");
  asked.query = words.get("search") ?? "";
  if ([...byId("sort").options].some(({ value }) => value === words.get("order"))) asked.sort = words.get("order");
  return asked;
}

// notes on pointing, or on reaching by keyboard

function showTip(text, x, y) {
  const tip = byId("tip");
  tip.textContent = text;
  if (!tip.matches(":popover-open")) tip.showPopover();
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(6, y - height - 12) : y + 18}px`;
}

function hideTip() {
  if (byId("tip").matches(":popover-open")) byId("tip").hidePopover();
}

function drawTips() {
  const noted = (event) => event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  document.addEventListener("pointerover", (event) => {
    const node = noted(event);
    if (node) showTip(node.dataset.tip, event.clientX, event.clientY); else hideTip();
  });
  document.addEventListener("focusin", (event) => {
    const node = noted(event);
    if (!node?.matches(":focus-visible")) return hideTip();
    const box = node.getBoundingClientRect();
    return showTip(node.dataset.tip, box.left, box.bottom - 12);
  });
  for (const kind of ["focusout", "scroll", "pointerdown"]) document.addEventListener(kind, hideTip, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
}
