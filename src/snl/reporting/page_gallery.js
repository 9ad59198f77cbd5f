// Image cards, the rows of the worst errors, and the gallery, which contains only cards near the window.

const GAP = 14, MIN_CARD_WIDTH = HAS_MASKS ? 430 : 310, OVERSCAN = 600; // pixels; overscan: above and below the window
const MAX_WORST = 12; // cards in a row of worst errors

function decisionPill(image) {
  return make("span", { class: `pill ${image.decision}` }, icon(image.decision), DECISIONS[image.decision]);
}

function outcomeTag(image) {
  const { word, good } = OUTCOMES[image.outcome];
  if (good === null) return make("span", { class: "tag", text: image.anomalous ? "defective" : "normal" });
  return make("span", { class: `tag ${good ? "right" : "wrong"}`, text: `${good ? "✓" : "✗"} ${word}` });
}

/** Returns a label if the image was recognised as another product. */
function misrecognised({ product, recognised }) {
  if (recognised === null || recognised === product) return null;
  return make("span", { class: "other" }, " recognised as ", bdi(recognised));
}

function card(image, list, position, attributes = {}) {
  const cut = image.path.lastIndexOf("/") + 1;
  const wrong = OUTCOMES[image.outcome].good === false;
  const button = make("button", {
    type: "button", class: `card ${wrong ? "wrong" : ""}`, "data-index": image.index,
    "aria-keyshortcuts": "c n a Delete",
    onkeydown: (event) => reviewKey(event, image),
    onclick: () => openView(list, position, button), ...attributes,
  },
  make("span", { class: `thumbs ${HAS_MASKS ? "three" : "two"}` }),
  make("span", { class: "line" }, decisionPill(image), outcomeTag(image)),
  make("span", { class: "line figures" }, make("span", {}, "score ", make("b", { text: formatNumber(image.score) })),
    image.part ? make("span", { class: "part" }, "part ", bdi(image.part)) : null,
    make("span", {}, "p ", make("b", { text: percent(image.p) }))),
  make("span", { class: "line names" }, make("b", {}, bdi(image.product), misrecognised(image)), make("span", {}, bdi(image.defect || (image.anomalous ? "defective" : "good")))),
  make("span", { class: "line path" }, make("bdi", { class: "folder", text: image.path.slice(0, cut) }), make("bdi", { class: "file", text: image.path.slice(cut) }),
    make("span", { class: "verdict" })));
  button.title = image.path;
  showVerdict(button, image);
  return button;
}

function cardLabel(image) {
  const verdict = reviews.get(image.index);
  return `${image.path}: decision ${DECISIONS[image.decision]}, outcome ${OUTCOMES[image.outcome].word}; ${image.anomalous ? "defective" : "normal"} image, score ${formatNumber(image.score)}${verdict ? `; reviewed: ${verdict}` : ""}`;
}

// the gallery

const gallery = { list: [], nodes: new Map(), columns: 1, width: 0, height: 0, active: 0, pending: false };

/** Returns the comparison function of the selected sort order. */
function compare() {
  const known = (value) => value ?? -Infinity;
  const partKey = (image) => image.part || image.path; // an image without a part is a part of its own
  const orders = {
    worst: (a, b) => severity(b) - severity(a),
    calibrated: (a, b) => known(b.calibrated) - known(a.calibrated) || known(b.score) - known(a.score),
    score: (a, b) => known(b.score) - known(a.score),
    path: (a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0),
    part: byPart,
  };
  const worstOf = new Map();
  if (state.sort === "part") {
    for (const image of IMAGES) worstOf.set(partKey(image), Math.max(worstOf.get(partKey(image)) ?? 0, severity(image)));
  }
  /** Parts with the worst errors first; views of one part in the order of their paths. */
  function byPart(a, b) {
    const [one, other] = [partKey(a), partKey(b)];
    if (one !== other) return worstOf.get(other) - worstOf.get(one) || (one < other ? -1 : 1);
    return orders.path(a, b);
  }
  const order = orders[state.sort];
  return (a, b) => order(a, b) || a.index - b.index;
}

/** Checks the filters by product, search text and, unless switched off, outcome. */
function passesFilters(image, withOutcome = true) {
  return (!state.product || image.product === state.product)
    && (!withOutcome || !state.outcome || hasOutcome(image, state.outcome))
    && (!state.query || image.text.includes(state.query.toLocaleLowerCase()));
}

/** Checks for an outcome such as `uncertain`, or with the label of the image: `uncertain-normal`. */
function hasOutcome(image, wanted) {
  const [key, kind] = wanted.split("-");
  return image.outcome === key && (!kind || (kind === "anomalous") === image.anomalous);
}

function showGallery() {
  const before = gallery.list[gallery.active];
  const hadFocus = gallery.nodes.get(gallery.active)?.contains(document.activeElement);
  gallery.list = IMAGES.filter((image) => passesFilters(image)).sort(compare());
  gallery.active = Math.max(0, gallery.list.indexOf(before));
  byId("nothing").hidden = gallery.list.length > 0;
  byId("gallery").hidden = gallery.list.length === 0;
  byId("count").textContent = `${formatCount(gallery.list.length)} of ${plural(IMAGES.length, "image", "images")}. Each card shows the anomaly map over the image, a detail around its highest value${HAS_MASKS ? " (of a defect: inside its mask), the defect mask" : ""} and p, the share of normal images with a score this high or higher.`;
  showChips();
  clearGallery();
  layout();
  if (hadFocus) gallery.nodes.get(gallery.active)?.querySelector("button").focus({ preventScroll: true });
}

function clearGallery() {
  for (const node of gallery.nodes.values()) node.remove();
  gallery.nodes.clear();
}

/** Computes the number of columns from the available width, and the row height by measuring a card. */
function layout() {
  const container = byId("gallery"), width = container.clientWidth;
  if (!width || !gallery.list.length) return;
  gallery.columns = Math.max(1, Math.floor((width + GAP) / (MIN_CARD_WIDTH + GAP)));
  gallery.width = (width - GAP * (gallery.columns - 1)) / gallery.columns;
  const probe = make("li", { class: "probe" }, card(gallery.list[0], [], 0, { tabindex: -1 }));
  probe.style.width = `${gallery.width}px`;
  container.append(probe);
  gallery.height = Math.ceil(probe.offsetHeight) + GAP;
  probe.remove();
  container.style.height = `${Math.ceil(gallery.list.length / gallery.columns) * gallery.height - GAP}px`;
  clearGallery();
  showVisibleCards();
}

/** Creates the cards near the window and removes the others, except the card with the focus. */
function showVisibleCards() {
  const container = byId("gallery"), top = container.getBoundingClientRect().top;
  const { columns, height, nodes, list } = gallery;
  if (!height) return;
  const first = Math.max(0, Math.floor((-top - OVERSCAN) / height)) * columns;
  const last = Math.min(list.length, Math.ceil((innerHeight - top + OVERSCAN) / height) * columns);
  const wanted = (n) => n >= first && n < last;
  for (const [n, node] of nodes) {
    if (wanted(n) || node.contains(document.activeElement)) continue;
    node.remove();
    nodes.delete(n);
  }
  for (let n = first; n < last; n += 1) if (!nodes.has(n)) container.insertBefore(galleryItem(n), nextNode(n));
  if (!nodes.has(gallery.active) && last > first) setActive(first);
}

/** Returns the node to insert card `n` before, so that the DOM order equals the list order. */
function nextNode(n) {
  let next = null;
  for (const key of gallery.nodes.keys()) if (key > n && (next === null || key < next)) next = key;
  return next === null ? null : gallery.nodes.get(next);
}

function galleryItem(n) {
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

/** Scrolls to a card, creates it if necessary and moves the focus to it. */
function focusCard(n) {
  const container = byId("gallery"), row = Math.floor(n / gallery.columns) * gallery.height;
  const top = container.getBoundingClientRect().top + row, minimum = stickyHeight() + 8;
  if (top < minimum) scrollBy({ top: top - minimum, behavior: "instant" });
  else if (top + gallery.height > innerHeight) scrollBy({ top: top + gallery.height - innerHeight, behavior: "instant" });
  setActive(n);
  showVisibleCards();
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

function onScroll() {
  if (gallery.pending) return;
  gallery.pending = true;
  requestAnimationFrame(() => {
    gallery.pending = false;
    showVisibleCards();
  });
}

// the outcome filter: buttons above the gallery

function showChips() {
  const images = IMAGES.filter((image) => passesFilters(image, false));
  const chip = (key, word, kind) => {
    const count = key ? images.filter((image) => hasOutcome(image, key)).length : images.length;
    return make("button", { type: "button", class: `chip ${kind}`, "data-outcome": key, "aria-pressed": String(state.outcome === key),
      onclick: () => change({ outcome: state.outcome === key ? "" : key }) }, word, make("b", { text: formatCount(count) }));
  };
  const container = byId("chips"), focused = container.contains(document.activeElement) ? document.activeElement.dataset.outcome : null;
  const chips = [chip("", "All", "plain"), ...Object.entries(OUTCOMES)
    .filter(([key]) => key !== "unknown" || HAS_UNKNOWN).map(([key, { plural: word }]) => chip(key, word, toneOf(key)))];
  if (state.outcome.includes("-")) {
    const [key, kind] = state.outcome.split("-");
    chips.push(chip(state.outcome, `${OUTCOMES[key].plural}, ${KINDS[kind][1]} only`, toneOf(key)));
  }
  container.replaceChildren(...chips);
  if (focused !== null) (chips.find((node) => node.dataset.outcome === focused) ?? chips[0]).focus();
}

// the worst errors

const worst = {};

function drawWorst() {
  for (const [key, title, emptyText] of [
    ["miss", "Worst missed defects", "No defective image is called normal at these rates."],
    ["false_alarm", "Worst false alarms", "No normal image is called anomalous at this rate."]]) {
    const row = make("ul", { class: "strip", role: "list", "aria-label": title });
    const empty = make("p", { class: "empty", text: emptyText });
    const more = make("button", { type: "button", class: "quiet link", onclick: () => showOutcome(state.product, key) });
    const section = make("div", { class: "worst" }, make("div", { class: "worst-head" }, make("h3", { text: title }), more), row, empty);
    const entry = { row, empty, more, list: [], near: false, shown: "" };
    new IntersectionObserver(([observed]) => {
      entry.near = observed.isIntersecting;
      fillRow(entry);
    }, { rootMargin: "400px" }).observe(section);
    worst[key] = entry;
    byId("worst").append(section);
  }
}

function showWorst() {
  for (const [key, entry] of Object.entries(worst)) {
    const all = IMAGES.filter((image) => image.outcome === key && (!state.product || image.product === state.product));
    entry.list = all.sort((a, b) => severity(b) - severity(a) || a.index - b.index).slice(0, MAX_WORST);
    entry.more.textContent = all.length > 1 ? `show all ${all.length}` : "show it";
    entry.more.hidden = all.length === 0;
    entry.empty.hidden = all.length > 0;
    entry.row.hidden = all.length === 0;
    fillRow(entry);
  }
}

/** Fills a row of worst errors with cards while it is near the window. */
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

/** Adds thumbnails to cards that were created before their script block was loaded. */
function fillMissingPictures() {
  for (const button of document.querySelectorAll("button.card")) addPictures(button, IMAGES[Number(button.dataset.index)]);
}
