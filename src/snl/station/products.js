// Products, models with their versions, and jobs.

async function viewProducts(container) {
  const body = make("div"), models = make("div"), jobs = make("div");
  const upload = make("input", { type: "file", accept: ".snl,.onnx", class: "hidden", tabindex: "-1", "aria-hidden": "true" });
  upload.addEventListener("change", () => { const [file] = upload.files; upload.value = ""; if (file) addModel(file); });
  add(container, make("div", { class: "view-title" }, make("h1", { text: t("products.title") }), may("admin") ? make("div", { class: "actions" }, make("a", { class: "button primary", href: "#/products/new", text: t("products.new") }), make("button", { type: "button", text: t("products.upload"), onclick: () => upload.click() }), upload) : null),
    body, make("h2", { text: t("jobs.title") }), jobs, make("h2", {}, term("version", t("versions.title"))), models);

  async function addModel(file) {
    const suffix = file.name.toLowerCase().endsWith(".onnx") ? ".onnx" : ".snl";
    const made = await attempt(() => call("POST", address("/v1/models", { suffix, name: station.models[0]?.name ?? file.name.replace(/\.\w+$/, ""), why: file.name }), file));
    if (made) go(`versions/${made.id}`);
  }
  async function recalibrate(name) {
    const answer = await ask(t("products.recalibrate"), [], t("products.recalibrate.start"), { lead: t("products.recalibrate.lead", { product: name }) });
    const job = answer && await attempt(() => call("POST", "/v1/jobs", { kind: "recalibrate", product: name, reviewed: true }));
    if (job) go(`jobs/${job.id}`);
  }
  async function read() {
    await refreshModels();
    const [rows, newest] = await Promise.all([call("GET", "/v1/versions"), call("GET", "/v1/jobs?limit=12")]);
    const link = (route, text, name) => make("a", { class: "link", href: `#/${route}`, text, "aria-label": `${text}: ${name}` });
    put(body, station.products.length ? make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("products.title") }, make("table", { class: "products-table" },
      make("thead", {}, make("tr", {}, ...["fact.product", "products.held", "rates.anomalous", "rates.uncertain", "products.actions"].map((key) => make("th", { scope: "col", text: t(key) })))),
      make("tbody", {}, ...station.products.map((one) => make("tr", {}, make("th", { scope: "row" }, bdi(one.name)), make("td", { text: number(one.held_out_images) }), make("td", { text: percent(one.rates.anomalous) }), make("td", { text: percent(one.rates.uncertain) }),
        make("td", { class: "links" }, link(`rates/${encodeURIComponent(one.name)}`, t("products.rates"), one.name), ...(may("admin") ? [link(address("products/new", { product: one.name }), t("products.revise"), one.name), link(`areas/${encodeURIComponent(one.name)}`, t("products.areas"), one.name),
          make("button", { type: "button", class: "quiet link", text: t("products.recalibrate"), "aria-label": `${t("products.recalibrate")}: ${one.name}`, onclick: () => recalibrate(one.name) })] : []))))))) : make("p", { class: "empty", text: t("products.none") }));
    put(jobs, ...(newest.length ? newest.map((job) => make("div", { class: "job-row" }, make("a", { class: "link", href: `#/jobs/${job.id}` }, `${t(`job.${job.kind}`)} `, bdi(job.settings.product ?? Object.keys(job.settings.sets ?? {}).join(", "))), jobState(job), make("time", { class: "hint", datetime: job.created, text: time(job.created) }))) : [make("p", { class: "hint", text: t("jobs.none") })]));
    put(models, rows.length ? make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("versions.title") }, make("table", {}, make("thead", {}, make("tr", {}, ...["versions.model", "versions.state", "versions.when", "versions.who", "why"].map((key) => make("th", { scope: "col", text: t(key) })))),
      make("tbody", {}, ...rows.slice(0, 50).map((one) => make("tr", {}, make("th", { scope: "row" }, make("a", { class: "link", href: `#/versions/${one.id}` }, bdi(one.name), ` ${one.version}`)), make("td", {}, statePill(one.state)), make("td", { text: time(one.promoted ?? one.created) }), make("td", {}, bdi(one.who)), make("td", { class: "why", dir: "auto", text: one.why })))))) : make("p", { class: "hint", text: t("versions.none") }));
  }
  await read();
  const beat = setInterval(() => { if (!document.hidden) read().catch(() => {}); }, 4000);
  return { leave: () => clearInterval(beat), event: (kind) => { if (kind === "reset") read(); } };
}

/** Scale, smallest region and ignore mask of a product, drawn on one of its images. */
async function viewAreas(container, { path }) {
  const name = decodeURIComponent(path[1]), known = product(name);
  if (!known) { add(container, make("p", { class: "empty", text: t("rates.unknown") })); return {}; }
  const page = await call("GET", address("/v1/inspections", { product: name, limit: 1 })), one = page.inspections[0];
  const base = `/v1/products/${encodeURIComponent(name)}`;
  const scale = make("input", { type: "number", min: "0", step: "any", value: known.mm_per_pixel ?? "" }), smallest = make("input", { type: "number", min: "1", step: "1", value: known.min_region_area ?? "" });
  add(container, make("h1", {}, t("areas.title"), " ", bdi(name)),
    make("section", { class: "box-panel" }, make("h2", { text: t("areas.scale") }), make("label", { class: "field" }, term("scale", t("areas.mm")), scale), make("label", { class: "field" }, term("smallest", t("areas.smallest")), smallest),
      make("div", { class: "actions" }, make("button", { type: "button", class: "primary", text: t("save"), onclick: saveScale }))));
  if (!one) { add(container, make("p", { class: "empty", text: t("areas.noimage") })); return {}; }
  const { width, height } = one.result, factor = Math.min(1, 1000 / Math.max(width, height));
  const canvas = make("canvas", { class: "mask-canvas", width: Math.round(width * factor), height: Math.round(height * factor), tabindex: "0", role: "img", "aria-label": t("areas.canvas") }), pen = canvas.getContext("2d");
  const size = make("input", { type: "range", min: "4", max: "120", value: "40", "aria-label": t("areas.brush") });
  const layer = boxLayer(canvas.width, canvas.height, { most: 50 });
  const paint = () => { pen.fillStyle = pen.strokeStyle = "#ffffff"; };
  if (known.has_ignore_mask) {
    const mask = make("img", { src: `${base}/ignore-mask`, alt: "" });
    await mask.decode().then(() => pen.drawImage(mask, 0, 0, canvas.width, canvas.height), () => null);
    keepWhite();
  }
  function keepWhite() {
    const data = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let n = 0; n < data.data.length; n += 4) data.data[n + 3] = data.data[n] > 127 ? 255 : 0;
    pen.putImageData(data, 0, 0);
  }
  let last = null;
  const point = (event) => { const area = canvas.getBoundingClientRect(); return [(event.clientX - area.left) / area.width * canvas.width, (event.clientY - area.top) / area.height * canvas.height]; };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); last = point(event); stroke(last); });
  canvas.addEventListener("pointermove", (event) => { if (last) { const now = point(event); stroke(now); last = now; } });
  canvas.addEventListener("pointerup", () => { last = null; });
  function stroke(to) {
    paint();
    pen.lineCap = "round";
    pen.lineWidth = Number(size.value);
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(...to);
    pen.stroke();
  }
  const clear = () => { pen.clearRect(0, 0, canvas.width, canvas.height); layer.boxes.length = 0; layer.draw(layer.drawing); };
  const stage = make("div", { class: "mask-stage" }, make("img", { src: picture(one, 1024), alt: "" }), canvas, layer.node);
  stage.style.setProperty("--ratio", `${width} / ${height}`);
  add(container, make("section", { class: "box-panel" }, make("h2", {}, term("ignore", t("areas.ignore"))), make("p", { class: "hint", text: t("areas.ignore.hint") }), stage,
    make("div", { class: "actions" }, make("label", { class: "opacity" }, t("areas.brush"), size), make("button", { type: "button", text: t("review.box.add"), onclick: () => layer.add() }), make("button", { type: "button", text: t("areas.clear"), onclick: clear }), make("button", { type: "button", class: "primary", text: t("areas.apply"), onclick: saveMask }))));

  async function saveScale() {
    const values = {};
    if (scale.value) values.mm_per_pixel = Number(scale.value);
    if (smallest.value) values.min_region_area = Number(smallest.value);
    if (!Object.keys(values).length) { toast(t("areas.novalue"), { wrong: true }); return; }
    await apply(() => call("PUT", `${base}/calibration`, { ...values, why: t("areas.title") }));
  }
  async function saveMask() {
    paint();
    for (const [x, y, w, h] of layer.boxes) pen.fillRect(x, y, w, h);
    layer.boxes.length = 0;
    layer.draw(layer.drawing);
    const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    if (!data.some((value, n) => n % 4 === 3 && value)) { if (known.has_ignore_mask) await apply(() => call("DELETE", address(`${base}/ignore-mask`, { why: t("areas.ignore") }))); return; }
    const answer = await ask(t("areas.apply"), [{ name: "why", label: t("why"), hint: t("why.hint") }], t("areas.apply"), { lead: t("areas.apply.lead") });
    if (!answer) return;
    const whole = make("canvas", { width: canvas.width, height: canvas.height }), ink = whole.getContext("2d");
    ink.fillStyle = "#000000";
    ink.fillRect(0, 0, whole.width, whole.height);
    ink.drawImage(canvas, 0, 0);
    const blob = await new Promise((done) => { whole.toBlob(done, "image/png"); });
    await apply(() => call("PUT", address(`${base}/ignore-mask`, { why: answer.why }), blob, "image/png"));
  }
  async function apply(action) {
    if (await attempt(async () => { await action(); return true; })) { await refreshModels(); toast(t("areas.applied")); render(); }
  }
  return {};
}
