// What other rates would have decided on stored inspections, and how they are applied.

async function viewRates(container, { path }) {
  const name = decodeURIComponent(path[1] ?? station.products[0]?.name ?? "");
  const known = product(name);
  if (!known) { add(container, make("p", { class: "empty", text: t("rates.unknown") })); return {}; }
  const data = await call("GET", `/v1/products/${encodeURIComponent(name)}/scores`);
  const state = { anomalous: data.rates.anomalous, uncertain: data.rates.uncertain };
  const least = Math.max(0.001, data.least_rate);
  const products = make("select", { "aria-label": t("fact.product"), onchange: () => go(`rates/${encodeURIComponent(products.value)}`) }, ...station.products.map((one) => make("option", { value: one.name, text: one.name, selected: one.name === name })));
  const words = make("p", { class: "headline", role: "status" }), chart = make("div"), changes = make("div"), sliders = make("div", { class: "rate-sliders" });
  const apply = make("button", { type: "button", class: "primary", text: t("rates.apply"), onclick: save });
  const back = make("button", { type: "button", text: t("rates.reset"), onclick: () => { Object.assign(state, { anomalous: data.rates.anomalous, uncertain: data.rates.uncertain }); show(); } });
  add(container, make("div", { class: "view-title" }, make("h1", {}, t("rates.title"), " ", bdi(name)), products),
    make("p", { class: "lead", text: t("rates.lead", { n: data.ids.length }) }),
    data.left_out ? make("p", { class: "hint", text: t("rates.left", { n: data.left_out }) }) : null,
    make("div", { class: "rates" }, make("section", { class: "box-panel" }, sliders, words, make("div", { class: "actions" }, may("admin") ? apply : make("p", { class: "hint", text: t("rates.role") }), back)), make("section", { class: "box-panel" }, make("h2", { text: t("rates.scores") }), chart)),
    make("h2", { text: t("rates.changed") }), changes);

  for (const kind of ["anomalous", "uncertain"]) {
    const slider = make("input", { type: "range", min: "0", max: "1", step: "any", id: `rate-${kind}` });
    const box = make("input", { type: "number", min: String(100 * least), max: "50", step: "any", "aria-label": t(`rates.${kind}.percent`) });
    const at = (position) => Number((least * (0.5 / least) ** position).toPrecision(2));
    const set = (rate) => { state[kind] = clamp(rate, least, 0.5); if (state.uncertain < state.anomalous) state[kind === "anomalous" ? "uncertain" : "anomalous"] = state[kind]; show(); };
    slider.addEventListener("input", () => set(at(Number(slider.value))));
    slider.addEventListener("keydown", (event) => {
      const factor = { ArrowRight: 1.1, ArrowUp: 1.1, ArrowLeft: 1 / 1.1, ArrowDown: 1 / 1.1, PageUp: 2, PageDown: 0.5 }[event.key];
      if (!factor) return;
      event.preventDefault();
      set(Number((state[kind] * factor).toPrecision(3)));
    });
    box.addEventListener("change", () => set(Number(box.value) / 100));
    add(sliders, make("label", { for: `rate-${kind}` }, term(`rate.${kind}`, t(`rates.${kind}`))), make("div", { class: "rate-row" }, slider, make("span", {}, box, " %")));
    sliders[kind] = () => {
      const position = Math.log(state[kind] / least) / Math.log(0.5 / least);
      if (document.activeElement !== slider) slider.value = position;
      slider.style.setProperty("--position", position);
      slider.setAttribute("aria-valuetext", percent(state[kind]));
      if (document.activeElement !== box) box.value = Number((100 * state[kind]).toPrecision(3));
    };
  }
  function decideWith(n, rates) {
    if (data.decisions[n] === "unknown product") return "unknown product";
    const p = data.p_values[n];
    if (p === null) return "uncertain";
    if (p <= rates.anomalous + 1e-12) return "anomalous";
    return p <= rates.uncertain + 1e-12 ? "uncertain" : "normal";
  }
  function isDefect(n) { const review = data.reviews[n]; return review === null ? null : review === "miss" || (review === "confirmed" && data.decisions[n] !== "normal"); }
  function limit(rate) {
    const above = data.curve.findIndex(([one]) => one >= rate - 1e-12);
    if (above < 0) return data.curve.at(-1)?.[1] ?? null;
    if (above === 0) return data.curve[0][1];
    const [[r0, s0], [r1, s1]] = [data.curve[above - 1], data.curve[above]];
    return s0 + (s1 - s0) * (Math.log(rate / r0) / Math.log(r1 / r0));
  }
  function show() {
    sliders.anomalous();
    sliders.uncertain();
    const differ = [], effect = { fewer: 0, more: 0, firmer: 0, softer: 0, missed: 0, caught: 0, spared: 0 };
    for (let n = 0; n < data.ids.length; n += 1) {
      const before = decideWith(n, data.rates), after = decideWith(n, state), defect = isDefect(n);
      if (before === after) continue;
      differ.push({ id: data.ids[n], before, after, review: data.reviews[n], defect });
      if (after === "normal") effect.fewer += 1;
      else if (before === "normal") effect.more += 1;
      else if (after === "anomalous") effect.firmer += 1;
      else effect.softer += 1;
      if (defect && after === "normal") effect.missed += 1;
      if (defect && before === "normal") effect.caught += 1;
      if (defect === false && after === "normal") effect.spared += 1;
    }
    const same = state.anomalous === data.rates.anomalous && state.uncertain === data.rates.uncertain;
    const sentence = [];
    if (effect.fewer) sentence.push(t("rates.fewer", { n: effect.fewer }));
    if (effect.more) sentence.push(t("rates.more", { n: effect.more }));
    if (effect.firmer) sentence.push(t("rates.firmer", { n: effect.firmer }));
    if (effect.softer) sentence.push(t("rates.softer", { n: effect.softer }));
    if (effect.missed) sentence.push(t("rates.missed", { n: effect.missed }));
    if (effect.caught) sentence.push(t("rates.caught", { n: effect.caught }));
    if (effect.spared) sentence.push(t("rates.spared", { n: effect.spared }));
    words.textContent = same ? t("rates.now", { rate: percent(state.anomalous) }) : `${t("rates.at", { rate: percent(state.anomalous) })} ${sentence.length ? sentence.join(", ") : t("rates.same")}.`;
    words.classList.toggle("problem", effect.missed > 0);
    apply.disabled = same;
    const group = (test) => data.scores.filter((_, n) => test(isDefect(n)));
    put(chart, scoreHistogram([{ name: "good", values: group((one) => one === false) }, { name: "unreviewed", values: group((one) => one === null) }, { name: "defect", values: group((one) => one === true) }],
      [{ name: "uncertain", value: limit(state.uncertain) }, { name: "anomalous", value: limit(state.anomalous) }], t("rates.scores")));
    put(changes, differ.length ? make("div", { class: "cards" }, ...differ.slice(0, 24).map((one) => make("a", { class: "change-card", href: `#/inspection/${one.id}` }, make("img", { src: picture(one, 240), alt: "", loading: "lazy" }),
      make("span", {}, t(`decision.${DECISION_CLASS[one.before]}`), " → ", make("b", { text: t(`decision.${DECISION_CLASS[one.after]}`) })), one.review ? make("span", { class: "tag", text: verdictName(one.review) }) : null))) : make("p", { class: "hint", text: t("rates.nothing") }));
  }
  async function save() {
    const answer = await ask(t("rates.apply"), [{ name: "why", label: t("why"), hint: t("why.hint") }], t("rates.apply"), { lead: words.textContent });
    if (!answer) return;
    const done = await attempt(() => call("PUT", `/v1/products/${encodeURIComponent(name)}/calibration`, { anomalous: state.anomalous, uncertain: state.uncertain, why: answer.why }));
    if (!done) return;
    await refreshModels();
    toast(t("rates.applied"), { label: t("rates.undo"), action: () => attempt(async () => { await call("POST", "/v1/rollback", { why: t("rates.undo") }); await refreshModels(); render(); }) });
    render();
  }
  show();
  return {};
}
