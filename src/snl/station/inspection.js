// One inspection: image with overlay, nearest normal image, what was decided and why, and its review.

const DECISION_CLASS = { normal: "normal", uncertain: "uncertain", anomalous: "anomalous", "unknown product": "unknown" };

/** Returns a decision with its symbol, in words. */
function decisionPill(decision) {
  const name = DECISION_CLASS[decision];
  return make("span", { class: `pill ${name}` }, icon(name), term(`decision.${name}`, t(`decision.${name}`)));
}

/** Returns how an inspection was reviewed, in words; null: it was not. */
function reviewWords(one) {
  if (one.review === null) return null;
  if (one.review === "false alarm") return t("verdict.false");
  if (one.review === "miss") return t("verdict.miss");
  return one.decision === "normal" ? t("verdict.good") : t("verdict.defect");
}

/** Returns the verdict that says "good" or "defect" about an inspection. */
function verdictOf(one, good) {
  if (one.decision === "normal") return good ? "confirmed" : "miss";
  return good ? "false alarm" : "confirmed";
}

/** Returns a small card of an inspection. */
function card(one, { size = 240, onclick = null, chosen = false, extra = null } = {}) {
  const name = DECISION_CLASS[one.decision], reviewed = reviewWords(one);
  const image = make("img", { src: picture(one, size), alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "blank", text: t("image.gone") })));
  return make("button", { type: "button", class: `card ${name}${chosen ? " chosen" : ""}`, "data-id": one.id, "aria-pressed": chosen ? "true" : "false", onclick },
    image,
    make("span", { class: "line" }, make("span", { class: `pill ${name}` }, icon(name), t(`decision.${name}`)), reviewed ? make("span", { class: "tag", text: reviewed }) : null),
    make("span", { class: "line quiet-line" }, bdi(one.product), make("time", { datetime: one.created, text: time(one.created) })),
    extra);
}

/** Returns the picture of an inspection with its regions, and the layer of boxes that a person draws. */
function inspectionViewer(one, { boxes = [], small = false, onchange = () => {} } = {}) {
  const { width, height } = one.result, layer = boxLayer(width, height, { boxes, onchange });
  const polygons = one.decision === "normal" ? [] : one.result.regions ?? [];
  layer.node.classList.add("with-regions");
  const regions = draw("g", { class: "regions" }, ...polygons.map((region) => draw("polygon", {
    points: region.polygon.map((point) => point.join(",")).join(" "),
    "data-tip": t("region.tip", { area: region.area_mm2 === null ? t("region.pixels", { n: region.area }) : `${formatNumber(region.area_mm2)} mm²` }),
  })));
  const below = draw("svg", { class: "boxes", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" }, regions);
  const label = t("image.label", { name: one.name || one.id, decision: t(`decision.${DECISION_CLASS[one.decision]}`) });
  const view = viewer({ image: picture(one, 1600), overlay: `/v1/inspections/${one.id}/heat.png`, width, height, label, layer, small });
  view.node.querySelector(".stage").insertBefore(below, layer.node);
  return { ...view, layer };
}

/** Returns the whole panel of an inspection. `reviewed` is called with the inspection after a review. */
function inspectionPanel(one, { reviewed = () => {} } = {}) {
  const state = { one, busy: false };
  let changing = Promise.resolve();
  const rates = product(one.product)?.rates ?? { anomalous: 0.05, uncertain: 0.1 };
  const view = inspectionViewer(one, { onchange: () => showBoxes() });
  const note = make("input", { type: "text", maxlength: 2000, autocomplete: "off", "aria-label": t("review.note"), placeholder: t("review.note") });
  const boxCount = make("span", { class: "hint" });
  const drawButton = make("button", { type: "button", "aria-pressed": "false", "data-tip": t("review.box.tip"), onclick: () => toggleBoxes() }, t("review.box"), keyHint("B"));
  const verdicts = make("div", { class: "verdicts", role: "group", "aria-label": t("review.title") });
  const history = make("ul", { class: "history" });
  const facts = make("dl", { class: "facts" });
  const nearest = make("div", { class: "nearest" });
  const parts = make("div", { class: "parts" });

  function showBoxes() {
    const count = view.layer.boxes.length;
    boxCount.textContent = count ? t("review.boxes", { n: count }) : "";
  }
  function toggleBoxes() {
    const on = !view.layer.drawing;
    view.layer.draw(on);
    drawButton.setAttribute("aria-pressed", on);
  }
  function fact(name, text, value) {
    if (value === null || value === undefined || value === "") return;
    add(facts, make("dt", {}, term(name, text)), make("dd", { dir: "auto" }, value));
  }
  function show() {
    const now = state.one;
    put(verdicts);
    if (may("review")) {
      for (const good of [true, false]) {
        const verdict = verdictOf(now, good);
        add(verdicts, make("button", { type: "button", class: `verdict ${good ? "normal" : "anomalous"}`, "aria-pressed": now.review === verdict ? "true" : "false",
          "data-tip": t(`verdict.tip.${verdict.replace(" ", "")}`), onclick: () => review(good) }, t(good ? "verdict.good" : "verdict.defect"), keyHint(good ? "G" : "D")));
      }
      add(verdicts, make("button", { type: "button", disabled: now.review === null, onclick: undo }, t("review.undo"), keyHint("U")));
    } else add(verdicts, make("p", { class: "hint", text: t("review.role") }));
    put(facts);
    fact("product", t("fact.product"), bdi(now.product));
    fact("part", t("fact.part"), now.part ? bdi(now.part) : null);
    fact("score", t("fact.score"), `${formatNumber(now.score)} (${t("fact.limit", { value: formatNumber(now.result.threshold) })})`);
    fact("name", t("fact.name"), now.name ? bdi(now.name) : null);
    fact("time", t("fact.time"), time(now.created));
    fact("review", t("fact.review"), reviewWords(now));
    for (const remark of now.result.remarks ?? []) add(facts, make("dt", { text: t("fact.remark") }), make("dd", { dir: "auto", text: remark }));
  }
  async function showMore() {
    const found = await call("GET", `/v1/inspections/${one.id}/nearest`).catch(() => null);
    const other = found?.inspection;
    put(nearest, make("h3", {}, term("nearest", t("nearest.title"))),
      other ? viewer({ image: picture(other, 1600), width: other.result.width, height: other.result.height, label: t("nearest.label", { product: other.product }), small: true }).node
        : make("p", { class: "empty", text: t("nearest.none") }));
    if (one.part) {
      const views = await call("GET", address("/v1/inspections", { part: one.part, limit: 12 })).catch(() => null);
      const others = views?.inspections.filter((other) => other.id !== one.id) ?? [];
      if (others.length) put(parts, make("h3", { text: t("part.title", { part: one.part }) }), make("div", { class: "strip-of-cards" }, ...others.map((other) => card(other, { size: 160, onclick: () => go(`inspection/${other.id}`) }))));
    }
  }
  async function showHistory() {
    const rows = await call("GET", `/v1/inspections/${one.id}/reviews`).catch(() => []);
    put(history, ...rows.reverse().map((row) => make("li", { class: row.withdrawn ? "withdrawn" : "" },
      make("b", { text: row.who }), ` ${verdictName(row.verdict)} · ${time(row.created)}`, row.note ? make("p", { dir: "auto", text: row.note }) : null)));
    const last = rows.find((row) => !row.withdrawn);
    if (last && !view.layer.boxes.length && last.regions.length) {
      view.layer.boxes.push(...last.regions.map((region) => [...region.box]));
      view.layer.draw(false);
      showBoxes();
    }
  }
  function change(action, after) {
    if (!state.busy) changing = begin(action, after);
    return changing;
  }
  async function begin(action, after) {
    state.busy = true;
    const changed = await attempt(action);
    state.busy = false;
    if (changed === undefined) return;
    show();
    showHistory();
    reviewed(state.one, after);
  }
  function review(good) {
    const verdict = verdictOf(state.one, good);
    const regions = view.layer.whole().map((box) => ({ box }));
    return change(async () => {
      await call("POST", `/v1/inspections/${one.id}/review`, { verdict, note: note.value.trim(), regions });
      note.value = "";
      state.one = { ...state.one, review: verdict, seen: true };
      return true;
    }, "review");
  }
  async function undo() {
    await changing; // of a review that is on its way
    if (state.one.review === null) return undefined;
    return change(async () => { state.one = await call("DELETE", `/v1/inspections/${one.id}/review`); return true; }, "undo");
  }
  show();
  showHistory();
  showMore();
  const node = make("article", { class: "inspection" },
    make("div", { class: "pictures" }, view.node, nearest),
    make("div", { class: "verdict-panel" },
      make("div", { class: "decision-line" }, make("h2", {}, decisionPill(one.decision), " ", bdi(one.product)), make("a", { class: "link", href: `#/inspection/${one.id}`, text: t("link") })),
      rarityScale(one, rates), verdicts,
      may("review") ? make("div", { class: "note-line" }, note, drawButton, make("button", { type: "button", text: t("review.box.add"), onclick: () => { if (!view.layer.drawing) toggleBoxes(); view.layer.add(); } }), boxCount) : null,
      facts, history, parts));
  return { node, review, undo, settled: () => changing, toggleBoxes, toggleOverlay: view.toggle, zoom: view.zoom, reset: view.reset, note: () => note.focus(), one: () => state.one };
}

function verdictName(verdict) { return t(`verdict.name.${verdict.replace(" ", "")}`); }

function keyHint(key) { return make("kbd", { "aria-hidden": "true", text: key }); }

/** Handles the keys of a panel; returns whether the key was one. */
function panelKey(panel, event) {
  const actions = { g: () => panel.review(true), d: () => panel.review(false), u: panel.undo, b: panel.toggleBoxes, n: panel.note, o: panel.toggleOverlay,
    "+": () => panel.zoom(1.4), "-": () => panel.zoom(1 / 1.4), 0: panel.reset };
  const needs = ["g", "d", "u", "b", "n"].includes(event.key) ? "review" : "read";
  if (!(event.key in actions) || !may(needs)) return false;
  event.preventDefault();
  actions[event.key]();
  return true;
}

/** The view of a single inspection. */
async function viewInspection(container, { path }) {
  const one = await call("GET", `/v1/inspections/${path[1]}`);
  const panel = inspectionPanel(one);
  add(container, make("h1", {}, t("inspection.title"), " ", make("small", { text: time(one.created) })), panel.node);
  if (may("review") && !one.seen && one.decision !== "normal") markSeen([one.id]);
  return { key: (event) => panelKey(panel, event) };
}

async function markSeen(ids) {
  await attempt(() => call("POST", "/v1/inspections/seen", { ids }));
}
