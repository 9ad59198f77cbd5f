// Boxes that a person draws on an image: defects of a review, or a region of interest.

/** Returns an SVG layer on which boxes can be drawn, moved, resized and removed, also by keyboard.
 * Boxes are [x, y, width, height] in pixels of the image. */
function boxLayer(width, height, { boxes = [], most = 100, onchange = () => {} } = {}) {
  const svg = draw("svg", { class: "boxes", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
  const layer = { node: svg, boxes: boxes.map((box) => [...box]), drawing: false };
  let start = null;

  const point = (event) => {
    const area = svg.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width * width, 0, width), clamp((event.clientY - area.top) / area.height * height, 0, height)];
  };
  const changed = () => { show(); onchange(layer.boxes); };

  function show(focus = -1) {
    svg.classList.toggle("drawing", layer.drawing);
    put(svg, ...layer.boxes.map(([x, y, w, h], n) => draw("rect", {
      class: "mark-box", x, y, width: w, height: h, tabindex: "0", role: "button",
      "aria-label": t("box.label", { n: n + 1, x: Math.round(x), y: Math.round(y), w: Math.round(w), h: Math.round(h) }),
      onkeydown: (event) => key(event, n),
    })));
    if (focus >= 0) svg.children[Math.min(focus, svg.children.length - 1)]?.focus();
  }

  function key(event, n) {
    const step = Math.max(1, Math.round(Math.max(width, height) / 100)), box = layer.boxes[n];
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "Delete" || event.key === "Backspace") layer.boxes.splice(n, 1);
    else if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      if (event.shiftKey) {
        box[2] = clamp(box[2] + dx, step, width - box[0]);
        box[3] = clamp(box[3] + dy, step, height - box[1]);
      } else {
        box[0] = clamp(box[0] + dx, 0, width - box[2]);
        box[1] = clamp(box[1] + dy, 0, height - box[3]);
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
    show(n);
    onchange(layer.boxes);
  }

  svg.addEventListener("pointerdown", (event) => {
    if (!layer.drawing) return;
    event.preventDefault();
    event.stopPropagation();
    svg.setPointerCapture(event.pointerId);
    start = point(event);
    if (layer.boxes.length >= most) layer.boxes.pop();
    layer.boxes.push([...start, 0, 0]);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = point(event);
    layer.boxes[layer.boxes.length - 1] = [Math.min(x, start[0]), Math.min(y, start[1]), Math.abs(x - start[0]), Math.abs(y - start[1])];
    show();
  });
  svg.addEventListener("pointerup", () => {
    if (!start) return;
    start = null;
    const last = layer.boxes.at(-1);
    if (last[2] < 2 || last[3] < 2) layer.boxes.pop();
    changed();
  });

  /** Adds a box in the middle, for those who draw by keyboard. */
  layer.add = () => {
    if (layer.boxes.length >= most) layer.boxes.pop();
    layer.boxes.push([width * 0.4, height * 0.4, width * 0.2, height * 0.2]);
    changed();
    show(layer.boxes.length - 1);
  };
  layer.draw = (on) => { layer.drawing = on; show(); };
  layer.whole = () => layer.boxes.map(([x, y, w, h]) => {
    const left = Math.floor(x), top = Math.floor(y);
    return [left, top, Math.max(1, Math.min(width - left, Math.round(w))), Math.max(1, Math.min(height - top, Math.round(h)))];
  });
  show();
  return layer;
}

function clamp(value, low, high) { return Math.min(Math.max(value, low), Math.max(low, high)); }
