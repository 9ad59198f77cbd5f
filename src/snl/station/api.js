// Requests to the service, their errors, and what the page knows of the service.

const station = { session: null, models: [], products: [], sources: [], view: null, role: ["read", "inspect", "review", "admin"] };

class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Sends a request and returns the answer's JSON; a refusal is thrown with the server's message. */
async function call(method, path, body, type) {
  const options = { method, headers: {}, credentials: "same-origin" };
  if (body instanceof Blob) {
    options.body = body;
    options.headers["Content-Type"] = type ?? "application/octet-stream";
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused(0, "offline", t("error.offline"));
  }
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().then((one) => one.error, () => null);
  if (answer.status === 401 && path !== "/v1/session") showSignIn();
  throw new Refused(answer.status, problem?.code ?? "", problem?.message ?? t("error.status", { status: answer.status }));
}

/** Returns an address with a query; empty values are left out. */
function address(path, query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "" && value !== false) parameters.set(name, value);
  }
  return parameters.size ? `${path}?${parameters}` : path;
}

function may(role) {
  return station.session !== null && station.role.indexOf(station.session.role) >= station.role.indexOf(role);
}

/** Runs an action of the user; a refusal is shown, and nothing else happens. */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status !== 401) toast(advice(error), { wrong: true });
    return undefined;
  }
}

/** Returns an error's message with what to do about it. */
function advice(error) {
  const key = `error.${error.code}`;
  return key in WORDS && error.code !== "offline" ? `${error.message}. ${t(key)}` : error.message;
}

/** Shows a message for some seconds, with at most one action; an error stays until it is closed. */
function toast(text, { wrong = false, action = null, label = "" } = {}) {
  const node = make("div", { class: `toast${wrong ? " wrong" : ""}` }, make("span", { dir: "auto", text }));
  const close = () => node.remove();
  if (action) add(node, make("button", { type: "button", text: label, onclick: () => { close(); action(); } }));
  add(node, make("button", { type: "button", class: "quiet", "aria-label": t("close"), text: "×", onclick: close }));
  const toasts = byId("toasts");
  add(toasts, node);
  while (toasts.children.length > 3) toasts.firstChild.remove();
  if (!wrong) setTimeout(close, 8000);
}

async function refreshModels() {
  station.models = await call("GET", "/v1/models");
  station.products = station.models.length ? await call("GET", "/v1/products") : [];
}

async function refreshSources() { station.sources = await call("GET", "/v1/sources"); }

function product(name) { return station.products.find((one) => one.name === name) ?? null; }

function picture(one, size = 320) { return `/v1/inspections/${one.id}/thumbnail.jpg?size=${size}`; }

/** Asks in a dialog; returns the values of the form, or null. */
function ask(title, fields, label, { danger = false, lead = "" } = {}) {
  const dialog = byId("dialog");
  return new Promise((resolve) => {
    let answer = null;
    const inputs = new Map();
    const form = make("form", { method: "dialog" }, make("h2", { id: "dialog-title", text: title }));
    if (lead) add(form, make("p", { class: "lead", text: lead }));
    for (const field of fields) {
      const input = field.input ?? make("input", { type: field.type ?? "text", value: field.value ?? "", maxlength: field.length ?? 200, autocomplete: "off", required: field.required ?? false });
      inputs.set(field.name, input);
      add(form, make("label", { class: "field" }, make("span", { text: field.label }), input, field.hint ? make("small", { class: "hint", text: field.hint }) : null));
    }
    add(form, make("div", { class: "actions" },
      make("button", { type: "button", text: t("cancel"), onclick: () => dialog.close() }),
      make("button", { type: "submit", class: danger ? "primary danger" : "primary", text: label })));
    form.addEventListener("submit", () => {
      answer = Object.fromEntries([...inputs].map(([name, input]) => [name, input.type === "checkbox" ? input.checked : input.value]));
    });
    dialog.className = "ask";
    put(dialog, form);
    dialog.addEventListener("close", () => resolve(answer), { once: true });
    dialog.showModal();
  });
}
