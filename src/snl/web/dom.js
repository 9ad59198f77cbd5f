// Number formats and elements, shared by the pages.

// number formats

const SPACE = "\u202f"; // narrow no-break space between number and % sign

function percent(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const scaled = 100 * value;
  const text = digits === undefined ? String(Number(scaled.toPrecision(3))) : scaled.toFixed(digits);
  return `${text}${SPACE}%`;
}

/** Formats a share of a count: whole percent, with one decimal for counts of 200 and more. */
function percentOf(part, whole) {
  if (!whole) return "–";
  const digits = whole >= 200 && part !== whole && part !== 0 ? 1 : 0;
  return percent(part / whole, digits);
}

function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 100 ? 5 : 4)));
}

function formatCount(count) { return count.toLocaleString("en-GB"); }

function plural(count, one, many) { return `${formatCount(count)} ${count === 1 ? one : many}`; }

// DOM elements; text is never parsed as HTML

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Appends children; those that are null are left out. */
function add(node, ...children) { return fill(node, {}, children); }

/** Replaces the children of an element; those that are null are left out. */
function put(node, ...children) {
  node.replaceChildren();
  return fill(node, {}, children);
}

function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function icon(decision) {
  return draw("svg", { class: `icon ${decision}`, "aria-hidden": "true", viewBox: "0 0 16 16" },
    draw("use", { href: `#i-${decision}` }));
}

/** Returns an element that isolates the direction of a text, for names in any script. */
function bdi(text) { return make("bdi", { text }); }

function byId(id) { return document.getElementById(id); }

/** Returns about `count` round values in a range, for an axis. */
function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) * power;
  const values = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) {
    values.push(Number((n * step).toPrecision(12)));
  }
  return values;
}
