// Tooltips: shown when the pointer or the keyboard focus reaches an element with data-tip

function showTip(text, x, y) {
  const tip = byId("tip");
  tip.textContent = text;
  if (!tip.matches(":popover-open")) tip.showPopover();
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(6, y - height - 12) : y + 18}px`;
}

function hideTip() {
  if (byId("tip").matches(":popover-open")) byId("tip").hidePopover();
}

function drawTips() {
  const tipTarget = (event) => event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  document.addEventListener("pointerover", (event) => {
    const node = tipTarget(event);
    if (node) showTip(node.dataset.tip, event.clientX, event.clientY); else hideTip();
  });
  document.addEventListener("focusin", (event) => {
    const node = tipTarget(event);
    if (!node?.matches(":focus-visible")) return hideTip();
    const box = node.getBoundingClientRect();
    return showTip(node.dataset.tip, box.left, box.bottom - 12);
  });
  for (const kind of ["focusout", "scroll", "pointerdown"]) document.addEventListener(kind, hideTip, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
}
