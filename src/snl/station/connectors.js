// Sources and sinks: forms made from the JSON schema of each kind, also of kinds that other packages bring.

/** Returns the form of a kind's settings as [{name, input, value()}]. */
function schemaFields(schema, values = {}) {
  const resolve = (one) => {
    if (one.$ref) return resolve(schema.$defs[one.$ref.split("/").pop()]);
    if (one.anyOf) return { ...resolve(one.anyOf.find((other) => other.type !== "null")), ...one, anyOf: undefined };
    if (one.allOf) return { ...resolve(one.allOf[0]), ...one, allOf: undefined };
    return one;
  };
  return Object.entries(schema.properties ?? {}).map(([name, raw]) => {
    const one = resolve(raw), required = schema.required?.includes(name) ?? false, given = values[name] ?? one.default;
    let input, value;
    if (one.enum) {
      input = make("select", {}, ...one.enum.map((text) => make("option", { value: text, text, selected: text === given })));
      value = () => input.value;
    } else if (one.type === "boolean") {
      input = make("input", { type: "checkbox", checked: Boolean(given) });
      value = () => input.checked;
    } else if (one.type === "number" || one.type === "integer") {
      input = make("input", { type: "number", step: one.type === "integer" ? "1" : "any", min: one.minimum, max: one.maximum, value: given ?? "", required });
      value = () => (input.value === "" ? undefined : Number(input.value));
    } else if (one.type === "array") {
      input = make("input", { type: "text", value: (given ?? []).join(", "), autocomplete: "off" });
      value = () => { const parts = input.value.split(",").map((text) => text.trim()).filter(Boolean); return parts.length ? parts : undefined; };
    } else if (one.type === "object") {
      input = make("input", { type: "text", value: given && Object.keys(given).length ? JSON.stringify(given) : "", placeholder: "{}", autocomplete: "off" });
      value = () => { if (!input.value.trim()) return undefined; try { return JSON.parse(input.value); } catch { return input.value; } };
    } else {
      input = make("input", { type: one.format === "password" ? "password" : "text", value: one.format === "password" ? "" : given ?? "", required, autocomplete: one.format === "password" ? "new-password" : "off" });
      value = () => (input.value === "" ? undefined : input.value);
    }
    const known = `setting.${name}`;
    return { name, label: known in WORDS ? t(known) : name, hint: meaning(`setting.${name}`), input, value, required };
  });
}

/** Asks for a source or sink and stores it; `role` is `sources` or `sinks`. */
async function editConnector(role, one, done) {
  const kinds = (await call("GET", "/v1/connectors"))[role], dialog = byId("dialog");
  const name = make("input", { type: "text", maxlength: 80, required: true, value: one?.name ?? "", readonly: Boolean(one), autocomplete: "off" });
  const kind = make("select", { onchange: () => show() }, ...Object.keys(kinds).map((text) => make("option", { value: text, text: `kind.${text}` in WORDS ? t(`kind.${text}`) : text, selected: text === one?.kind })));
  const fields = make("div", { class: "fields" }), problem = make("p", { class: "problem", role: "alert" });
  let form = [];
  function show() {
    form = schemaFields(kinds[kind.value], one?.settings ?? {});
    put(fields, ...form.map((field) => make("label", { class: "field" }, make("span", { text: field.label + (field.required ? " *" : "") }), field.input, field.hint ? make("small", { class: "hint", text: field.hint }) : null)));
  }
  async function send(event) {
    event.preventDefault();
    const settings = {};
    for (const field of form) {
      const value = field.value();
      if (value !== undefined) settings[field.name] = value;
    }
    try {
      await call("PUT", `/v1/${role}/${encodeURIComponent(name.value.trim())}`, { kind: kind.value, settings });
      dialog.close();
      await done();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      problem.textContent = advice(error);
    }
  }
  dialog.className = "ask wide-ask";
  put(dialog, make("form", { onsubmit: send }, make("h2", { id: "dialog-title", text: t(one ? `${role}.edit` : `${role}.new`) }),
    make("label", { class: "field" }, make("span", { text: t("connector.name") }), name), make("label", { class: "field" }, make("span", { text: t("connector.kind") }), kind), fields, problem,
    make("div", { class: "actions" }, make("button", { type: "button", text: t("cancel"), onclick: () => dialog.close() }), make("button", { type: "submit", class: "primary", text: t("save") }))));
  show();
  dialog.showModal();
}

async function removeConnector(role, name, done, query = {}) {
  const answer = await ask(t(`${role}.remove`), [], t("remove"), { danger: true, lead: t(`${role}.remove.lead`, { name }) });
  if (answer) await attempt(async () => { await call("DELETE", address(`/v1/${role}/${encodeURIComponent(name)}`, query)); await done(); });
}
