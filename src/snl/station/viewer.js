// An image with its overlay: opacity, zoom and pan by mouse, touch and keyboard.

/** Returns a viewer. `width` and `height` are those of the image in pixels. */
function viewer({ image, overlay = null, width, height, label, layer = null, small = false }) {
  const state = { zoom: 1, x: 0, y: 0 };
  const base = make("img", { src: image, alt: label, draggable: "false" });
  const top = overlay ? make("img", { src: overlay, alt: "", class: "overlay", draggable: "false" }) : null;
  const stage = make("div", { class: "stage" }, base, top, layer?.node);
  const frame = make("div", { class: "frame", tabindex: "0", role: "group", "aria-label": t("viewer.help", { label }) }, stage);
  stage.style.setProperty("--ratio", `${width} / ${height}`);
  stage.style.setProperty("--aspect", width / height);
  for (const one of [base, top]) one?.addEventListener("error", () => { one.hidden = true; frame.classList.add("gone"); });

  function show() {
    const limit = (state.zoom - 1) / 2;
    state.x = clamp(state.x, -limit, limit);
    state.y = clamp(state.y, -limit, limit);
    stage.style.setProperty("--zoom", state.zoom);
    stage.style.setProperty("--x", `${100 * state.x}%`);
    stage.style.setProperty("--y", `${100 * state.y}%`);
  }
  /** Zooms about a point, given in parts of the stage from its centre. */
  function zoom(factor, px = 0, py = 0) {
    const before = state.zoom;
    state.zoom = clamp(before * factor, 1, 16);
    const change = state.zoom / before;
    state.x = px + (state.x - px) * change;
    state.y = py + (state.y - py) * change;
    show();
  }
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && state.zoom === 1 && event.deltaY > 0) return;
    event.preventDefault();
    const area = frame.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), (event.clientX - area.left) / area.width - 0.5, (event.clientY - area.top) / area.height - 0.5);
  }, { passive: false });
  const pointers = new Map();
  let spread = 0;
  frame.addEventListener("pointerdown", (event) => {
    if (layer?.drawing) return;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    spread = 0;
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const area = frame.getBoundingClientRect();
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 1) {
      state.x += (event.clientX - last[0]) / area.width;
      state.y += (event.clientY - last[1]) / area.height;
      show();
    } else {
      const [a, b] = [...pointers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (spread) zoom(now / spread);
      spread = now;
    }
  });
  for (const kind of ["pointerup", "pointercancel"]) frame.addEventListener(kind, (event) => { pointers.delete(event.pointerId); spread = 0; });
  frame.addEventListener("dblclick", () => { if (!layer?.drawing) reset(); });
  frame.addEventListener("keydown", (event) => {
    if (event.target !== frame) return;
    const steps = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") reset();
    else if (event.key in steps && state.zoom > 1) {
      state.x += steps[event.key][0];
      state.y += steps[event.key][1];
      show();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  function reset() {
    Object.assign(state, { zoom: 1, x: 0, y: 0 });
    show();
  }
  const tools = make("div", { class: "viewer-tools" },
    make("button", { type: "button", class: "tool", "aria-label": t("viewer.in"), "data-tip": t("viewer.in"), text: "+", onclick: () => zoom(1.4) }),
    make("button", { type: "button", class: "tool", "aria-label": t("viewer.out"), "data-tip": t("viewer.out"), text: "−", onclick: () => zoom(1 / 1.4) }),
    make("button", { type: "button", class: "tool", "aria-label": t("viewer.whole"), "data-tip": t("viewer.whole"), text: "⤢", onclick: reset }));
  const node = make("div", { class: small ? "viewer small" : "viewer" }, frame, tools);
  const result = { node, zoom, reset, toggle: () => {} };
  if (top) {
    const slider = make("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": t("viewer.overlay") });
    const set = (value) => {
      slider.value = value;
      slider.style.setProperty("--position", value);
      top.style.setProperty("--opacity", value);
    };
    slider.addEventListener("input", () => { set(slider.value); keep("overlay", Number(slider.value)); });
    set(setting("overlay", 1));
    tools.prepend(make("label", { class: "opacity" }, term("overlay", t("viewer.overlay")), slider));
    result.toggle = () => set(Number(slider.value) > 0 ? 0 : setting("overlay", 1) || 1);
  }
  show();
  return result;
}
