// Scale, bins and ticks of score histograms, shared by the pages.

const BINS = 28, WIDTH = 360, HEIGHT = 190, AXIS_Y = 96, MARGIN_X = 14;

/** Returns a scale for scores; logarithmic if the highest score is far above the median. */
function scoreScale(values) {
  const ordered = [...values].sort((a, b) => a - b);
  let low = ordered[0] ?? 0, high = ordered.at(-1) ?? 1;
  const median = ordered[ordered.length >> 1] ?? 1;
  const logarithmic = low > 0 && high > 8 * median;
  if (high === low) { low -= 0.5; high += 0.5; }
  const transform = logarithmic ? Math.log : (value) => value;
  const inverse = logarithmic ? Math.exp : (value) => value;
  const margin = 0.03 * (transform(high) - transform(low));
  const [from, to] = [transform(low) - margin, transform(high) + margin];
  return {
    logarithmic, low: inverse(from), high: inverse(to),
    x: (value) => MARGIN_X + (transform(logarithmic ? Math.max(value, 1e-300) : value) - from) / (to - from) * (WIDTH - 2 * MARGIN_X),
    at: (fraction) => inverse(from + fraction * (to - from)),
    bin: (value) => Math.min(BINS - 1, Math.max(0, Math.floor((transform(value) - from) / (to - from) * BINS))),
  };
}

function countBins(values, scale) {
  const counts = new Array(BINS).fill(0);
  for (const value of values) counts[scale.bin(value)] += 1;
  return counts;
}

function scoreTicks(scale) {
  const isInside = (value) => scale.x(value) > MARGIN_X && scale.x(value) < WIDTH - MARGIN_X;
  if (!scale.logarithmic) return ticks(scale.low, scale.high, 5).filter(isInside);
  const values = [];
  for (let power = Math.floor(Math.log10(scale.low)); power <= Math.log10(scale.high); power += 1) {
    for (const factor of [1, 2, 5]) values.push(factor * 10 ** power);
  }
  const inside = values.filter(isInside).map((value) => Number(value.toPrecision(3)));
  return inside.length > 7 ? inside.filter((_, n) => n % 2 === 0) : inside;
}
