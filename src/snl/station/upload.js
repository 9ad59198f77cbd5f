// Files that a person chooses or drops, and pictures of a camera of this device.

/** Returns a button that opens the file dialog for images. */
function imageInput(take, label = t("upload.choose")) {
  const input = make("input", { type: "file", accept: "image/*,.tif,.tiff,.bmp", multiple: true, class: "hidden", tabindex: "-1", "aria-hidden": "true" });
  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  const button = make("button", { type: "button", text: label, onclick: () => input.click() });
  return { button: make("span", { class: "file-button" }, button, input), input };
}

/** Lets files be dropped on an element. */
function dropTarget(node, take) {
  node.addEventListener("dragover", (event) => { event.preventDefault(); node.classList.add("dropping"); });
  node.addEventListener("dragleave", () => node.classList.remove("dropping"));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    node.classList.remove("dropping");
    const files = [...event.dataTransfer.files].filter((file) => file.type.startsWith("image/") || /\.(tiff?|bmp|png|jpe?g|webp)$/i.test(file.name));
    if (files.length) take(files);
    else toast(t("upload.noimages"), { wrong: true });
  });
}

/** Sends files one after another with progress; those that are refused are named at the end. */
async function uploadAll(files, send, label) {
  const bar = make("progress", { max: files.length, value: 0, "aria-label": label }), text = make("span");
  const node = make("div", { class: "toast" }, text, bar), refused = [];
  add(byId("toasts"), node);
  for (const [n, file] of files.entries()) {
    text.textContent = `${label} ${number(n + 1)} / ${number(files.length)}`;
    try {
      await send(file);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 429) { // the server is busy: wait, and try this one again
        await new Promise((done) => { setTimeout(done, 1000); });
        await send(file).catch((again) => refused.push([file.name, again.message]));
      } else refused.push([file.name, error.message]);
      if (error.status === 0 || error.status === 401) break;
    }
    bar.value = n + 1;
  }
  node.remove();
  if (refused.length) toast(`${t("upload.refused", { n: refused.length })} ${refused.slice(0, 3).map(([name, why]) => `${name}: ${why}`).join("; ")}`, { wrong: true });
  return files.length - refused.length;
}

/** Returns a panel that takes pictures with a camera of this device; null: the browser has none to offer. */
function cameraPanel(take) {
  if (!navigator.mediaDevices?.getUserMedia) return null;
  const video = make("video", { playsinline: true, muted: true, "aria-label": t("camera.title") }), shots = make("span", { class: "hint" });
  const capture = make("button", { type: "button", class: "primary", text: t("camera.take"), disabled: true }), start = make("button", { type: "button", text: t("camera.start") });
  let stream = null, count = 0;
  const stop = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    capture.disabled = true;
    video.hidden = true;
    start.textContent = t("camera.start");
  };
  video.hidden = true;
  start.addEventListener("click", async () => {
    if (stream) return stop();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
    } catch (error) {
      return toast(t("camera.failed", { why: error.message }), { wrong: true });
    }
    video.srcObject = stream;
    video.hidden = false;
    await video.play();
    capture.disabled = false;
    start.textContent = t("camera.stop");
    return undefined;
  });
  capture.addEventListener("click", () => {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      count += 1;
      shots.textContent = t("camera.count", { n: count });
      take([new File([blob], `camera-${new Date().toISOString().replace(/[:.]/g, "-")}.png`, { type: "image/png" })]);
    }, "image/png");
  });
  return { node: make("div", { class: "camera" }, video, make("div", { class: "actions" }, start, capture, shots)), stop };
}
