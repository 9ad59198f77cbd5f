// How unusual an image is, as people read it; and histograms of scores.

const RAREST = 1e-3; // the right end of the scale: 1 in 1000

/** Returns the position of a p-value on the scale, 0 (common) to 1 (rare). */
function rareness(p) { return clamp(Math.log(p) / Math.log(RAREST), 0, 1); }

/** Returns a scale with the p-value of an inspection and the rates at which it would be flagged. */
function rarityScale(one, rates) {
  const p = one.p_value;
  const node = make("div", { class: "rarity" });
  if (p === null || p === undefined) {
    add(node, make("p", { class: "hint", text: t("scale.none") }));
    return node;
  }
  const width = 320, at = (value) => 4 + (width - 8) * rareness(value);
  const alarm = at(rates.anomalous), maybe = at(Math.max(rates.anomalous, rates.uncertain));
  const zone = (name, from, to) => draw("rect", { class: `zone ${name}`, x: from, y: 16, width: Math.max(0, to - from), height: 12 });
  const svg = draw("svg", { viewBox: `0 0 ${width} 54`, role: "img", "aria-label": `${rarityWords(p)} ${limitWords(rates)}` },
    zone("normal", 4, maybe), zone("uncertain", maybe, alarm), zone("anomalous", alarm, width - 4),
    draw("path", { class: "pointer", d: `M${at(p)} 15l-6 -10h12z` }), draw("line", { class: "pointer", x1: at(p), x2: at(p), y1: 14, y2: 30 }));
  for (const [value, text] of [[1, t("scale.common")], [0.1, "1 : 10"], [0.01, "1 : 100"], [RAREST, "1 : 1000"]]) {
    const x = at(value), anchor = value === 1 ? "start" : value === RAREST ? "end" : "middle";
    add(svg, draw("line", { class: "tick", x1: x, x2: x, y1: 28, y2: 33 }), draw("text", { x, y: 46, "text-anchor": anchor, text }));
  }
  add(node, svg, make("p", { class: "rarity-words" }, make("b", { text: rarityWords(p) }), " ", make("span", { class: "hint", text: limitWords(rates) })));
  const missing = Math.ceil(1 / rates.anomalous) - 1 - (product(one.product)?.held_out_images ?? 0);
  if (one.result.threshold === null && missing > 0) add(node, make("p", { class: "hint problem", text: t("scale.few", { n: missing }) }));
  return node;
}

/** Returns in words from where on parts are flagged. */
function limitWords(rates) { return t("scale.limit", { n: Math.round(1 / rates.anomalous) }); }

/** Returns a p-value in words. */
function rarityWords(p) {
  if (p >= 0.5) return t("scale.usual");
  return t("scale.words", { n: Math.round(1 / p) });
}

/** Returns a histogram of groups of scores with thresholds.
 * `groups`: [{name, values}], drawn upwards one after another; `limits`: [{name, value}]. */
function scoreHistogram(groups, limits, label) {
  const all = groups.flatMap((group) => group.values);
  if (!all.length) return make("p", { class: "empty", text: t("scores.none") });
  const scale = scoreScale([...all, ...limits.map((limit) => limit.value).filter((value) => value !== null)]);
  const bottom = HEIGHT - 24, counts = groups.map((group) => countBins(group.values, scale));
  const highest = Math.max(1, ...Array.from({ length: BINS }, (_, n) => counts.reduce((sum, one) => sum + Math.sqrt(one[n]), 0)));
  const width = (WIDTH - 2 * MARGIN_X) / BINS;
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, class: "score-histogram" });
  for (let n = 0; n < BINS; n += 1) {
    let y = bottom;
    groups.forEach((group, index) => {
      const height = Math.sqrt(counts[index][n]) / highest * (bottom - 22);
      if (!height) return;
      y -= height;
      add(svg, draw("rect", { class: `score ${group.name}`, x: MARGIN_X + n * width + 0.5, y, width: width - 1, height }));
    });
    const parts = groups.map((group, index) => `${number(counts[index][n])} ${t(`scores.${group.name}`)}`).join(", ");
    add(svg, draw("rect", { class: "hover-area", x: MARGIN_X + n * width, y: 14, width, height: bottom - 14, "data-tip": `${formatNumber(scale.at(n / BINS))} – ${formatNumber(scale.at((n + 1) / BINS))}: ${parts}` }));
  }
  add(svg, draw("line", { class: "base", x1: MARGIN_X, x2: WIDTH - MARGIN_X, y1: bottom, y2: bottom }));
  for (const value of scoreTicks(scale)) add(svg, draw("text", { x: scale.x(value), y: HEIGHT - 8, "text-anchor": "middle", text: formatNumber(value) }));
  for (const { name, value } of limits) {
    if (value === null) continue;
    const x = clamp(scale.x(value), MARGIN_X, WIDTH - MARGIN_X);
    add(svg, draw("g", { class: `limit ${name}` }, draw("line", { x1: x, x2: x, y1: 12, y2: bottom }),
      draw("text", { x: clamp(x, 20, WIDTH - 20), y: 10, "text-anchor": "middle", text: name === "anomalous" ? formatNumber(value) : "" })));
  }
  const key = make("p", { class: "key" }, ...groups.map((group) => make("span", {}, make("i", { class: `box score-${group.name}` }), t(`scores.${group.name}`), ` (${number(group.values.length)})`)));
  return make("div", { class: "chart" }, svg, key);
}
