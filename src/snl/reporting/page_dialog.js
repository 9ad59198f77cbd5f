// The dialog of one image: image, anomaly map, defect mask, all values and an explanation of the decision.

const view = { list: [], position: 0, opener: null };

function openView(list, position, opener) {
  Object.assign(view, { list, position, opener });
  byId("view").showModal();
  showView();
  byId("view").focus();
}

function stepView(step) {
  const next = view.position + step;
  if (next < 0 || next >= view.list.length) return;
  view.position = next;
  showView();
}

function showView() {
  const image = view.list[view.position], urls = pictureUrls(image) ?? {};
  byId("view-title").replaceChildren(bdi(image.path));
  byId("view-position").textContent = `${formatCount(view.position + 1)} of ${formatCount(view.list.length)}`;
  byId("view-previous").disabled = view.position === 0;
  byId("view-next").disabled = view.position === view.list.length - 1;
  if (byId("view").open && !byId("view").contains(document.querySelector(":focus:enabled"))) byId("view").focus();
  const panels = [["Image", picture(urls.image, image, "Image")], ["Anomaly map", mapPanel(urls, image, true)]];
  if (urls.detail) panels.push(["Detail", picture(urls.detail, image, "Detail", "detail")]);
  if (HAS_MASKS) panels.push(["Defect mask", maskPanel(urls, image, true)]);
  byId("view-panels").replaceChildren(...panels.map(([title, panel]) =>
    make("figure", {}, panel ?? make("span", { class: "blank", text: "not available" }), make("figcaption", { text: title }))));
  byId("view-explanation").replaceChildren(decisionPill(image), outcomeTag(image), make("span", { text: explanation(image) }));
  byId("view-figures").replaceChildren(...viewFigures(image).map(([title, value]) =>
    make("div", {}, make("dt", { text: title }), make("dd", {}, bdi(value)))));
  showScorePosition(image);
  showReviews();
}

/** Shows the position of the image's score in the histogram of its product. */
function showScorePosition(image) {
  const chart = make("div", { class: "chart" }), note = make("p", { class: "note" });
  const item = { product: image.product, chart, note, scale: null };
  moveThresholds(item);
  if (image.score !== null) {
    const x = item.scale.x(image.score), y = HEIGHT - 26;
    chart.firstChild.append(draw("g", { class: "here" },
      draw("line", { x1: x, x2: x, y1: AXIS_Y - 30, y2: y - 8 }), draw("path", { d: `M${x} ${y - 12}l5 9h-10z` })));
  }
  byId("view-histogram").replaceChildren(make("figcaption", {}, "Scores of ", bdi(image.product), make("small", { text: "The arrow marks this image." })), chart, note);
}

function viewFigures(image) {
  const rows = [
    ["Ground truth", image.anomalous ? "defective" : "normal"],
    ["Defect", image.defect || "–"],
    ["Product", image.product],
    ...(image.part ? [["Part", image.part]] : []),
    ["Recognised as", image.recognised ?? "–"],
    ["Raw score", formatNumber(image.score)],
    ["Calibrated score", formatNumber(image.calibrated)],
    ["p-value", percent(image.p)],
  ];
  if (image.unknownP !== null) rows.push(["p-value: known product", percent(image.unknownP)]);
  const limit = threshold(image.product, state.rate, "anomalous");
  rows.push([`Threshold at ${percent(state.rate)}`, limit === null ? "pooled over all products" : formatNumber(limit)]);
  return rows;
}

/** Explains the decision in one sentence. */
function explanation(image) {
  if (image.decision === "unknown") {
    return `The image does not match any known product: only ${percent(image.unknownP)} of the images of known products are as different from their product; at ${percent(unknownRate())} or less the product is called unknown.`;
  }
  if (image.decision === "uncertain" && image.p !== null && state.rate < decidingRate(image) - 1e-12) {
    return `At a false-alarm rate of ${percent(state.rate)} no image can be called normal or anomalous: the calibration images allow ${percent(decidingRate(image))} or more.`;
  }
  if (image.p === null) return "There are too few held-out calibration images for a decision, so a person must check the image.";
  const share = `${percent(image.p)} of normal images have a score this high or higher`;
  if (image.decision === "anomalous") return `Only ${share}; at ${percent(state.rate)} or less an image is called anomalous.`;
  if (image.decision === "uncertain") return `${share}; between ${percent(state.rate)} and ${percent(state.uncertain)} an image is uncertain, and a person must check it.`;
  return `${share}; this is more than ${percent(Math.max(state.rate, state.uncertain))}, so the image is called normal.`;
}

function drawView() {
  const dialog = byId("view");
  byId("view-previous").addEventListener("click", () => stepView(-1));
  byId("view-next").addEventListener("click", () => stepView(1));
  byId("view-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (reviewKey(event, view.list[view.position])) return;
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    stepView(step);
  });
  dialog.addEventListener("close", () => {
    byId("view-panels").replaceChildren();
    if (view.list === gallery.list) focusCard(view.position);
    else (document.querySelectorAll(`.strip [data-index="${view.list[view.position].index}"]`)[0] ?? view.opener)?.focus();
  });
}
