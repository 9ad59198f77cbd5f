// Reviews: a person's verdict on the decision of an image, kept by the browser and saved as a file
// that `snl calibrate --reviews` reads.

const VERDICTS = {
  "correct": { key: "c", word: "correct", tone: "right", label: "Correct" },
  "false alarm": { key: "n", word: "false alarm", tone: "uncertain", label: "Really normal" },
  "miss": { key: "a", word: "miss", tone: "wrong", label: "Really anomalous" },
};
const STORE = `snl reviews ${DATA.reviews.report}`;
const reviews = new Map(); // by the index of the image

/** Returns whether a verdict fits the decision: only a flagged image is a false alarm. */
function fits(verdict, image) {
  if (reviews.get(image.index) === verdict) return true;
  if (verdict === "false alarm") return image.decision !== "normal";
  return verdict !== "miss" || image.decision !== "anomalous";
}

/** Sets a verdict, or removes it if it is the present one or null. */
function setReview(image, verdict) {
  if (verdict !== null && !fits(verdict, image)) {
    byId("review-status").textContent = `Not possible: the image was called ${DECISIONS[image.decision]}.`;
    return;
  }
  if (verdict === null || reviews.get(image.index) === verdict) reviews.delete(image.index);
  else reviews.set(image.index, verdict);
  byId("review-status").textContent = `${image.path}: ${reviews.get(image.index) ?? "no verdict"}`;
  storeReviews();
  showReviews();
  for (const button of document.querySelectorAll(`.card[data-index="${image.index}"]`)) showVerdict(button, image);
}

/** Handles a key for an image; returns whether it was one of a verdict. */
function reviewKey(event, image) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return false;
  const [verdict] = Object.entries(VERDICTS).find(([, { key }]) => key === event.key.toLowerCase()) ?? [];
  if (!verdict && event.key !== "Delete") return false;
  event.preventDefault();
  setReview(image, verdict ?? null);
  return true;
}

/** Shows the verdict on a card, at the end of its last line. */
function showVerdict(button, image) {
  const verdict = reviews.get(image.index), label = button.querySelector(".verdict");
  label.replaceChildren(verdict ? `reviewed: ${verdict}` : "");
  label.className = `verdict ${verdict ? VERDICTS[verdict].tone : ""}`;
  button.setAttribute("aria-label", cardLabel(image));
}

/** Shows the numbers of verdicts, and the buttons of the open image. */
function showReviews() {
  const counts = Object.keys(VERDICTS).map((verdict) => [...reviews.values()].filter((other) => other === verdict).length);
  byId("review-count").textContent = reviews.size
    ? `${plural(reviews.size, "image", "images")} reviewed: ${counts[0]} correct, ${plural(counts[1], "false alarm", "false alarms")}, ${plural(counts[2], "miss", "misses")}.`
    : "No image is reviewed yet.";
  byId("review-save").disabled = byId("review-clear").disabled = reviews.size === 0;
  if (!byId("view").open) return;
  const image = view.list[view.position];
  for (const button of byId("view-verdicts").querySelectorAll("button")) {
    const { verdict } = button.dataset;
    button.setAttribute("aria-pressed", String(reviews.get(image.index) === verdict));
    button.setAttribute("aria-disabled", String(!fits(verdict, image)));
  }
}

function drawReviews() {
  byId("view-verdicts").append(...Object.entries(VERDICTS).map(([verdict, { key, label, tone }]) => make("button", {
    type: "button", class: `chip ${tone}`, "data-verdict": verdict, "aria-keyshortcuts": key,
    onclick: () => setReview(view.list[view.position], verdict),
  }, label, make("kbd", { "aria-hidden": "true", text: key.toUpperCase() }))));
  byId("review-save").addEventListener("click", saveReviews);
  byId("review-clear").addEventListener("click", () => {
    if (!confirm(`Remove ${plural(reviews.size, "verdict", "verdicts")}?`)) return;
    reviews.clear();
    storeReviews();
    showReviews();
    for (const button of document.querySelectorAll(".card")) showVerdict(button, IMAGES[Number(button.dataset.index)]);
  });
  addEventListener("storage", (event) => { // another tab with the same report
    if (event.key !== STORE) return;
    loadReviews();
    showReviews();
    for (const button of document.querySelectorAll(".card")) showVerdict(button, IMAGES[Number(button.dataset.index)]);
  });
  loadReviews();
}

/** Reads what the browser kept; entries that do not fit the report are ignored. */
function loadReviews() {
  reviews.clear();
  try {
    for (const [index, verdict] of Object.entries(JSON.parse(localStorage.getItem(STORE) ?? "{}"))) {
      if (Object.hasOwn(VERDICTS, verdict) && IMAGES[index]) reviews.set(Number(index), verdict);
    }
  } catch {
    // the browser keeps nothing for this page; verdicts last until it is closed
  }
}

function storeReviews() {
  try {
    if (reviews.size) localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(reviews)));
    else localStorage.removeItem(STORE);
  } catch {
    byId("review-status").textContent = "This browser does not keep verdicts: save them before the page is closed.";
  }
}

/** Returns the content of the file of reviews. */
function reviewsDocument() {
  const list = [...reviews].sort((a, b) => a[0] - b[0]).map(([index, verdict]) => {
    const { path, product, decision, sha256 } = IMAGES[index];
    return { path, product, verdict, decision: DECISIONS[decision], sha256 };
  });
  return { ...DATA.reviews, saved: new Date().toISOString(), reviews: list };
}

function saveReviews() {
  const content = new Blob([`${JSON.stringify(reviewsDocument(), null, 1)}\n`], { type: "application/json" });
  const name = DATA.reviews.title.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+/, "").slice(0, 60);
  const link = make("a", { href: URL.createObjectURL(content), download: `reviews-${name || "report"}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
