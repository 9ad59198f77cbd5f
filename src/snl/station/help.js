// Help in place: the keys, and what the words mean.

const KEYS = [["1 – 5", "keys.views"], ["J K / ← →", "keys.move"], ["G", "keys.good"], ["D", "keys.defect"], ["U", "keys.undo"], ["N", "keys.note"], ["B", "keys.box"], ["O", "keys.overlay"], ["+ − 0", "keys.zoom"], ["S", "keys.seen"], ["F", "keys.follow"], ["?", "keys.help"]];

function showHelp() {
  const dialog = byId("dialog");
  const terms = Object.keys(WORDS).filter((key) => key.startsWith("term.") && !key.startsWith("term.setting.") && `name.${key.slice(5)}` in WORDS);
  dialog.className = "ask wide-ask";
  put(dialog, make("div", { class: "view-head" }, make("h2", { id: "dialog-title", text: t("help.title") }), make("button", { type: "button", "aria-label": t("close"), text: "×", onclick: () => dialog.close() })),
    make("h3", { text: t("help.keys") }), make("dl", { class: "keys-list" }, ...KEYS.flatMap(([key, text]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text: t(text) })])),
    make("h3", { text: t("help.terms") }), make("dl", { class: "terms" }, ...terms.flatMap((key) => [make("dt", { text: t(`name.${key.slice(5)}`) }), make("dd", { text: WORDS[key] })])));
  dialog.showModal();
}

function showSignIn() {
  const dialog = byId("dialog");
  if (dialog.open && dialog.classList.contains("sign-in")) return;
  const token = make("input", { type: "password", autocomplete: "current-password", required: true, maxlength: 200 }), problem = make("p", { class: "problem", role: "alert" });
  const send = async (event) => {
    event.preventDefault();
    try {
      await call("POST", "/v1/session", { token: token.value });
      dialog.close();
      start();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      problem.textContent = error.message;
    }
  };
  dialog.className = "ask sign-in";
  put(dialog, make("form", { onsubmit: send }, make("h2", { id: "dialog-title", text: t("signin.title") }), make("p", { class: "lead", text: t("signin.text") }), make("label", { class: "field" }, make("span", { text: t("access.token") }), token), problem, make("div", { class: "actions" }, make("button", { type: "submit", class: "primary", text: t("signin.do") }))));
  if (!dialog.open) dialog.showModal();
}
