// A version of a model beside the active one: held-back images, stored traffic, promotion.

async function viewVersion(container, { path }) {
  const id = path[1];
  await refreshModels();
  const rows = await call("GET", "/v1/versions"), version = rows.find((one) => one.id === id);
  if (!version) { add(container, make("p", { class: "empty", text: t("version.gone") })); return {}; }
  const model = station.models.find((one) => one.name === version.name) ?? null;
  const held = make("div", { class: "cards held" }), traffic = make("div"), status = make("span", { class: "hint", role: "status" });
  const compare = make("button", { type: "button", text: t("version.compare"), onclick: () => replay() });
  const isActive = version.state === "active";
  const actions = make("div", { class: "actions" });
  if (may("admin")) {
    if (!isActive) add(actions, make("button", { type: "button", class: "primary", text: t("version.promote"), onclick: () => change("promote") }));
    if (isActive && rows.some((one) => one.name === version.name && one.promoted && one.id !== id)) add(actions, make("button", { type: "button", text: t("version.rollback"), onclick: () => change("rollback") }));
    if (!isActive && version.state !== "retired") add(actions, make("button", { type: "button", text: t("version.discard"), onclick: () => change("discard") }));
  }
  add(container, make("div", { class: "view-title" }, make("h1", {}, bdi(version.name), ` ${t("version.number", { n: version.version })} `, statePill(version.state))),
    make("p", { class: "lead", dir: "auto", text: t("version.made", { who: version.who, when: time(version.created), why: version.why || "–" }) }), actions,
    isActive ? null : make("section", {}, make("h2", {}, term("shadow", t("version.traffic"))), make("p", { class: "hint", text: t(model ? "version.traffic.hint" : "version.traffic.none") }), may("admin") && model ? make("div", { class: "actions" }, compare, status) : null, traffic),
    make("section", {}, make("h2", {}, term("held-back", t("version.held"))), make("p", { class: "hint", text: t("version.held.hint") }), held));

  async function change(action) {
    const danger = action === "discard";
    const answer = await ask(t(`version.${action}`), [{ name: "why", label: t("why"), hint: t("why.hint") }], t(`version.${action}`), { danger, lead: t(`version.${action}.lead`) });
    if (!answer) return;
    const where = action === "rollback" ? address("/v1/rollback", { model: version.name }) : `/v1/models/${id}/${action}`;
    const done = await attempt(() => call("POST", where, { why: answer.why }));
    if (!done) return;
    await refreshModels();
    toast(t(`version.${action}.done`));
    if (action === "discard") go("products"); else go(`versions/${done.id}`, true);
  }
  const products = await call("GET", `/v1/models/${id}/products`);
  const old = new Set(station.products.map((one) => one.name));
  const hasChanged = (one) => !isActive && old.has(one.name) && (product(one.name).threshold !== one.threshold || product(one.name).held_out_images !== one.held_out_images);
  const rank = (one) => (old.has(one.name) ? (hasChanged(one) ? 1 : 2) : 0);
  products.sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
  add(held, ...products.slice(0, 24).map((one) => make("figure", { class: "histogram" }, make("figcaption", {}, bdi(one.name), " ", old.has(one.name) || isActive ? null : make("span", { class: "tag", text: t("version.new") }), hasChanged(one) ? make("span", { class: "tag", text: t("version.changed") }) : null,
    make("small", { text: t("version.held.count", { n: one.held_out_images }) })), scoreHistogram([{ name: "good", values: one.scores }], [{ name: "uncertain", value: one.uncertain_threshold }, { name: "anomalous", value: one.threshold }], one.name))));

  async function replay() {
    compare.disabled = true;
    const done = await attempt(() => call("POST", `/v1/models/${id}/shadow`, { on: true, replay: 1000 }));
    compare.disabled = false;
    if (done) showTraffic();
  }
  let timer = 0, left = false;
  async function showTraffic() {
    clearTimeout(timer);
    const found = await attempt(() => call("GET", `/v1/models/${id}/comparison`));
    if (!found || left) return;
    status.textContent = found.waiting ? t("version.waiting", { n: found.waiting }) : "";
    if (found.waiting) timer = setTimeout(showTraffic, 1000);
    if (!found.inspections) { put(traffic); return; }
    const kinds = Object.keys(DECISION_CLASS), count = (made, other) => found.counts.find((one) => one.made === made && one.other === other)?.count ?? 0;
    const changed = found.counts.filter((one) => one.made !== one.other).reduce((sum, one) => sum + one.count, 0);
    put(traffic, 
      make("p", { class: "headline", text: t("version.changes", { n: changed, total: found.inspections }) }),
      found.better + found.worse ? make("p", { text: t("version.judged", { better: found.better, worse: found.worse }) }) : changed ? make("p", { class: "hint", text: t("version.unjudged") }) : null,
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("version.traffic") }, make("table", { class: "matrix" }, make("thead", {}, make("tr", {}, make("th", { scope: "col", text: t("version.matrix") }), ...kinds.map((kind) => make("th", { scope: "col", text: t(`decision.${DECISION_CLASS[kind]}`) })))),
        make("tbody", {}, ...kinds.map((made) => make("tr", {}, make("th", { scope: "row", text: t(`decision.${DECISION_CLASS[made]}`) }), ...kinds.map((other) => make("td", { class: made === other ? "same" : count(made, other) ? "differs" : "", text: number(count(made, other)) }))))))),
      make("div", { class: "cards", id: "changed" }));
    if (found.waiting) return;
    const list = traffic.querySelector("#changed");
    for (const changedId of found.changed.slice(0, 12)) {
      const [one, other] = await Promise.all([call("GET", `/v1/inspections/${changedId}`), call("GET", `/v1/models/${id}/decisions/${changedId}`)]).catch(() => [null, null]);
      if (!one) continue;
      add(list, make("a", { class: "change-card", href: `#/inspection/${changedId}` }, make("img", { src: picture(one, 240), alt: "", loading: "lazy" }),
        make("span", {}, t("version.was"), " ", decisionText(one.decision), " · ", bdi(one.product)), make("span", {}, t("version.would"), " ", make("b", {}, decisionText(other.decision)), " · ", bdi(other.product)), one.review ? make("span", { class: "tag", text: reviewWords(one) }) : null));
    }
  }
  if (!isActive && model) await showTraffic();
  return { event: (kind, data) => { if (kind === "change" && data.what === "model") refreshModels(); }, leave: () => { left = true; clearTimeout(timer); } };
}

function decisionText(decision) { return t(`decision.${DECISION_CLASS[decision]}`); }

function statePill(state) {
  const tone = { active: "normal", shadow: "uncertain", candidate: "unknown", retired: "unknown" }[state];
  return make("span", { class: `pill ${tone}` }, term(`state.${state}`, t(`version.state.${state}`)));
}
