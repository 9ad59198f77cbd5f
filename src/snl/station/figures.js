// What was inspected and reviewed: by product, shift and day.

const PERIODS = { today: 0, week: 6, month: 29 };

/** Adds counts of the API up: {total, flagged, reviewed, confirmed, falseAlarms, misses, agreed}. */
function tally(rows) {
  const sum = { total: 0, anomalous: 0, uncertain: 0, unknown: 0, flagged: 0, reviewed: 0, confirmed: 0, falseAlarms: 0, misses: 0, agreed: 0 };
  for (const { decision, review, count } of rows) {
    sum.total += count;
    if (decision !== "normal") { sum.flagged += count; sum[DECISION_CLASS[decision]] += count; }
    if (review === null) continue;
    sum.reviewed += count;
    if (review === "false alarm") sum.falseAlarms += count;
    else if (review === "miss") sum.misses += count;
    else { sum.agreed += count; if (decision !== "normal") sum.confirmed += count; }
  }
  return sum;
}

/** Returns the shift of an hour; the name is its start. A shift that begins before midnight belongs to its first day. */
function shiftOf(timeText, starts) {
  const [date, hour] = timeText.split("T"), h = Number(hour);
  const start = [...starts].reverse().find((one) => h >= one);
  if (start !== undefined) return `${date} ${String(start).padStart(2, "0")}:00`;
  const before = new Date(`${date}T12:00:00Z`);
  before.setUTCDate(before.getUTCDate() - 1);
  return `${before.toISOString().slice(0, 10)} ${String(starts.at(-1)).padStart(2, "0")}:00`;
}

async function viewFigures(container) {
  const state = { period: setting("period", "week"), rows: [] };
  const chips = make("div", { class: "chips", role: "group", "aria-label": t("figures.period") });
  const body = make("div", { class: "figures-body" });
  add(container, make("div", { class: "view-title" }, make("h1", { text: t("figures.title") }), chips), body);

  async function read() {
    put(chips, ...Object.keys(PERIODS).map((name) => make("button", { type: "button", class: "chip", "aria-pressed": state.period === name ? "true" : "false", text: t(`figures.${name}`), onclick: () => { state.period = name; keep("period", name); read(); } })));
    const since = new Date();
    since.setHours(0, 0, 0, 0);
    since.setDate(since.getDate() - PERIODS[state.period]);
    const rows = await attempt(() => call("GET", address("/v1/statistics", { since: since.toISOString(), by: "hour", offset: -new Date().getTimezoneOffset() })));
    if (rows) { state.rows = rows; show(); }
  }
  function show() {
    const starts = setting("shifts", [6, 14, 22]), all = tally(state.rows);
    if (!all.total) { put(body, make("p", { class: "empty", text: t("figures.none") })); return; }
    const by = (name) => {
      const groups = new Map();
      for (const row of state.rows) groups.set(name(row), [...(groups.get(name(row)) ?? []), row]);
      return groups;
    };
    const byDay = by((row) => row.time.slice(0, 10)), byShift = by((row) => shiftOf(row.time, starts));
    put(body, 
      make("div", { class: "numbers-row" }, big(all.total, t("figures.total")), big(percentOf(all.flagged, all.total), t("figures.alarm"), "alarm rate"),
        big(percentOf(all.confirmed, all.confirmed + all.falseAlarms), t("figures.precision"), "precision"), big(all.misses, t("figures.misses"), "miss"), big(percentOf(all.agreed, all.reviewed), t("figures.agreement"), "agreement")),
      make("section", {}, make("h2", { text: t("figures.products") }), table([...by((row) => row.product)].sort(), t("fact.product"), (name) => make("a", { class: "link", href: `#/rates/${encodeURIComponent(name)}` }, bdi(name)))),
      make("section", {}, make("h2", { text: t("figures.days") }), dayChart(byDay), table([...byDay].reverse(), t("review.day"), (name) => make("a", { class: "link", href: `#/review?queue=all&day=${name}`, text: name }))),
      make("section", {}, make("h2", {}, t("figures.shifts"), " ", make("small", { class: "hint", text: t("figures.starts", { hours: starts.map((hour) => `${hour}:00`).join(", ") }) })), table([...byShift].sort().reverse(), t("figures.shift"), (name) => name)));
  }
  function big(value, label, name = "") { return make("div", { class: "number-card" }, make("b", { text: typeof value === "number" ? number(value) : value }), name ? term(name, label) : make("span", { text: label })); }
  function table(groups, heading, cell) {
    const columns = [["total", "figures.total"], ["rate", "figures.alarm"], ["reviewed", "figures.reviewed"], ["precision", "figures.precision"], ["misses", "figures.misses"], ["agreement", "figures.agreement"]];
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": heading }, make("table", {},
      make("thead", {}, make("tr", {}, make("th", { scope: "col", text: heading }), ...columns.map(([, key]) => make("th", { scope: "col", text: t(key) })))),
      make("tbody", {}, ...groups.map(([name, rows]) => {
        const sum = tally(rows);
        const values = [number(sum.total), `${percentOf(sum.flagged, sum.total)} (${number(sum.flagged)})`, number(sum.reviewed), percentOf(sum.confirmed, sum.confirmed + sum.falseAlarms), number(sum.misses), percentOf(sum.agreed, sum.reviewed)];
        return make("tr", {}, make("th", { scope: "row" }, cell(name)), ...values.map((text) => make("td", { text })));
      }))));
  }
  function dayChart(byDay) {
    const days = [...byDay.keys()].sort(), height = 120, width = Math.max(320, 44 * days.length);
    const sums = days.map((name) => tally(byDay.get(name))), most = Math.max(...sums.map((sum) => sum.total));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height + 22}`, role: "img", "aria-label": t("figures.chart"), class: "days" });
    days.forEach((name, n) => {
      let y = height;
      const x = n * width / days.length + 4, w = width / days.length - 8;
      for (const [kind, value] of [["normal", sums[n].total - sums[n].flagged], ["uncertain", sums[n].uncertain], ["unknown", sums[n].unknown], ["anomalous", sums[n].anomalous]]) {
        const h = value / most * (height - 8);
        if (h <= 0) continue;
        y -= h;
        add(svg, draw("rect", { class: `day ${kind}`, x, y, width: w, height: h, "data-tip": `${name}: ${number(value)} ${t(`decision.${kind}`)}` }));
      }
      add(svg, draw("text", { x: x + w / 2, y: height + 16, "text-anchor": "middle", text: name.slice(5) }));
    });
    return make("div", { class: "chart" }, svg);
  }
  await read();
  const beat = setInterval(() => { if (!document.hidden) read(); }, 30_000);
  return { event: (kind) => { if (kind === "reset") read(); }, leave: () => clearInterval(beat) };
}
