// A new product, or a new revision of one: images, what the doctor says, the job, the result.

/** Returns a name of a set from that of a product. */
function setName(name) { return `product ${name}`.normalize("NFKD").replace(/[^\w .+-]/g, "_").slice(0, 100); }

const QUICK_STEPS = 300; // of the short training of a first product

async function viewLearn(container, { query }) {
  const known = query.get("product") ?? "", state = { set: query.get("set") ?? "", images: [], check: null, roi: null };
  const name = make("input", { type: "text", maxlength: 200, autocomplete: "off", id: "product-name", value: known, readonly: Boolean(known) });
  const grid = make("div", { class: "set-grid" }), said = make("div"), count = make("p", { class: "hint", role: "status" }), region = make("div");
  const files = imageInput(upload), camera = cameraPanel(upload);
  const quick = make("input", { type: "checkbox", id: "quick" });
  const start = make("button", { type: "button", class: "primary", text: t(known ? "learn.replace" : station.models.length ? "learn.add" : "learn.train"), onclick: begin });
  const drop = make("div", { class: "drop" }, make("p", { text: t("learn.drop") }), make("div", { class: "actions" }, files.button), camera?.node);
  dropTarget(drop, upload);
  const step = (n, title, ...content) => make("section", { class: "step" }, make("h2", {}, make("span", { class: "step-number", text: n }), t(title)), ...content);
  add(container, make("h1", {}, known ? t("learn.revision") : t("learn.title"), " ", known ? bdi(known) : null), make("p", { class: "lead", text: t(known ? "learn.lead.revision" : "learn.lead") }),
    step(1, "learn.name", make("label", { class: "field" }, make("span", { text: t("learn.name.label") }), name)),
    step(2, "learn.images", make("p", { class: "hint", text: t("learn.images.hint") }), drop, count, grid),
    step(3, "learn.check", make("button", { type: "button", text: t("learn.check.again"), onclick: check }), said),
    step(4, "learn.region", make("p", { class: "hint", text: t("learn.region.hint") }), region),
    step(5, "learn.start", make("label", { class: "check" }, quick, t(station.models.length ? "learn.quick" : "learn.quick.first")), station.models.length ? null : make("p", { class: "hint", text: t("learn.first") }), make("div", { class: "actions" }, start)));

  async function upload(chosen) {
    if (!name.value.trim()) { name.focus(); toast(t("learn.noname"), { wrong: true }); return; }
    state.set = state.set || setName(name.value.trim());
    history.replaceState(null, "", `#/${address("products/new", { product: known, set: state.set })}`);
    await uploadAll(chosen, (file) => call("POST", address(`/v1/sets/${encodeURIComponent(state.set)}/images`, { name: file.name }), file), t("learn.uploading"));
    await readSet();
    await check();
  }
  async function readSet() {
    if (!state.set) return;
    state.images = await call("GET", `/v1/sets/${encodeURIComponent(state.set)}/images`).catch((error) => { if (error.status === 404) return []; throw error; });
    count.textContent = t("learn.count", { n: state.images.length });
    start.disabled = state.images.length < 4;
    put(grid, ...state.images.slice(0, 120).map((one) => setImage(one)));
    if (state.images.length > 120) add(grid, make("p", { class: "hint", text: t("learn.more", { n: state.images.length - 120 }) }));
    showRegion();
  }
  function setImage(one, why = "") {
    return make("figure", { class: "set-image" }, make("img", { src: `/v1/sets/${encodeURIComponent(state.set)}/images/${one.id}/thumbnail.jpg?size=160`, alt: one.name, loading: "lazy" }),
      make("button", { type: "button", class: "remove", "aria-label": t("learn.remove", { name: one.name }), "data-tip": t("learn.remove", { name: one.name }), text: "×", onclick: () => attempt(async () => { await call("DELETE", `/v1/sets/${encodeURIComponent(state.set)}/images/${one.id}`); await readSet(); await check(); }) }),
      make("figcaption", { dir: "auto", text: why || one.name }));
  }
  async function check() {
    if (!state.images.length) { put(said); return; }
    put(said, make("p", { class: "hint", text: t("learn.checking") }));
    const found = await attempt(() => call("GET", `/v1/sets/${encodeURIComponent(state.set)}/check`));
    if (!found) { put(said); return; }
    const tones = { error: "anomalous", warning: "uncertain", note: "unknown" };
    put(said, found.findings.length ? make("ul", { class: "messages" }, ...found.findings.map((one) => make("li", {}, make("span", { class: `pill ${tones[one.level] ?? "unknown"}`, text: t(`level.${one.level}`) }), make("span", { dir: "auto", text: one.message })))) : make("p", { class: "pill normal" }, icon("normal"), t("learn.fine")));
    if (found.odd.length) add(said, make("h3", { text: t("learn.odd") }), make("p", { class: "hint", text: t("learn.odd.hint") }), make("div", { class: "set-grid" }, ...found.odd.map((one) => setImage(one, one.why))));
  }
  async function showRegion() {
    if (!state.images.length || region.childElementCount) return;
    const probe = make("img", { src: `/v1/sets/${encodeURIComponent(state.set)}/images/${state.images[0].id}`, alt: "" });
    await probe.decode().catch(() => null);
    const width = probe.naturalWidth || 1000, height = probe.naturalHeight || 1000;
    const words = make("span", { class: "hint" });
    const layer = boxLayer(width, height, { most: 1, onchange: () => show() });
    const show = () => { state.roi = layer.whole()[0] ?? null; words.textContent = state.roi ? t("learn.roi", { x: state.roi[0], y: state.roi[1], w: state.roi[2], h: state.roi[3] }) : t("learn.roi.none"); };
    const view = viewer({ image: probe.src, width, height, label: t("learn.region"), layer, small: true });
    const on = make("button", { type: "button", "aria-pressed": "false", text: t("learn.roi.draw"), onclick: () => { layer.draw(!layer.drawing); on.setAttribute("aria-pressed", layer.drawing); } });
    add(region, view.node, make("div", { class: "actions" }, on, make("button", { type: "button", text: t("review.box.add"), onclick: () => layer.add() }), make("button", { type: "button", text: t("learn.roi.clear"), onclick: () => { layer.boxes.length = 0; layer.draw(layer.drawing); show(); } }), words));
    show();
  }
  async function begin() {
    const product = name.value.trim();
    const job = station.models.length ? { kind: "add", product, set: state.set, replace: Boolean(known), quick: quick.checked, roi: state.roi ?? undefined } : { kind: "train", sets: { [product]: state.set }, steps: quick.checked ? QUICK_STEPS : undefined };
    const made = await attempt(() => call("POST", "/v1/jobs", job));
    if (made) go(`jobs/${made.id}`);
  }
  start.disabled = true;
  if (state.set) { await readSet(); await check(); }
  return { leave: () => camera?.stop() };
}

/** A job: what it does now, and what it made. */
async function viewJob(container, { path }) {
  const id = path[1], title = make("h1"), body = make("div", { class: "job", role: "status" }), log = make("pre", { class: "log", tabindex: "0", "aria-label": t("job.log"), hidden: true });
  add(container, title, body, may("admin") ? make("button", { type: "button", text: t("job.log"), onclick: showLog }) : null, log);
  let job = null;
  async function showLog() {
    const answer = await fetch(`/v1/jobs/${id}/log`);
    log.textContent = answer.ok ? (await answer.text()) || t("job.log.empty") : t("job.log.empty");
    log.hidden = false;
  }
  async function read() {
    job = await call("GET", `/v1/jobs/${id}`);
    title.textContent = `${t(`job.${job.kind}`)} ${job.settings.product ?? ""}`;
    put(body, jobState(job), make("div", { class: "actions" },
      ["queued", "running"].includes(job.state) && may("admin") ? make("button", { type: "button", text: t("job.cancel"), onclick: () => attempt(async () => { await call("POST", `/v1/jobs/${id}/cancel`); await read(); }) }) : null,
      job.result ? make("a", { class: "button primary", href: `#/versions/${job.result}`, text: t("job.result") }) : null,
      make("a", { class: "button", href: "#/products", text: t("job.back") })));
    if (["done", "failed", "cancelled"].includes(job.state)) clearInterval(beat);
  }
  const beat = setInterval(() => read().catch(() => {}), 1500);
  await read();
  return { leave: () => clearInterval(beat) };
}

/** Returns the state of a job with its progress. */
function jobState(job) {
  const tone = { queued: "unknown", running: "uncertain", done: "normal", failed: "anomalous", cancelled: "unknown" }[job.state];
  const { task, done, total, seconds_left: left } = job.progress;
  const node = make("div", { class: "job-state" }, make("span", { class: `pill ${tone}`, text: t(`job.state.${job.state}`) }));
  if (job.state === "running" && total) add(node, make("progress", { max: total, value: done, "aria-label": task }), make("span", { text: `${task} ${number(done)} / ${number(total)}${left ? ` · ${t("job.left", { n: Math.ceil(left / 60) })}` : ""}` }));
  else if (job.state === "running") add(node, make("span", { class: "hint", text: task ?? t("job.starting") }));
  if (job.error) add(node, make("p", { class: "problem", dir: "auto", text: job.error }));
  return node;
}
