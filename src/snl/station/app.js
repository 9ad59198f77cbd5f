// The frame of the page: navigation, session, live events, keys.

const VIEWS = { live: viewLive, review: viewReview, figures: viewFigures, products: viewProducts, settings: viewSettings, inspection: viewInspection, rates: viewRates, versions: viewVersion, jobs: viewJob, areas: viewAreas };
const MENU = ["live", "review", "figures", "products", "settings"];
let current = {}, generation = 0, stream = null;

function go(route, again = false) {
  if (again && location.hash === `#/${route}`) render(); else location.hash = `#/${route}`;
}

/** Shows the view of the address. */
async function render() {
  const mine = generation += 1;
  current.leave?.();
  current = {};
  const [text, queryText] = location.hash.replace(/^#\/?/, "").split("?"), path = (text || "live").split("/");
  const name = path[0] === "products" && path[1] === "new" ? "learn" : path[0] in VIEWS ? path[0] : "live";
  for (const link of byId("nav").children) {
    const here = link.hash === `#/${path[0]}` || (path[0] in PARENTS && link.hash === `#/${PARENTS[path[0]]}`);
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const container = make("div", { class: `view view-${name}` });
  const view = byId("view");
  view.setAttribute("aria-busy", "true");
  try {
    const shown = await (name === "learn" ? viewLearn : VIEWS[name])(container, { path, query: new URLSearchParams(queryText ?? "") });
    if (mine !== generation) { shown.leave?.(); return; }
    current = shown;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (mine !== generation || error.status === 401) return;
    put(container, make("div", { class: "empty" }, make("p", { text: advice(error) }), make("button", { type: "button", text: t("again"), onclick: render })));
  }
  put(view, container);
  view.removeAttribute("aria-busy");
  document.title = `${t(`view.${name}`)} – snl`;
  document.documentElement.dataset.ready = `${name}`;
}

const PARENTS = { inspection: "review", rates: "products", versions: "products", jobs: "products", areas: "products" };

function drawFrame() {
  byId("skip").textContent = t("skip");
  byId("brand").textContent = t("brand");
  byId("nav").setAttribute("aria-label", t("nav"));
  put(byId("nav"), ...MENU.map((name, n) => make("a", { href: `#/${name}`, "data-tip": t("nav.key", { n: n + 1 }), text: t(`view.${name}`) })));
  put(byId("state"), make("button", { type: "button", text: "?", "aria-label": t("help.title"), "data-tip": t("help.title"), onclick: showHelp }),
    station.session ? make("span", { class: "who", "data-tip": t(station.session.open ? "who.open" : "who.token"), text: station.session.open ? t("who.local") : `${station.session.name} (${t(`role.${station.session.role}`)})` }) : null,
    station.session && !station.session.open ? make("button", { type: "button", text: t("signout"), onclick: async () => { await attempt(() => call("DELETE", "/v1/session")); location.reload(); } }) : null);
}

/** Follows the events of the service; the browser connects again by itself. */
function follow() {
  stream?.close();
  stream = new EventSource("/v1/events");
  const offline = byId("offline");
  stream.addEventListener("open", () => {
    if (!offline.hidden) { offline.hidden = true; refreshModels().then(render, () => {}); }
  });
  stream.addEventListener("error", () => {
    offline.textContent = t("error.away");
    offline.hidden = false;
    if (stream?.readyState === EventSource.CLOSED) setTimeout(follow, 3000); // refused, for example while it starts
  });
  stream.addEventListener("inspection", (event) => current.event?.("inspection", JSON.parse(event.data)));
  stream.addEventListener("reset", () => current.event?.("reset", {}));
  stream.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    if (change.what === "model") refreshModels().catch(() => {});
    current.event?.("change", change);
  });
}

/** Whether a key belongs to what has the focus and not to the page. */
function isTyping(event) {
  return event.ctrlKey || event.metaKey || event.altKey || byId("dialog").open || event.target.closest?.("input:not([type=range]), select, textarea, [contenteditable]") || (event.target.matches?.("input[type=range]") && event.key.startsWith("Arrow"));
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.matches?.("input, select")) { event.target.blur(); return; }
  if (isTyping(event) || !setting("keys", true)) return;
  if (event.key === "?") { event.preventDefault(); showHelp(); return; }
  const place = Number(event.key) - 1;
  if (event.key.length === 1 && place >= 0 && place < MENU.length) { go(MENU[place]); return; }
  current.key?.(event);
});
// a browser has few connections to a server: a page that nobody sees needs none
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { stream?.close(); stream = null; } else if (station.session && !stream) { follow(); current.event?.("reset", {}); }
});
addEventListener("hashchange", () => { if (station.session) render(); });

async function start() {
  applyTheme();
  await loadWords();
  drawFrame();
  try {
    station.session = await call("GET", "/v1/session");
    await refreshModels();
    drawFrame();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) { showSignIn(); return; }
    byId("offline").textContent = error.message;
    byId("offline").hidden = false;
    setTimeout(start, 3000);
    return;
  }
  byId("offline").hidden = true;
  follow();
  await render();
}

byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("view").focus(); });
drawTips();
start();
