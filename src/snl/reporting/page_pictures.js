// The pictures of an image: thumbnail, map over it, detail and mask.

/** Returns the thumbnails of an image as data URLs, and the frame of its detail, from its script block; null if not
 * loaded yet. */
function pictureUrls(image) {
  const block = byId(`p${image.index}`);
  if (!block || (document.readyState === "loading" && !byId(`p${image.index + 1}`))) return null;
  const kinds = { "/": "jpeg", i: "png", U: "webp" };
  const [whole, map, mask, detail, frame] = JSON.parse(block.textContent);
  const source = (text) => text && `data:image/${kinds[text[0]]};base64,${text}`;
  return { image: source(whole), map: source(map), mask: source(mask), detail: source(detail), frame };
}

/** Returns a picture, with an alternative text only where it has a title; null without one. */
function picture(url, image, title, kind = "") {
  if (!url) return null;
  return make("img", { src: url, alt: title ? `${title} of ${image.path}` : "", class: kind, decoding: "async", draggable: "false" });
}

/** Returns the image with its map over it, and a frame around its detail. */
function mapPanel(urls, image, titled) {
  if (!urls.image) return null;
  const panel = make("span", { class: "stack" }, picture(urls.image, image, ""), picture(urls.map, image, titled ? "Anomaly map" : "", "map"));
  const base = panel.firstChild;
  base.addEventListener("load", () => { // the map and the frame lie where `object-fit: contain` puts the image
    const ratio = base.naturalWidth / base.naturalHeight, wide = Math.min(1, ratio), high = Math.min(1, 1 / ratio);
    const [left, top, width, height] = urls.frame ?? [0, 0, 0, 0];
    const place = (node, x, y, w, h) => Object.assign(node.style, { left: `${100 * ((1 - wide) / 2 + x * wide)}%`,
      top: `${100 * ((1 - high) / 2 + y * high)}%`, width: `${100 * w * wide}%`, height: `${100 * h * high}%` });
    if (panel.querySelector(".map")) place(panel.querySelector(".map"), 0, 0, 1, 1);
    if (urls.frame) place(panel.appendChild(make("i", { class: "frame" })), left, top, width, height);
  });
  return panel;
}

function maskPanel(urls, image, titled) {
  return picture(urls.mask, image, titled ? "Defect mask" : "", "mask") ?? make("span", { class: "blank", text: maskPlaceholder(image) });
}

/** Returns the text shown instead of a mask. */
function maskPlaceholder(image) { return image.anomalous ? "no mask" : "no defect"; }

function addPictures(button, image) {
  const container = button.querySelector(".thumbs");
  if (container.dataset.filled) return;
  const urls = pictureUrls(image);
  if (urls) container.dataset.filled = "yes";
  const panels = [null, null];
  if (urls?.detail) panels.splice(0, 2, mapPanel(urls, image, false), picture(urls.detail, image, "", "detail"));
  else if (urls) panels.splice(0, 2, picture(urls.image, image, ""), mapPanel(urls, image, false));
  if (HAS_MASKS) panels.push(maskPanel(urls ?? {}, image, false));
  container.replaceChildren(...panels.map((panel) => panel ?? make("span", { class: "blank" })));
}
