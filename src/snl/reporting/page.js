// Draws the page once and registers the event handlers; later updates go through `change`.

function refresh() {
  const counts = decideAll();
  showControls();
  showSummary(counts);
  showTradeoff();
  showGuarantee();
  showCosts();
  showConfusion(counts);
  showDetection(counts);
  showHistograms();
  showOperatingPoints(counts);
  showWorst();
  showGallery();
  showReviews();
}

/** Switches the print layout of the gallery on or off: the first cards in rows, without scrolling. */
function setPrintLayout(on) {
  const container = byId("gallery");
  container.classList.toggle("printed", on);
  if (!on) return layout();
  clearGallery();
  const count = Math.min(48, gallery.list.length);
  for (let n = 0; n < count; n += 1) container.append(galleryItem(n));
  byId("count").textContent = `The first ${count} of ${gallery.list.length} images.`;
  for (const product of PRODUCTS) {
    const item = histograms.get(product);
    if (!item.card.hidden) moveThresholds(item);
  }
  return undefined;
}

drawTips();
drawControls();
drawCosts();
drawScale();
drawConfusion();
drawDetection();
drawHistograms();
drawMetrics();
drawCurves();
drawProvenance();
drawWorst();
drawView();
drawReviews();
Object.assign(state, readAddress());
refresh();
showCurves();

for (const link of document.querySelectorAll("nav a, a.skip")) {
  link.addEventListener("click", (event) => {
    event.preventDefault(); // the part of the address after # holds the state of the page
    const target = byId(link.getAttribute("href").slice(1));
    scrollToNode(target);
    target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
  });
}
byId("gallery").addEventListener("keydown", galleryKey);
byId("gallery").addEventListener("focusin", (event) => {
  const node = event.target.closest("li");
  for (const [n, other] of gallery.nodes) if (other === node && n !== gallery.active) setActive(n);
});
addEventListener("scroll", onScroll, { passive: true });
addEventListener("hashchange", () => {
  Object.assign(state, readAddress());
  refresh();
});
addEventListener("beforeprint", () => setPrintLayout(true));
addEventListener("afterprint", () => setPrintLayout(false));
let width = innerWidth;
new ResizeObserver(() => {
  showTradeoff();
  if (width !== document.body.clientWidth) {
    width = document.body.clientWidth;
    layout();
  } else showVisibleCards();
}).observe(document.body);
if (document.readyState === "loading") addEventListener("DOMContentLoaded", fillMissingPictures);
document.documentElement.dataset.ready = "yes";
