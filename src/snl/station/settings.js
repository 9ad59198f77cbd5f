// Settings of the station: sources, sinks, tokens, storage, history, and this browser.

const TABS = { sources: "read", sinks: "admin", access: "admin", storage: "read", history: "admin", browser: "read" };

async function viewSettings(container, { path }) {
  const tab = path[1] in TABS ? path[1] : "sources";
  const body = make("div", { class: "tab" });
  add(container, make("h1", { text: t("settings.title") }), make("div", { class: "chips tabs", role: "group", "aria-label": t("settings.title") }, ...Object.entries(TABS).filter(([, role]) => may(role)).map(([name]) => make("a", { class: "chip", href: `#/settings/${name}`, "aria-current": name === tab ? "page" : null, text: t(`settings.${name}`) }))), body);
  if (!may(TABS[tab])) { add(body, make("p", { class: "empty", text: t("error.role") })); return {}; }
  const show = { sources: showSources, sinks: showSinks, access: showTokens, storage: showStorage, history: showHistory, browser: showBrowser }[tab];
  await show(body);
  return {};
}

function settingsTable(columns, rows, empty, label) {
  if (!rows.length) return make("p", { class: "empty", text: empty });
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, make("table", {}, make("thead", {}, make("tr", {}, ...columns.map((text) => make("th", { scope: "col", text })))), make("tbody", {}, ...rows)));
}

async function showSources(body) {
  const read = async () => {
    await refreshSources();
    put(body, make("p", { class: "lead", text: t("sources.lead") }), may("admin") ? make("div", { class: "actions" }, make("button", { type: "button", class: "primary", text: t("sources.new"), onclick: () => attempt(() => editConnector("sources", null, read)) })) : null,
      settingsTable([t("connector.name"), t("connector.kind"), t("connector.state"), t("connector.counts"), ""], station.sources.map((one) => make("tr", {}, make("th", { scope: "row" }, bdi(one.name)), make("td", { text: one.kind }), make("td", {}, t(`source.state.${one.state}`), one.error ? make("p", { class: "hint problem", dir: "auto", text: one.error }) : null), make("td", { text: number(one.images) }),
        make("td", { class: "links" }, one.configured ? make("span", { class: "hint", text: t("connector.file") }) : null, ...(may("admin") && !one.configured ? [
          make("button", { type: "button", text: t("edit"), "aria-label": `${t("edit")}: ${one.name}`, onclick: () => attempt(() => editConnector("sources", one, read)) }),
          make("button", { type: "button", text: t("remove"), "aria-label": `${t("remove")}: ${one.name}`, onclick: () => removeConnector("sources", one.name, read) })] : [])))), t("sources.none"), t("settings.sources")));
  };
  await read();
}

async function showSinks(body) {
  const read = async () => {
    const sinks = await call("GET", "/v1/sinks");
    const act = (one, action) => attempt(async () => {
      const answer = await call("POST", `/v1/sinks/${encodeURIComponent(one.name)}/${action}`);
      if (action === "test") toast(answer.ok ? t("sinks.tested") : `${t("sinks.untested")} ${answer.error}`, { wrong: !answer.ok });
      await read();
    });
    put(body, make("p", { class: "lead", text: t("sinks.lead") }), make("div", { class: "actions" }, make("button", { type: "button", class: "primary", text: t("sinks.new"), onclick: () => attempt(() => editConnector("sinks", null, read)) })),
      settingsTable([t("connector.name"), t("connector.kind"), t("sinks.waiting"), t("sinks.dead"), t("connector.state"), ""], sinks.map((one) => make("tr", {}, make("th", { scope: "row" }, bdi(one.name)), make("td", { text: one.kind }), make("td", { text: number(one.waiting) }), make("td", { text: number(one.dead) }), make("td", {}, t(`sink.state.${one.state}`), one.last_error ? make("p", { class: "hint problem", dir: "auto", text: one.last_error }) : null),
        make("td", { class: "links" }, make("button", { type: "button", text: t(one.state === "paused" ? "source.resume" : "source.pause"), onclick: () => act(one, one.state === "paused" ? "resume" : "pause") }), make("button", { type: "button", text: t("sinks.test"), onclick: () => act(one, "test") }), one.dead ? make("button", { type: "button", text: t("sinks.retry"), onclick: () => act(one, "dead/retry") }) : null,
          ...(one.configured ? [make("span", { class: "hint", text: t("connector.file") })] : [make("button", { type: "button", text: t("edit"), onclick: () => attempt(() => editConnector("sinks", one, read)) }), make("button", { type: "button", text: t("remove"), onclick: () => removeConnector("sinks", one.name, read, { discard: one.waiting > 0 }) })])))), t("sinks.none"), t("settings.sinks")));
  };
  await read();
}

async function showTokens(body) {
  const read = async () => {
    const tokens = await call("GET", "/v1/tokens");
    put(body, make("p", { class: "lead", text: t("access.lead") }), station.session.open ? make("p", { class: "banner-note", text: t("access.open") }) : null,
      make("div", { class: "actions" }, make("button", { type: "button", class: "primary", text: t("access.new"), onclick: create })),
      settingsTable([t("connector.name"), t("access.role"), t("access.created"), ""], tokens.map((one) => make("tr", { class: one.revoked ? "quiet-row" : "" }, make("th", { scope: "row" }, bdi(one.name)), make("td", {}, term(`role.${one.role}`, t(`role.${one.role}`))), make("td", { text: time(one.created) }), make("td", { class: "links" }, one.revoked ? make("span", { class: "hint", text: t("access.revoked", { when: time(one.revoked) }) }) : make("button", { type: "button", text: t("access.revoke"), "aria-label": `${t("access.revoke")}: ${one.name}`, onclick: () => revoke(one) })))), t("access.none"), t("settings.access")));
  };
  async function create() {
    const role = make("select", {}, ...station.role.map((one) => make("option", { value: one, text: t(`role.${one}`), selected: one === "review" })));
    const answer = await ask(t("access.new"), [{ name: "name", label: t("connector.name"), required: true, length: 100 }, { name: "role", label: t("access.role"), input: role }], t("access.create"));
    const made = answer && await attempt(() => call("POST", "/v1/tokens", { name: answer.name, role: answer.role }));
    if (!made) return;
    await read();
    const shown = make("input", { type: "text", readonly: true, value: made.token, "aria-label": t("access.token") });
    await ask(t("access.made"), [{ name: "token", label: t("access.token"), input: shown }], t("close"), { lead: t("access.once") });
  }
  async function revoke(one) {
    const answer = await ask(t("access.revoke"), [], t("access.revoke"), { danger: true, lead: t("access.revoke.lead", { name: one.name }) });
    if (answer) await attempt(async () => { await call("DELETE", `/v1/tokens/${one.id}`); await read(); });
  }
  await read();
}

async function showStorage(body) {
  const now = await call("GET", "/v1/storage");
  const gigabytes = make("input", { type: "number", min: "0.001", step: "any", value: now.keep_bytes === null ? "" : now.keep_bytes / 1e9 }), days = make("input", { type: "number", min: "0.01", step: "any", value: now.keep_days ?? "" });
  const fact = (key, value) => [make("dt", { text: t(key) }), make("dd", { text: value })];
  put(body, make("div", { class: "columns" }, make("section", { class: "box-panel" }, make("h2", {}, term("storage", t("storage.title"))), make("dl", { class: "facts" }, ...fact("storage.images", number(now.inspections)), ...fact("storage.size", bytes(now.bytes)), ...fact("storage.oldest", now.oldest ? time(now.oldest) : "–"), ...fact("storage.protected", number(now.protected))), now.problem ? make("p", { class: "problem", text: now.problem }) : null,
    may("admin") ? make("div", {}, make("label", { class: "field" }, make("span", { text: t("storage.gigabytes") }), gigabytes), make("label", { class: "field" }, make("span", { text: t("storage.days") }), days), make("p", { class: "hint", text: t("storage.hint") }), make("div", { class: "actions" }, make("button", { type: "button", class: "primary", text: t("save"), onclick: save }))) : null),
  may("admin") ? make("section", { class: "box-panel" }, make("h2", { text: t("backup.title") }), make("p", { text: t("backup.text") }), make("div", { class: "actions" }, make("a", { class: "button primary", href: "/v1/backup", download: "", text: t("backup.get") })), make("p", { class: "hint", text: t("backup.restore") })) : null,
  make("section", { class: "box-panel" }, make("h2", { text: t("table.title") }), make("p", { text: t("table.text") }), make("div", { class: "actions" }, make("a", { class: "button", href: "/v1/inspections.csv", download: "inspections.csv", text: "CSV" })))));
  async function save() {
    const value = (input) => (input.value === "" ? null : Number(input.value));
    const done = await attempt(() => call("PUT", "/v1/storage", { keep_gigabytes: value(gigabytes), keep_days: value(days), why: t("settings.storage") }));
    if (done) { toast(t("saved")); showStorage(body); }
  }
}

async function showHistory(body) {
  const rows = await call("GET", "/v1/audit?limit=200");
  const details = (value) => Object.entries(value).filter(([, one]) => one !== "" && one !== null).map(([name, one]) => `${name}: ${typeof one === "object" ? JSON.stringify(one) : one}`).join(", ");
  put(body, make("p", { class: "lead", text: t("history.lead") }), settingsTable([t("fact.time"), t("versions.who"), t("history.what"), t("history.details")], rows.map((one) => make("tr", {}, make("td", { text: time(one.created) }), make("td", {}, bdi(one.who)), make("th", { scope: "row", text: one.action }), make("td", { class: "why", dir: "auto", text: details(one.details) || one.subject }))), t("history.none"), t("settings.history")));
}

async function showBrowser(body) {
  const languages = make("select", { onchange: async () => { keep("language", languages.value); await loadWords(); drawFrame(); render(); } }, ...Object.entries(LANGUAGES).map(([value, text]) => make("option", { value, text, selected: value === language })));
  const theme = make("select", { onchange: () => { keep("theme", theme.value); applyTheme(); } }, ...["auto", "light", "dark"].map((value) => make("option", { value, text: t(`browser.${value}`), selected: value === setting("theme", "auto") })));
  const keys = make("input", { type: "checkbox", checked: setting("keys", true), onchange: () => keep("keys", keys.checked) });
  const shifts = make("input", { type: "text", value: setting("shifts", [6, 14, 22]).join(", "), onchange: () => {
    const hours = shifts.value.split(",").map((text) => Number(text.trim())).filter((hour) => Number.isInteger(hour) && hour >= 0 && hour < 24).sort((a, b) => a - b);
    if (hours.length) keep("shifts", hours);
    shifts.value = setting("shifts", [6, 14, 22]).join(", ");
  } });
  put(body, make("section", { class: "box-panel" }, make("label", { class: "field" }, make("span", { text: t("browser.language") }), languages), make("label", { class: "field" }, make("span", { text: t("browser.theme") }), theme), make("label", { class: "field" }, make("span", { text: t("browser.shifts") }), shifts, make("small", { class: "hint", text: t("browser.shifts.hint") })), make("label", { class: "check" }, keys, t("browser.keys"))));
}

function applyTheme() {
  const theme = setting("theme", "auto");
  if (theme === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
}
