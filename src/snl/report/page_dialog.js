// The large view: image, map and true defect side by side, all figures, and the reason in words.

const view = { list: [], position: 0, opener: null };

function openView(list, position, opener) {
  Object.assign(view, { list, position, opener });
  showView();
  byId("view").showModal();
  byId("view").focus();
}

function stepView(step) {
  const next = view.position + step;
  if (next < 0 || next >= view.list.length) return;
  view.position = next;
  showView();
}

function showView() {
  const image = view.list[view.position], urls = pictures(image) ?? [null, null, null];
  byId("view-title").replaceChildren(name(image.path));
  byId("view-place").textContent = `${tally(view.position + 1)} of ${tally(view.list.length)}`;
  byId("view-previous").disabled = view.position === 0;
  byId("view-next").disabled = view.position === view.list.length - 1;
  if (byId("view").open && !byId("view").contains(document.querySelector(":focus:enabled"))) byId("view").focus();
  const words = ["Image", "Anomaly map", "True defect"];
  byId("view-panels").replaceChildren(...words.slice(0, PANELS).map((word, n) => make("figure", {},
    urls[n] ? make("img", { src: urls[n], alt: `${word} of ${image.path}`, class: n === 2 ? "mask" : "" })
      : make("span", { class: "blank", text: n === 2 ? noMask(image) : "not there" }),
    make("figcaption", { text: word }))));
  byId("view-why").replaceChildren(decisionPill(image), outcomeTag(image), make("span", { text: reason(image) }));
  byId("view-figures").replaceChildren(...viewFigures(image).map(([title, value]) =>
    make("div", {}, make("dt", { text: title }), make("dd", {}, name(value)))));
  showAmong(image);
}

/** Where this image's score lies among those of its product. */
function showAmong(image) {
  const chart = make("div", { class: "chart" }), note = make("p", { class: "note" });
  const item = { product: image.product, chart, note, scale: null };
  moveLines(item);
  if (image.score !== null) {
    const x = item.scale.x(image.score), y = HIGH - 26;
    chart.firstChild.append(draw("g", { class: "here" },
      draw("line", { x1: x, x2: x, y1: MIDDLE - 30, y2: y - 8 }), draw("path", { d: `M${x} ${y - 12}l5 9h-10z` })));
  }
  byId("view-histogram").replaceChildren(make("figcaption", {}, "Among the scores of ", name(image.product), make("small", { text: "The arrow marks this image." })), chart, note);
}

function viewFigures(image) {
  const rows = [
    ["Truth", image.anomalous ? "defective" : "normal"],
    ["Defect", image.defect || "–"],
    ["Product", image.product],
    ["Recognised as", image.recognised ?? "–"],
    ["Raw score", figure(image.score)],
    ["Calibrated score", figure(image.calibrated)],
    ["p-value", percent(image.p)],
  ];
  if (image.unknownP !== null) rows.push(["p-value of a known product", percent(image.unknownP)]);
  const limit = threshold(image.product, state.rate, "anomalous");
  rows.push([`Threshold at ${percent(state.rate)}`, limit === null ? "by all products together" : figure(limit)]);
  return rows;
}

/** The decision in a sentence. */
function reason(image) {
  if (image.decision === "unknown") {
    return `It looks like none of the taught products: only ${percent(image.unknownP)} of known parts look as strange, ${percent(RATES.unknown)} or less is called unknown.`;
  }
  if (image.p === null) return "There were too few held-back normal images to judge it, so it is left to a person.";
  const seen = `${percent(image.p)} of normal parts score as high`;
  if (image.decision === "anomalous") return `Only ${seen}; ${percent(state.rate)} or less is called anomalous.`;
  if (image.decision === "uncertain") return `${seen}; between ${percent(state.rate)} and ${percent(state.uncertain)} a person should look.`;
  return `${seen}, more than ${percent(Math.max(state.rate, state.uncertain))}: nothing unusual.`;
}

function drawView() {
  const dialog = byId("view");
  byId("view-previous").addEventListener("click", () => stepView(-1));
  byId("view-next").addEventListener("click", () => stepView(1));
  byId("view-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
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
