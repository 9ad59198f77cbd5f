// The queue of what waits for a person, one key for each verdict.

const QUEUES = ["open", "alarm", "uncertain", "unknown", "unusual"], PAGE = 60;

async function viewReview(container, { query }) {
  const filter = { queue: query.get("queue") ?? "open", product: query.get("product") ?? "", decision: query.get("decision") ?? "", review: query.get("review") ?? "", day: query.get("day") ?? "" };
  const state = { list: [], next: null, loading: false, at: -1, panel: null, done: [], generation: 0 };
  const list = make("div", { class: "queue", role: "group", "aria-label": t("review.queue"), tabindex: "-1" });
  const main = make("section", { class: "review-main", "aria-label": t("live.shown") });
  const count = make("p", { class: "hint", role: "status" });
  const chips = make("div", { class: "chips", role: "group", "aria-label": t("review.which") });
  const products = make("select", { "aria-label": t("fact.product"), onchange: () => set({ product: products.value }) }, make("option", { value: "", text: t("all.products") }), ...station.products.map((one) => make("option", { value: one.name, text: one.name })));
  const decisions = make("select", { "aria-label": t("review.decision"), onchange: () => set({ decision: decisions.value, queue: "all" }) }, make("option", { value: "", text: t("all.decisions") }), ...Object.keys(DECISION_CLASS).map((one) => make("option", { value: one, text: t(`decision.${DECISION_CLASS[one]}`) })));
  const reviews = make("select", { "aria-label": t("review.verdict"), onchange: () => set({ review: reviews.value, queue: "all" }) }, make("option", { value: "", text: t("all.reviews") }), make("option", { value: "none", text: t("review.none") }), ...["confirmed", "false alarm", "miss"].map((one) => make("option", { value: one, text: verdictName(one) })));
  const day = make("input", { type: "date", "aria-label": t("review.day"), onchange: () => set({ day: day.value }) });
  add(container, make("div", { class: "view-title" }, make("h1", { text: t("review.title") }), count),
    make("div", { class: "filters" }, chips, products, decisions, reviews, day),
    make("div", { class: "review" }, list, main));

  function set(changes) {
    Object.assign(filter, changes);
    if (filter.queue !== "all") { filter.decision = ""; filter.review = ""; }
    history.replaceState(null, "", `#/${address("review", filter)}`);
    showFilters();
    read();
  }
  function showFilters() {
    put(chips, ...[...QUEUES, "all"].map((name) => make("button", { type: "button", class: "chip", "aria-pressed": filter.queue === name ? "true" : "false", "data-tip": meaning(`queue.${name}`), text: t(`queue.${name}`), onclick: () => set({ queue: name }) })));
    products.value = filter.product;
    decisions.value = filter.decision;
    reviews.value = filter.review;
    day.value = filter.day;
  }
  function wanted(after) {
    const from = filter.day ? new Date(`${filter.day}T00:00:00`) : null, until = from ? new Date(from) : null;
    until?.setDate(until.getDate() + 1);
    return address("/v1/inspections", { queue: filter.queue === "all" ? "" : filter.queue, product: filter.product, decision: filter.decision, review: filter.review, since: from?.toISOString(), until: until?.toISOString(), after, limit: PAGE });
  }
  async function read() {
    const generation = state.generation += 1;
    const page = await attempt(() => call("GET", wanted("")));
    if (!page || generation !== state.generation) return;
    Object.assign(state, { list: page.inspections, next: page.next, at: -1, panel: null, done: [] });
    put(list, ...state.list.map(row));
    list.scrollTop = 0;
    showCount();
    if (state.list.length) choose(0);
    else put(main, make("div", { class: "empty" }, make("p", { text: t(filter.queue === "all" ? "review.nothing" : "review.empty") })));
  }
  async function readMore() {
    if (!state.next || state.loading) return;
    state.loading = true;
    const generation = state.generation, page = await attempt(() => call("GET", wanted(state.next)));
    state.loading = false;
    if (!page || generation !== state.generation) return;
    state.next = page.next;
    for (const one of page.inspections) { state.list.push(one); add(list, row(one)); }
    showCount();
  }
  function row(one) { return card(one, { size: 160, onclick: () => choose(state.list.findIndex((other) => other.id === one.id)) }); }
  function showCount() {
    const open = filter.queue === "all" ? state.list.length : state.list.filter((one) => one.review === null).length;
    count.textContent = t(state.next ? "review.count.more" : "review.count", { n: open });
  }
  function choose(index, focus = false) {
    if (index < 0 || index >= state.list.length) return;
    state.at = index;
    const one = state.list[index];
    state.panel = inspectionPanel(one, { reviewed: changed });
    put(main, state.panel.node);
    markChosen(list, one.id);
    list.children[index].scrollIntoView({ block: "nearest" });
    if (focus) list.children[index].focus({ preventScroll: true });
    if (index > state.list.length - 12) readMore();
  }
  function changed(one, after) {
    const index = state.list.findIndex((other) => other.id === one.id);
    if (index >= 0) {
      state.list[index] = one;
      list.children[index].replaceWith(row(one));
      markChosen(list, state.list[state.at]?.id);
    }
    showCount();
    if (after !== "review") return;
    state.done.push(one.id);
    toast(t("review.done", { verdict: reviewWords(one) }), { label: t("review.undo"), action: () => undoLast() });
    const next = state.list.findIndex((other, n) => n > index && other.review === null);
    if (next >= 0) choose(next);
    else if (!state.next) add(main, make("p", { class: "empty", text: t("review.finished") }));
  }
  /** Takes the last review of this page back, also that of the image before. */
  async function undoLast() {
    const id = state.done.pop() ?? state.panel?.one().id, index = state.list.findIndex((one) => one.id === id);
    if (index < 0) return;
    choose(index);
    await state.panel.undo();
  }
  /** Takes back what is shown or, where it has no review, the last review; after one that is on its way. */
  async function undoKey() {
    await state.panel.settled();
    if (state.panel.one().review === null && state.done.length) await undoLast();
    else await state.panel.undo();
  }
  list.addEventListener("scroll", () => { if (list.scrollTop + list.clientHeight > list.scrollHeight - 800) readMore(); }, { passive: true });
  showFilters();
  await read();
  return {
    event(kind, data) {
      if (kind === "reset") return read();
      if (kind === "inspection" && !state.list.length) return read();
      if (kind === "change" && data.what === "review") return refreshOne(data.id);
      return undefined;
    },
    key(event) {
      const step = { j: 1, ArrowDown: 1, ArrowRight: 1, k: -1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); choose(state.at + step, true); return true; }
      if (event.key === "u" && state.panel && may("review")) { undoKey(); return true; }
      return state.panel ? panelKey(state.panel, event) : false;
    },
  };
  /** Shows what somebody else has said about an inspection of the list. */
  async function refreshOne(id) {
    const index = state.list.findIndex((one) => one.id === id);
    if (index < 0) return;
    const one = await call("GET", `/v1/inspections/${id}`).catch(() => null);
    if (!one || one.review === state.list[index].review) return;
    state.list[index] = one;
    list.children[index].replaceWith(row(one));
    if (index === state.at) choose(index);
    showCount();
  }
}
