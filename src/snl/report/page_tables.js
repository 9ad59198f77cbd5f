// Metrics with their glossary, notes, and settings and provenance.

const METRICS = {
  image_auroc: ["Image AUROC", "Take one defective and one normal part at random: how often does the defective one score higher? 100 % is perfect, 50 % is guessing. Needs no threshold."],
  image_auroc_calibrated: ["Image AUROC, calibrated", "The same with scores made comparable over products; it differs where products are pooled."],
  image_ap: ["Image AP", "Average precision: going down the list of parts from the highest score, how many of those met so far are really defective, on average. Depends on how common defects are."],
  image_f1max: ["Image F1‑max", "The best balance of found defects against false alarms that one threshold could give on these very images; chosen afterwards, so a little flattering."],
  pixel_auroc: ["Pixel AUROC", "As image AUROC, for single pixels: does the map rank defect pixels above good ones? Mostly large areas count, and almost all pixels are good, so it is usually high."],
  pixel_ap: ["Pixel AP", "Average precision over pixels: the strictest of these, for defects are a small part of all pixels."],
  pixel_f1max: ["Pixel F1‑max", "The best overlap of marked and true defect area that one threshold on the map could give."],
  aupro: ["AUPRO", "Per-region overlap: how much of each defect the map marks while at most 30 % of good pixels are marked too. A small defect counts as much as a large one."],
  aupro_05: ["AUPRO 5 %", "As AUPRO, but at most 5 % of good pixels may be marked: the marks must be precise."],
};
const TALLIES = {
  n_normal: ["Normal", "Number of normal test images."],
  n_anomalous: ["Defective", "Number of defective test images."],
  n_masked: ["With mask", "Number of test images whose defect area is known; pixel metrics count only these."],
};

function metricRows() {
  const { products = {}, mean = null, pooled = null } = FACTS.metrics;
  const rows = Object.entries(products);
  const found = new Set(rows.concat([["", mean ?? {}], ["", pooled ?? {}]]).flatMap(([, row]) => Object.keys(row)));
  const known = [...Object.keys(METRICS), ...Object.keys(TALLIES)];
  const extra = [...found].filter((key) => !known.includes(key));
  const keys = [...Object.keys(METRICS), ...extra, ...Object.keys(TALLIES)].filter((key) => found.has(key));
  return { rows, mean, pooled, keys };
}

function metricName(key) {
  const [short, meaning] = METRICS[key] ?? TALLIES[key] ?? [key.replaceAll("_", " "), ""];
  return { short, meaning };
}

function metricCell(key, value) {
  if (typeof value !== "number") return make("td", { class: "none", text: "-" });
  const count = key in TALLIES || key.startsWith("n_");
  const cell = make("td", { text: count ? tally(value) : (100 * value).toFixed(1) });
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
  const line = ([product, row]) => make("tr", {}, make("th", { scope: "row" }, name(product)),
    ...keys.map((key) => metricCell(key, row[key])));
  const sorted = () => [...rows].sort(([a, x], [b, y]) => {
    if (!order.key) return (order.down ? -1 : 1) * a.localeCompare(b);
    const [left, right] = [x[order.key], y[order.key]];
    if (typeof left !== "number" || typeof right !== "number") {
      return (typeof right === "number") - (typeof left === "number"); // what is missing comes last
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
        Object.assign(order, order.key === key ? { down: !order.down } : { key, down: key in TALLIES });
        show();
      },
    }));
    heads.set(key, cell);
    return cell;
  };
  const footer = [["mean over products", mean], ["all pooled", pooled]].filter(([, row]) => row);
  byId("metrics-table").append(make("table", { class: "numbers" },
    make("thead", {}, make("tr", {}, head("", "Product", ""), ...keys.map((key) => head(key, ...Object.values(metricName(key)))))),
    body, make("tfoot", {}, ...footer.map(line))));
  show();
  const words = [...keys.map((key) => Object.values(metricName(key))),
    ["Mean, pooled", "Mean: every product counts the same. Pooled: all images in one heap, as if one threshold served all products, which is harder."],
    ["-", "Not defined: it needs both normal and defective images, pixel metrics also masks."]];
  byId("glossary").append(...words.filter(([, meaning]) => meaning).map(([short, meaning]) =>
    make("div", {}, make("dt", { text: short }), make("dd", { text: meaning }))));
}

// provenance: nested JSON as sections of names and values

function simple(value) { return value === null || typeof value !== "object"; }

function spoken(value) {
  if (value === null) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Array.isArray(value) ? value.map(spoken).join(", ") : String(value);
}

function* flat(value, path) {
  const list = Array.isArray(value);
  const plain = list && (value.every(simple) || value.every((item) => Array.isArray(item) && item.every(simple)));
  if (simple(value)) yield [path, spoken(value)];
  else if (plain) yield [path, value.every(simple) ? spoken(value) : value.map((item) => `(${spoken(item)})`).join(", ")];
  else for (const [key, item] of Object.entries(value)) yield* flat(item, path ? `${path}.${key}` : key);
}

function drawProvenance() {
  const notes = FACTS.notes ?? [];
  byId("notes").append(...notes.map((text) => make("li", { dir: "auto", text })));
  byId("notes").hidden = !notes.length;
  const entries = Object.entries(FACTS.provenance ?? {});
  const groups = [["", Object.fromEntries(entries.filter(([, value]) => simple(value)))],
    ...entries.filter(([, value]) => !simple(value))];
  for (const [title, value] of groups) {
    const rows = [...flat(value, "")];
    if (!rows.length) continue;
    byId("facts-table").append(...(title ? [make("h3", { dir: "auto", text: title.replaceAll("_", " ") })] : []),
      make("table", { class: "facts" }, make("tbody", {}, ...rows.map(([key, text]) =>
        make("tr", {}, make("th", { scope: "row", dir: "auto", text: key || "value" }), make("td", { dir: "auto", text }))))));
  }
  const date = new Date(FACTS.created);
  byId("created").append(Number.isNaN(date.getTime()) ? FACTS.created
    : make("time", { datetime: FACTS.created, text: date.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" }) }),
  ` · ${plural(IMAGES.length, "test image", "test images")} of ${plural(PRODUCTS.length, "product", "products")}`);
}
