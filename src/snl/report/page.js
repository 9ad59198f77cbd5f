// Puts the page together; from here on everything follows `change`.

function refresh() {
  const counts = judge();
  showControls();
  showSummary(counts);
  showTradeoff();
  showPromise();
  showConfusion(counts);
  showHistograms();
  showDots(counts);
  showWorst();
  showGallery();
}

/** On paper the gallery cannot scroll: its first cards stand in rows. */
function printing(on) {
  const place = byId("gallery");
  place.classList.toggle("printed", on);
  if (!on) return layout();
  clearGallery();
  const count = Math.min(48, gallery.list.length);
  for (let n = 0; n < count; n += 1) place.append(cell(n));
  byId("count").textContent = `The first ${count} of ${gallery.list.length} images.`;
  for (const product of PRODUCTS) {
    const item = histograms.get(product);
    if (!item.card.hidden) moveLines(item);
  }
  return undefined;
}

drawTips();
drawControls();
drawScale();
drawConfusion();
drawHistograms();
drawMetrics();
drawCurves();
drawProvenance();
drawWorst();
drawView();
Object.assign(state, recall());
refresh();
showCurves();
stick();

for (const link of document.querySelectorAll("nav a, a.skip")) {
  link.addEventListener("click", (event) => {
    event.preventDefault(); // the address after # belongs to the state
    const target = byId(link.getAttribute("href").slice(1));
    goTo(target);
    target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
  });
}
byId("gallery").addEventListener("keydown", galleryKey);
byId("gallery").addEventListener("focusin", (event) => {
  const node = event.target.closest("li");
  for (const [n, other] of gallery.nodes) if (other === node && n !== gallery.active) setActive(n);
});
addEventListener("scroll", scrolled, { passive: true });
addEventListener("hashchange", () => {
  Object.assign(state, recall());
  refresh();
});
addEventListener("beforeprint", () => printing(true));
addEventListener("afterprint", () => printing(false));
let width = innerWidth;
new ResizeObserver(() => {
  stick();
  showTradeoff();
  if (width !== document.body.clientWidth) {
    width = document.body.clientWidth;
    layout();
  } else showWindow();
}).observe(document.body);
if (document.readyState === "loading") addEventListener("DOMContentLoaded", fillLate);
document.documentElement.dataset.ready = "yes";
