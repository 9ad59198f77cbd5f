// The expected cost per part at the selected rate, and the rate with the lowest one.

const COSTS = { costMiss: "cost-miss", costAlarm: "cost-alarm", defects: "defect-share" };
const MOST_COST = 1e12;

/** Returns whether a value is valid for a field: a cost, or the share of defective parts. */
function isCost(key, value) {
  return value > 0 && (key === "defects" ? value < 1 : value <= MOST_COST);
}

/** Returns the smallest rate at which all products shown can be decided. */
function smallestShown() {
  const products = state.product ? [state.product] : PRODUCTS;
  const pooled = DATA.pooled_least_rate ?? 1;
  return Math.max(MIN_RATE, ...products.map((product) => Math.min(smallestRate(product), pooled)));
}

/** Returns a function from a rate to the expected cost per part; null without defective images.
 * A defect that is judged an unknown product does not pass, so it is not missed. */
function costFunction() {
  const defects = selectedImages().filter((image) => image.anomalous);
  if (!defects.length) return null;
  const levels = defects.map((image) => (decide(image, 0, 0) === "unknown" ? 0 : image.p ?? Infinity)).sort((a, b) => a - b);
  const share = state.defects;
  return {
    levels,
    at(rate) {
      let low = 0, high = levels.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (levels[middle] <= rate) low = middle + 1; else high = middle;
      }
      return share * (1 - low / levels.length) * state.costMiss + (1 - share) * rate * state.costAlarm;
    },
  };
}

/** Returns the rate of the slider's range with the lowest cost; of several equal ones the highest. */
function bestRate(cost) {
  const smallest = smallestShown();
  if (smallest > MAX_RATE) return null;
  const rates = [smallest, ...cost.levels.filter((p) => p > smallest && p <= MAX_RATE)];
  const lowest = Math.min(...rates.map((rate) => cost.at(rate)));
  return rates.filter((rate) => cost.at(rate) <= lowest * (1 + 1e-12)).at(-1);
}

/** Returns the shortest number of 2 to 6 digits from a rate up with the same decisions on the images shown. */
function roundedUp(rate, cost) {
  const next = cost.levels.find((p) => p > rate) ?? Infinity;
  for (let digits = 2; digits <= 6; digits += 1) {
    const unit = 10 ** (Math.floor(Math.log10(rate)) - digits + 1);
    const value = Number((Math.ceil(rate / unit - 1e-9) * unit).toPrecision(digits));
    if (value >= rate && value < next && value <= MAX_RATE) return value;
  }
  return rate;
}

function drawCosts() {
  for (const [key, id] of Object.entries(COSTS)) {
    const field = byId(id), scale = key === "defects" ? 100 : 1;
    field.addEventListener("change", () => {
      const value = Number((Number(field.value) / scale).toPrecision(12));
      if (isCost(key, value)) change({ [key]: value });
      else showCosts();
    });
  }
  byId("cost-best").addEventListener("click", () => change({ rate: Number(byId("cost-best").dataset.rate) }));
}

function showCosts() {
  for (const [key, id] of Object.entries(COSTS)) {
    byId(id).value = Number((state[key] * (key === "defects" ? 100 : 1)).toPrecision(6));
  }
  const cost = costFunction(), text = byId("cost-words"), button = byId("cost-best");
  const best = cost && bestRate(cost);
  button.hidden = best === null;
  if (!cost) {
    text.textContent = "There are no defective images, so the expected cost is unknown.";
    return;
  }
  text.textContent = `Expected cost per part: ${formatNumber(cost.at(state.rate))} at ${percent(state.rate)}. `;
  if (best === null) {
    text.append("There are too few calibration images for any rate of the slider.");
    return;
  }
  const rounded = roundedUp(best, cost);
  text.append("Lowest for the labelled images shown: ",
    make("b", { id: "cost-lowest", text: `${formatNumber(cost.at(best))} at ${percent(rounded)}` }),
    ", an estimate from ", plural(cost.levels.length, ...KINDS.anomalous), ".");
  button.dataset.rate = rounded;
  button.disabled = Math.abs(state.rate - rounded) < 1e-12;
}
