// The texts of the page: a message file of each language, `words/LANGUAGE.json`.

let WORDS = {}, PLURALS = new Intl.PluralRules("en"), LANGUAGES = {}, language = "en";

/** Returns the text of a key with its values; a text with several forms is chosen by `values.n`. */
function t(key, values = {}) {
  let text = WORDS[key];
  if (text === undefined) return key;
  if (typeof text === "object") text = text[PLURALS.select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? number(value) : String(value);
  });
}

/** Returns what a term means, for a tooltip; null: it is not explained. */
function meaning(term) { return WORDS[`term.${term}`] ?? null; }

/** Returns a text with its meaning as a tooltip that the keyboard reaches too. */
function term(name, text) {
  const tip = meaning(name);
  return tip ? make("span", { class: "term", "data-tip": tip, tabindex: "0", text }) : make("span", { text });
}

async function loadWords() {
  LANGUAGES = await (await fetch("/station/languages.json")).json();
  const wanted = [setting("language"), ...navigator.languages, "en"].filter(Boolean);
  language = wanted.flatMap((one) => [one, one.split("-")[0]]).find((one) => one in LANGUAGES) ?? "en";
  WORDS = await (await fetch(`/station/words-${language}.json`)).json();
  PLURALS = new Intl.PluralRules(language);
  document.documentElement.lang = language;
}

function number(value) { return value.toLocaleString(language); }

function time(value) {
  const when = new Date(value), today = new Date().toDateString() === when.toDateString();
  return when.toLocaleString(language, today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value, unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${number(Number(size.toPrecision(3)))} ${units[unit]}`;
}

/** Returns a setting of this browser. */
function setting(name, otherwise = null) {
  try {
    return JSON.parse(localStorage.getItem(`snl.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`snl.${name}`, JSON.stringify(value));
  } catch {
    // a browser without storage: the setting lasts as long as the page
  }
}
