// What arrives now: the newest inspection, alarms that nobody has seen, sources and drift.

const NEWEST = 40; // inspections of the strip

async function viewLive(container) {
  const state = { newest: [], alarms: [], more: false, shown: null, follow: true, panel: null, drift: [] };
  const banner = make("section", { class: "alarms", "aria-live": "assertive", hidden: true });
  const main = make("section", { class: "live-main", "aria-label": t("live.shown") });
  const strip = make("div", { class: "strip-of-cards", role: "list", "aria-label": t("live.newest") });
  const side = make("aside", { class: "live-side" });
  const follow = make("button", { type: "button", "aria-pressed": "true", onclick: () => { state.follow = !state.follow; showFollow(); if (state.follow) pick(state.newest[0]); } });
  const files = imageInput((chosen) => inspectFiles(chosen));
  const head = make("div", { class: "view-title" }, make("h1", { text: t("live.title") }), follow, may("inspect") ? files.button : null);
  add(container, head, banner, make("div", { class: "live" }, make("div", {}, main, make("h2", { text: t("live.newest") }), strip), side));
  dropTarget(container, (chosen) => inspectFiles(chosen));

  function showFollow() {
    follow.setAttribute("aria-pressed", state.follow);
    follow.textContent = t(state.follow ? "live.following" : "live.follow");
  }
  function pick(one, byHand = false) {
    if (!one) return;
    if (byHand) { state.follow = false; showFollow(); }
    state.shown = one;
    state.panel = inspectionPanel(one, { reviewed: (changed) => { replaceOne(changed); forgetAlarm(changed.id); } });
    put(main, state.panel.node);
    markChosen(strip, one.id);
  }
  function replaceOne(changed) {
    const index = state.newest.findIndex((one) => one.id === changed.id);
    if (index < 0) return;
    state.newest[index] = changed;
    strip.children[index]?.replaceWith(stripCard(changed));
    markChosen(strip, state.shown?.id);
  }
  function stripCard(one) { return make("div", { role: "listitem" }, card(one, { size: 160, onclick: () => pick(one, true) })); }
  function arrive(one) {
    if (state.newest.some((other) => other.id === one.id)) return;
    state.newest.unshift(one);
    strip.prepend(stripCard(one));
    while (state.newest.length > NEWEST) { state.newest.pop(); strip.lastChild.remove(); }
    if (one.decision !== "normal") { state.alarms.push(one); showAlarms(); }
    const busy = document.activeElement && main.contains(document.activeElement);
    if ((state.follow && !busy) || !state.shown) pick(one);
  }
  function showAlarms() {
    banner.hidden = !state.alarms.length;
    if (!state.alarms.length) { put(banner); return; }
    const shown = state.alarms.slice(0, 6), more = state.alarms.length - shown.length;
    put(banner, 
      make("div", { class: "alarms-head" }, make("h2", {}, term("alarm", t(state.more ? "alarms.many" : "alarms.title", { n: state.alarms.length }))),
        may("review") ? make("button", { type: "button", class: "primary", onclick: () => seen(state.alarms.map((one) => one.id)) }, t(state.more ? "alarms.seen.these" : "alarms.seen", { n: state.alarms.length }), keyHint("S")) : null,
        make("a", { class: "link", href: "#/review?queue=open", text: t("alarms.review") })),
      make("div", { class: "strip-of-cards" }, ...shown.map((one) => card(one, { size: 160, onclick: () => pick(one, true) })),
        more > 0 ? make("p", { class: "more-alarms", text: t("alarms.more", { n: more }) }) : null));
  }
  async function seen(ids) {
    await markSeen(ids);
    await readAlarms();
  }
  function forgetAlarm(id) {
    state.alarms = state.alarms.filter((one) => one.id !== id);
    showAlarms();
  }
  async function readAlarms() {
    const page = await call("GET", "/v1/inspections?unseen=true&limit=200");
    state.alarms = page.inspections.reverse();
    state.more = page.next !== null;
    showAlarms();
  }
  async function readSide() {
    await refreshSources();
    state.drift = station.models.length ? await call("GET", "/v1/drift") : [];
    put(side, ...sourceList(readSide), ...driftList(state.drift, readSide));
  }
  async function inspectFiles(chosen) {
    if (!may("inspect")) return;
    await uploadAll(chosen, async (file) => {
      const answer = await call("POST", address("/v1/inspections", { name: file.name }), file);
      arrive(answer.results[0].inspection);
    }, t("live.inspecting"));
  }
  async function readAll() {
    const page = await call("GET", `/v1/inspections?limit=${NEWEST}`);
    put(strip);
    state.newest = [];
    for (const one of page.inspections) { state.newest.push(one); add(strip, stripCard(one)); }
    await Promise.all([readAlarms(), readSide()]);
    if (state.newest.length) { if (!state.shown || state.follow) pick(state.newest[0]); } else put(main, firstSteps(inspectFiles));
  }
  showFollow();
  await readAll();
  const beat = setInterval(() => { if (!document.hidden) readSide().catch(() => {}); }, 5000);
  return {
    event(kind, data) {
      if (kind === "inspection") arrive(data);
      else if (kind === "reset") readAll();
      else if (["review", "seen"].includes(data.what)) readAlarms().catch(() => {});
      else readSide().catch(() => {});
    },
    key(event) {
      if (event.key === "s" && state.alarms.length && may("review")) { seen(state.alarms.map((one) => one.id)); return true; }
      if (event.key === "f") { follow.click(); return true; }
      const step = { ArrowLeft: -1, ArrowRight: 1, k: -1, j: 1 }[event.key];
      if (step) {
        const index = state.newest.findIndex((one) => one.id === state.shown?.id);
        pick(state.newest[clamp(index + step, 0, state.newest.length - 1)], true);
        return true;
      }
      return state.panel ? panelKey(state.panel, event) : false;
    },
    leave: () => clearInterval(beat),
  };
}

function markChosen(list, id) {
  for (const node of list.querySelectorAll(".card")) {
    const chosen = node.dataset.id === id;
    node.classList.toggle("chosen", chosen);
    node.setAttribute("aria-pressed", chosen);
  }
}

/** Returns what to do first on a station that has inspected nothing. */
function firstSteps(take) {
  const step = (key, done, ...actions) => make("li", { class: done ? "done" : "" }, make("h3", { text: t(`first.${key}`) }), make("p", { text: t(`first.${key}.text`) }), done ? make("p", { class: "pill normal" }, icon("normal"), t("first.done")) : make("div", { class: "actions" }, ...actions));
  const has = station.models.length > 0;
  return make("section", { class: "first" }, make("h2", { text: t("first.title") }), make("ol", {},
    step("model", has, make("a", { class: "button primary", href: "#/products/new", text: t("first.learn") }), make("a", { class: "button", href: "#/products", text: t("first.upload") })),
    step("images", false, has && may("inspect") ? imageInput(take).button : null, make("a", { class: "button", href: "#/settings/sources", text: t("first.source") })),
    step("review", false, make("a", { class: "button", href: "#/review", text: t("first.review") }))));
}

/** Returns the sources with their states and controls. */
function sourceList(changed) {
  const nodes = [make("h2", {}, term("source", t("sources.title")))];
  if (!station.sources.length) nodes.push(make("p", { class: "hint" }, t("sources.none"), " ", make("a", { class: "link", href: "#/settings/sources", text: t("sources.add") })));
  for (const one of station.sources) {
    const act = (action) => attempt(async () => { await call("POST", `/v1/sources/${encodeURIComponent(one.name)}/${action}`); await changed(); });
    const button = (action, role = "review") => may(role) ? make("button", { type: "button", text: t(`source.${action}`), "aria-label": `${t(`source.${action}`)}: ${one.name}`, onclick: () => act(action) }) : null;
    const tone = { running: "normal", paused: "uncertain", reconnecting: "uncertain", ended: "unknown", failed: "anomalous" }[one.state];
    nodes.push(make("div", { class: "source", "data-source": one.name },
      make("div", { class: "line" }, make("b", {}, bdi(one.name)), make("span", { class: `pill ${tone}`, text: t(`source.state.${one.state}`) })),
      make("p", { class: "hint", text: t("source.counts", { images: one.images, failed: one.failed, dropped: one.dropped }) }),
      one.error ? make("p", { class: "hint problem", dir: "auto", text: one.error }) : null,
      make("div", { class: "actions" },
        one.state === "paused" ? button("resume") : one.state === "running" || one.state === "reconnecting" ? button("pause") : button("start", "admin"),
        one.state === "running" && one.settings?.trigger === "manual" ? button("trigger") : null)));
  }
  return nodes;
}

/** Returns the drift of the products: alarms first, with what to do. */
function driftList(found, changed) {
  if (!found.length) return [];
  const alarms = found.filter((one) => one.alarm);
  const nodes = [make("h2", {}, term("drift", t("drift.title")))];
  if (!alarms.length) nodes.push(make("p", { class: "hint", text: t("drift.none", { n: found.length }) }));
  for (const one of alarms) {
    nodes.push(make("div", { class: "source" }, make("div", { class: "line" }, make("b", {}, bdi(one.product)), make("span", { class: "pill uncertain", text: t("drift.alarm") })),
      make("p", { class: "hint", dir: "auto", text: one.reason ?? "" }),
      make("div", { class: "actions" }, one.inspection ? make("a", { class: "link", href: `#/inspection/${one.inspection}`, text: t("drift.since") }) : null,
        may("review") ? make("button", { type: "button", text: t("drift.acknowledge"), onclick: () => attempt(async () => { await call("POST", "/v1/drift/acknowledge", { product: one.product }); await changed(); }) }) : null)));
  }
  return nodes;
}
