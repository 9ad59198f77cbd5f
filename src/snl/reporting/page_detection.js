// Detected by kind of defect: the decisions at the selected rate beside what the scores allow.

const LIMITS = [["at_1", "1"], ["at_5", "5"]]; // attributes of DATA.metrics.detection_rates, percent
const LIVE = ["hit", "uncertain", ...(HAS_UNKNOWN ? ["unknown"] : [])]; // outcomes that follow the slider
const detectionRows = []; // { product, kind (null: all), row, alarms, live }

function limitCell(key, detected, rates) {
  const limit = rates[key], share = detected[key], whole = detected.n_compared;
  if (typeof share !== "number" || !limit) return make("td", { class: "none", text: "–" });
  const tip = `Score above ${formatNumber(limit.threshold)}: ${formatCount(limit.false_alarms)} of ${plural(rates.n_normal, "normal test image is", "normal test images are")} above it`;
  return make("td", { "data-tip": tip, text: `${limit.resolved ? "" : "*"}${percentOf(Math.round(share * whole), whole)}` });
}

function drawDetectionRow(product, kind, rates, detected) {
  const name = kind === null ? bdi(product) : kind ? bdi(kind) : make("span", { text: "kind not named" });
  const alarms = make("td"), live = LIVE.map(() => make("td"));
  const row = make("tr", { class: kind === null ? "whole" : "kind" }, make("th", { scope: "row" }, name), alarms,
    make("td", { text: formatCount(detected.n) }), ...live, ...LIMITS.map(([key]) => limitCell(key, detected, rates)));
  detectionRows.push({ product, kind, row, alarms, live });
  return row;
}

function drawDetection() {
  const products = DATA.metrics.detection_rates?.products ?? {};
  const known = PRODUCTS.filter((product) => products[product]);
  byId("detection").hidden = !known.length;
  if (!known.length) return;
  const bodies = known.map((product) => {
    const rates = products[product], kinds = Object.entries(rates.kinds);
    const named = kinds.some(([kind]) => kind) ? kinds : [];
    return make("tbody", {}, drawDetectionRow(product, null, rates, rates.anomalous),
      ...named.map(([kind, detected]) => drawDetectionRow(product, kind, rates, detected)));
  });
  const head = (text) => make("th", { scope: "col", text });
  byId("detection-table").append(make("table", { class: "numbers detection" },
    make("thead", {}, make("tr", {}, head("Product, kind of defect"), head("False alarms"), head("Defective images"),
      ...LIVE.map((key) => head(key === "hit" ? "Detected" : key === "uncertain" ? "Uncertain" : "Unknown product")),
      ...LIMITS.map(([, rate]) => head(`At most, ${rate}${SPACE}% false alarms`)))), ...bodies));
}

/** Updates the columns of the decisions, and hides products that are not selected. */
function showDetection(counts) {
  const kinds = new Map(PRODUCTS.map((product) => [product, new Map()]));
  for (const image of IMAGES) {
    if (!image.anomalous) continue;
    const group = kinds.get(image.product), count = group.get(image.defect) ?? { total: 0, hit: 0, uncertain: 0, unknown: 0, miss: 0 };
    count.total += 1;
    count[image.outcome] += 1;
    group.set(image.defect, count);
  }
  for (const { product, kind, row, alarms, live } of detectionRows) {
    row.hidden = Boolean(state.product) && product !== state.product;
    const { normal, anomalous } = counts.products.get(product);
    if (kind === null) alarms.textContent = percentOf(normal.false_alarm, normal.total);
    const count = kind === null ? anomalous : kinds.get(product).get(kind);
    LIVE.forEach((key, n) => { live[n].textContent = count ? percentOf(count[key], count.total) : "–"; });
  }
}
