// Cards, the rows of worst mistakes, and the gallery, which holds only the cards near the window.

const GAP = 14, NARROWEST = 300, SLACK = 600; // pixels; slack above and below the window
const ROW = 12; // cards of a row of worst mistakes
const PANELS = SOME_MASK ? 3 : 2;

/** Thumbnails of one image as data URLs, read from its block; null while the page still loads. */
function pictures(image) {
  const block = byId(`p${image.index}`);
  if (!block || (document.readyState === "loading" && !byId(`p${image.index + 1}`))) return null;
  const kinds = { "/": "jpeg", i: "png", U: "webp" };
  return JSON.parse(block.textContent).map((text) => text && `data:image/${kinds[text[0]]};base64,${text}`);
}

/** What stands in place of a mask. */
function noMask(image) { return image.anomalous ? "no mask" : "no defect"; }

function decisionPill(image) {
  return make("span", { class: `pill ${image.decision}` }, icon(image.decision), DECISIONS[image.decision]);
}

function outcomeTag(image) {
  const { word, good } = OUTCOMES[image.outcome];
  if (good === null) return make("span", { class: "tag", text: image.anomalous ? "defective" : "normal part" });
  return make("span", { class: `tag ${good ? "right" : "wrong"}`, text: `${good ? "✓" : "✗"} ${word}` });
}

/** Where recognition named another product. */
function mistaken({ product, recognised }) {
  if (recognised === null || recognised === product) return null;
  return make("span", { class: "other" }, " taken for ", name(recognised));
}

function card(image, list, position, attributes = {}) {
  const cut = image.path.lastIndexOf("/") + 1;
  const wrong = OUTCOMES[image.outcome].good === false;
  const button = make("button", {
    type: "button", class: `card ${wrong ? "wrong" : ""}`, "data-index": image.index,
    "aria-label": `${image.path}: judged ${DECISIONS[image.decision]}, ${OUTCOMES[image.outcome].word}; ${image.anomalous ? "defective" : "normal"} part, score ${figure(image.score)}`,
    onclick: () => openView(list, position, button), ...attributes,
  },
  make("span", { class: "thumbs" }),
  make("span", { class: "line" }, decisionPill(image), outcomeTag(image)),
  make("span", { class: "line figures" }, make("span", {}, "score ", make("b", { text: figure(image.score) })),
    make("span", {}, "p ", make("b", { text: percent(image.p) }))),
  make("span", { class: "line names" }, make("b", {}, name(image.product), mistaken(image)), make("span", {}, name(image.defect || (image.anomalous ? "defective" : "good")))),
  make("span", { class: "line path" }, make("bdi", { class: "folder", text: image.path.slice(0, cut) }), make("bdi", { class: "file", text: image.path.slice(cut) })));
  button.title = image.path;
  return button;
}

function addPictures(button, image) {
  const place = button.querySelector(".thumbs");
  if (place.dataset.filled) return;
  const urls = pictures(image);
  if (urls) place.dataset.filled = "yes";
  const panels = [0, 1, 2].slice(0, PANELS).map((n) => urls?.[n]
    ? make("img", { src: urls[n], alt: "", decoding: "async", draggable: "false", class: n === 2 ? "mask" : "" })
    : make("span", { class: "blank", text: n === 2 ? noMask(image) : "" }));
  place.replaceChildren(...panels);
}

// the gallery

const gallery = { list: [], nodes: new Map(), columns: 1, width: 0, height: 0, active: 0, pending: false };

function compare() {
  const up = (value) => value ?? -Infinity;
  const orders = {
    worst: (a, b) => wrongness(b) - wrongness(a),
    calibrated: (a, b) => up(b.calibrated) - up(a.calibrated) || up(b.score) - up(a.score),
    score: (a, b) => up(b.score) - up(a.score),
    path: (a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0),
  };
  const order = orders[state.sort];
  return (a, b) => order(a, b) || a.index - b.index;
}

function fits(image, withOutcome = true) {
  return (!state.product || image.product === state.product)
    && (!withOutcome || !state.outcome || matches(image, state.outcome))
    && (!state.query || image.text.includes(state.query.toLocaleLowerCase()));
}

/** An outcome, or an outcome of one kind of part as `uncertain-normal`. */
function matches(image, wanted) {
  const [key, kind] = wanted.split("-");
  return image.outcome === key && (!kind || (kind === "anomalous") === image.anomalous);
}

function showGallery() {
  const before = gallery.list[gallery.active];
  const held = gallery.nodes.get(gallery.active)?.contains(document.activeElement);
  gallery.list = IMAGES.filter((image) => fits(image)).sort(compare());
  gallery.active = Math.max(0, gallery.list.indexOf(before));
  byId("nothing").hidden = gallery.list.length > 0;
  byId("gallery").hidden = gallery.list.length === 0;
  byId("count").textContent = `${tally(gallery.list.length)} of ${plural(IMAGES.length, "image", "images")}. Each card: image, anomaly map${SOME_MASK ? ", true defect" : ""}; p is the share of normal parts that score as high.`;
  showChips();
  clearGallery();
  layout();
  if (held) gallery.nodes.get(gallery.active)?.querySelector("button").focus({ preventScroll: true });
}

function clearGallery() {
  for (const node of gallery.nodes.values()) node.remove();
  gallery.nodes.clear();
}

/** Columns and height of a row from the width there is and from one card as it really comes out. */
function layout() {
  const place = byId("gallery"), width = place.clientWidth;
  if (!width || !gallery.list.length) return;
  gallery.columns = Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP)));
  gallery.width = (width - GAP * (gallery.columns - 1)) / gallery.columns;
  const probe = make("li", { class: "probe" }, card(gallery.list[0], [], 0, { tabindex: -1 }));
  probe.style.width = `${gallery.width}px`;
  place.append(probe);
  gallery.height = Math.ceil(probe.offsetHeight) + GAP;
  probe.remove();
  place.style.height = `${Math.ceil(gallery.list.length / gallery.columns) * gallery.height - GAP}px`;
  clearGallery();
  showWindow();
}

/** Makes the cards near the window and drops the others, but never the one that has the focus. */
function showWindow() {
  const place = byId("gallery"), top = place.getBoundingClientRect().top;
  const { columns, height, nodes, list } = gallery;
  if (!height) return;
  const first = Math.max(0, Math.floor((-top - SLACK) / height)) * columns;
  const last = Math.min(list.length, Math.ceil((innerHeight - top + SLACK) / height) * columns);
  const wanted = (n) => n >= first && n < last;
  for (const [n, node] of nodes) {
    if (wanted(n) || node.contains(document.activeElement)) continue;
    node.remove();
    nodes.delete(n);
  }
  for (let n = first; n < last; n += 1) if (!nodes.has(n)) place.insertBefore(cell(n), following(n));
  if (!nodes.has(gallery.active) && last > first) setActive(first);
}

/** The node before which card `n` stands, so that the order of the page is that of the list. */
function following(n) {
  let next = null;
  for (const key of gallery.nodes.keys()) if (key > n && (next === null || key < next)) next = key;
  return next === null ? null : gallery.nodes.get(next);
}

function cell(n) {
  const { columns, width, height, list, nodes } = gallery;
  const button = card(list[n], list, n, { tabindex: n === gallery.active ? 0 : -1 });
  const node = make("li", { "aria-setsize": list.length, "aria-posinset": n + 1 }, button);
  node.style.width = `${width}px`;
  node.style.height = `${height - GAP}px`;
  node.style.transform = `translate(${(n % columns) * (width + GAP)}px, ${Math.floor(n / columns) * height}px)`;
  addPictures(button, list[n]);
  nodes.set(n, node);
  return node;
}

function setActive(n) {
  gallery.nodes.get(gallery.active)?.querySelector("button").setAttribute("tabindex", -1);
  gallery.active = n;
  gallery.nodes.get(n)?.querySelector("button").setAttribute("tabindex", 0);
}

/** Moves the focus to a card, which is scrolled to and made first. */
function focusCard(n) {
  const place = byId("gallery"), row = Math.floor(n / gallery.columns) * gallery.height;
  const top = place.getBoundingClientRect().top + row, under = roof() + 8;
  if (top < under) scrollBy({ top: top - under, behavior: "instant" });
  else if (top + gallery.height > innerHeight) scrollBy({ top: top + gallery.height - innerHeight, behavior: "instant" });
  setActive(n);
  showWindow();
  setActive(n);
  gallery.nodes.get(n)?.querySelector("button").focus({ preventScroll: true });
}

function galleryKey(event) {
  const rows = Math.max(1, Math.floor(innerHeight / gallery.height) - 1), { columns, list } = gallery;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
    PageUp: -rows * columns, PageDown: rows * columns, Home: -Infinity, End: Infinity };
  const step = steps[event.key];
  if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  focusCard(Math.min(list.length - 1, Math.max(0, gallery.active + step)));
}

function scrolled() {
  if (gallery.pending) return;
  gallery.pending = true;
  requestAnimationFrame(() => {
    gallery.pending = false;
    showWindow();
  });
}

// outcomes as buttons above the gallery

function showChips() {
  const images = IMAGES.filter((image) => fits(image, false));
  const chip = (key, word, kind) => {
    const count = key ? images.filter((image) => matches(image, key)).length : images.length;
    return make("button", { type: "button", class: `chip ${kind}`, "data-outcome": key, "aria-pressed": String(state.outcome === key),
      onclick: () => change({ outcome: state.outcome === key ? "" : key }) }, word, make("b", { text: tally(count) }));
  };
  const place = byId("chips"), held = place.contains(document.activeElement) ? document.activeElement.dataset.outcome : null;
  const chips = [chip("", "All", "plain"), ...Object.entries(OUTCOMES)
    .filter(([key]) => key !== "unknown" || SOME_UNKNOWN).map(([key, { plural: word }]) => chip(key, word, tone(key)))];
  if (state.outcome.includes("-")) {
    const [key, kind] = state.outcome.split("-");
    chips.push(chip(state.outcome, `${OUTCOMES[key].plural}, ${KINDS[kind][1]} only`, tone(key)));
  }
  place.replaceChildren(...chips);
  if (held !== null) (chips.find((node) => node.dataset.outcome === held) ?? chips[0]).focus();
}

// the worst mistakes

const worst = {};

function drawWorst() {
  for (const [key, title, none] of [
    ["miss", "Worst misses", "No defective part is passed as normal at these rates."],
    ["false_alarm", "Worst false alarms", "No normal part is called anomalous at this rate."]]) {
    const row = make("ul", { class: "strip", role: "list", "aria-label": title });
    const empty = make("p", { class: "empty", text: none });
    const more = make("button", { type: "button", class: "quiet link", onclick: () => showOutcome(state.product, key) });
    const section = make("div", { class: "worst" }, make("div", { class: "worst-head" }, make("h3", { text: title }), more), row, empty);
    const entry = { row, empty, more, list: [], near: false, shown: "" };
    new IntersectionObserver(([seen]) => {
      entry.near = seen.isIntersecting;
      fillRow(entry);
    }, { rootMargin: "400px" }).observe(section);
    worst[key] = entry;
    byId("worst").append(section);
  }
}

function showWorst() {
  for (const [key, entry] of Object.entries(worst)) {
    const all = IMAGES.filter((image) => image.outcome === key && (!state.product || image.product === state.product));
    entry.list = all.sort((a, b) => wrongness(b) - wrongness(a) || a.index - b.index).slice(0, ROW);
    entry.more.textContent = all.length > 1 ? `show all ${all.length}` : "show it";
    entry.more.hidden = all.length === 0;
    entry.empty.hidden = all.length > 0;
    entry.row.hidden = all.length === 0;
    fillRow(entry);
  }
}

/** Cards only while the row is near the window. */
function fillRow(entry) {
  const list = entry.near ? entry.list : [];
  const shown = list.map((image) => `${image.index}${image.decision}`).join();
  if (entry.shown === shown) return;
  const height = entry.row.offsetHeight;
  entry.shown = shown;
  entry.row.style.minHeight = entry.near ? "" : `${height}px`;
  entry.row.replaceChildren(...list.map((image, n) => {
    const button = card(image, list, n);
    addPictures(button, image);
    return make("li", {}, button);
  }));
}

/** Pictures that were not yet read when their cards were made. */
function fillLate() {
  for (const button of document.querySelectorAll("button.card")) addPictures(button, IMAGES[Number(button.dataset.index)]);
}
