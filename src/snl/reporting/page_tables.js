// Metrics and their glossary, notes, settings and provenance.

const METRICS = {
  image_auroc: ["Image AUROC", "Probability that a random defective image has a higher score than a random normal image. 100 % is perfect, 50 % is chance. Independent of any threshold."],
  image_auroc_calibrated: ["Image AUROC, calibrated", "Image AUROC of the calibrated scores (z-score of the log score), which are comparable across products. It differs from image AUROC only where products are pooled."],
  image_ap: ["Image AP", "Average precision: area under the precision-recall curve of the images. It depends on the share of defective images."],
  image_f1max: ["Image F1‑max", "Highest F1 score (harmonic mean of precision and recall) of any threshold. The threshold is chosen on these test images, so the value is slightly optimistic."],
  pixel_auroc: ["Pixel AUROC", "Probability that a random defective pixel has a higher map value than a random normal pixel. Large defects dominate it, and it is usually high because almost all pixels are normal."],
  pixel_ap: ["Pixel AP", "Average precision over pixels. The strictest of these metrics, because only a small share of all pixels is defective."],
  pixel_f1max: ["Pixel F1‑max", "Highest F1 score of any threshold on the anomaly map: the best agreement between marked and true defect area."],
  aupro: ["AUPRO", "Area under the per-region overlap curve: the marked share of each defect region, averaged up to a pixel false-positive rate of 30 %. Small and large defects count the same."],
  aupro_05: ["AUPRO 5 %", "AUPRO up to a pixel false-positive rate of 5 %: the marked area must be precise."],
};
const COUNTS = {
  n_normal: ["Normal", "Number of normal test images."],
  n_anomalous: ["Defective", "Number of defective test images."],
  n_masked: ["With mask", "Number of test images with known ground-truth mask (normal images included); pixel metrics use only these."],
};

function metricRows() {
  const { products = {}, mean = null, pooled = null } = DATA.metrics;
  const rows = Object.entries(products);
  const present = new Set(rows.concat([["", mean ?? {}], ["", pooled ?? {}]]).flatMap(([, row]) => Object.keys(row)));
  const known = [...Object.keys(METRICS), ...Object.keys(COUNTS)];
  const extra = [...present].filter((key) => !known.includes(key));
  const keys = [...Object.keys(METRICS), ...extra, ...Object.keys(COUNTS)].filter((key) => present.has(key));
  return { rows, mean, pooled, keys };
}

function metricName(key) {
  const [short, meaning] = METRICS[key] ?? COUNTS[key] ?? [key.replaceAll("_", " "), ""];
  return { short, meaning };
}

function metricCell(key, value) {
  if (typeof value !== "number") return make("td", { class: "none", text: "-" });
  const count = key in COUNTS || key.startsWith("n_");
  const cell = make("td", { text: count ? formatCount(value) : (100 * value).toFixed(1) });
  if (!count) {
    cell.classList.add("measure");
    cell.style.setProperty("--part", `${Math.min(Math.max(value, 0), 1) * 100}%`);
  }
  return cell;
}

function drawMetrics() {
  const { rows, mean, pooled, keys } = metricRows();
  byId("metrics").hidden = rows.length === 0 && !mean && !pooled;
  const order = { key: "", down: false };
  const body = make("tbody"), heads = new Map();
  const line = ([product, row]) => make("tr", {}, make("th", { scope: "row" }, bdi(product)),
    ...keys.map((key) => metricCell(key, row[key])));
  const sorted = () => [...rows].sort(([a, x], [b, y]) => {
    if (!order.key) return (order.down ? -1 : 1) * a.localeCompare(b);
    const [left, right] = [x[order.key], y[order.key]];
    if (typeof left !== "number" || typeof right !== "number") {
      return (typeof right === "number") - (typeof left === "number"); // missing values come last
    }
    return (order.down ? right - left : left - right) || a.localeCompare(b);
  });
  const show = () => {
    body.replaceChildren(...sorted().map(line));
    for (const [key, head] of heads) {
      head.setAttribute("aria-sort", key !== order.key ? "none" : order.down ? "descending" : "ascending");
    }
  };
  const head = (key, short, meaning) => {
    const cell = make("th", { scope: "col" }, make("button", {
      type: "button", class: "quiet sort", "data-tip": meaning || null, text: short,
      onclick: () => {
        Object.assign(order, order.key === key ? { down: !order.down } : { key, down: key in COUNTS });
        show();
      },
    }));
    heads.set(key, cell);
    return cell;
  };
  const footer = [["mean over products", mean], ["pooled over products", pooled]].filter(([, row]) => row);
  byId("metrics-table").append(make("table", { class: "numbers" },
    make("thead", {}, make("tr", {}, head("", "Product", ""), ...keys.map((key) => head(key, ...Object.values(metricName(key)))))),
    body, make("tfoot", {}, ...footer.map(line))));
  show();
  const entries = [...keys.map((key) => Object.values(metricName(key))),
    ["Mean, pooled", "Mean: average over products, with equal weights. Pooled: the images of all products together, as with a single threshold for all products, which is harder."],
    ["-", "Not defined: a metric needs both normal and defective images; pixel metrics also need masks."]];
  byId("glossary").append(...entries.filter(([, meaning]) => meaning).map(([short, meaning]) =>
    make("div", {}, make("dt", { text: short }), make("dd", { text: meaning }))));
}

// provenance: nested JSON as sections, each a table of names and values

function isScalar(value) { return value === null || typeof value !== "object"; }

function formatValue(value) {
  if (value === null) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Array.isArray(value) ? value.map(formatValue).join(", ") : String(value);
}

function* flattenFields(value, path) {
  const list = Array.isArray(value);
  const plain = list && (value.every(isScalar) || value.every((item) => Array.isArray(item) && item.every(isScalar)));
  if (isScalar(value)) yield [path, formatValue(value)];
  else if (plain) yield [path, value.every(isScalar) ? formatValue(value) : value.map((item) => `(${formatValue(item)})`).join(", ")];
  else for (const [key, item] of Object.entries(value)) yield* flattenFields(item, path ? `${path}.${key}` : key);
}

function drawProvenance() {
  const notes = DATA.notes ?? [];
  byId("notes").append(...notes.map((text) => make("li", { dir: "auto", text })));
  byId("notes").hidden = !notes.length;
  const entries = Object.entries(DATA.provenance ?? {});
  const groups = [["", Object.fromEntries(entries.filter(([, value]) => isScalar(value)))],
    ...entries.filter(([, value]) => !isScalar(value))];
  for (const [title, value] of groups) {
    const rows = [...flattenFields(value, "")];
    if (!rows.length) continue;
    byId("settings-table").append(...(title ? [make("h3", { dir: "auto", text: title.replaceAll("_", " ") })] : []),
      make("table", { class: "settings" }, make("tbody", {}, ...rows.map(([key, text]) =>
        make("tr", {}, make("th", { scope: "row", dir: "auto", text: key || "value" }), make("td", { dir: "auto", text }))))));
  }
  const date = new Date(DATA.created);
  byId("created").append(Number.isNaN(date.getTime()) ? DATA.created
    : make("time", { datetime: DATA.created, text: date.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" }) }),
  ` · ${plural(IMAGES.length, "test image", "test images")} of ${plural(PRODUCTS.length, "product", "products")}`);
}
