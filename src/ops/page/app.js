// The page: asks /api/status again and again, and shows what it said.

const EVERY_MS = 3000;
const LONGEST_PAUSE_MS = 60000;
const PATIENCE_MS = 10000;
// How often charts are drawn anew, and how many tenants one answer has charts for.
const CHARTS_EVERY_MS = 30000;
const TENANTS_AT_ONCE = 48;
// So many tenants are shown at first; the others on request.
const SHOWN_FIRST = 24;

const page = {
  status: null, now: 0, received: 0, failures: 0, nextAt: 0, timer: 0, asking: false,
  language: "en", shown: SHOWN_FIRST, filter: "", visible: [], chartsAt: 0, chartsOf: "",
};

// --- what the browser remembers ---

function remembered(name) {
  try { return localStorage.getItem(`seatgate.${name}`); } catch { return null; }
}

function remember(name, value) {
  try { localStorage.setItem(`seatgate.${name}`, value); } catch { /* it forgets, then */ }
}

// --- language and theme ---

function speak(language) {
  page.language = Object.hasOwn(WORDS, language) ? language : "en";
  words = WORDS[page.language];
  document.documentElement.lang = page.language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) text(node, say(node.dataset.word));
  for (const node of document.querySelectorAll("[data-word-label]")) {
    set(node, "aria-label", say(node.dataset.wordLabel));
  }
  set(find("filter"), "placeholder", say("filter"));
  text(find("language"), say("other_language"));
  set(find("language"), "lang", page.language === "zh" ? "en" : "zh-CN");
  labelTheme();
  showRanges();
  render();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function labelTheme() {
  const label = say(isDark() ? "to_light" : "to_dark");
  set(find("theme"), "aria-label", label);
  set(find("theme"), "title", label);
}

function firstLanguage() {
  const wanted = [remembered("language"), ...navigator.languages].filter(Boolean);
  const known = wanted.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => Object.hasOwn(WORDS, tag));
  return known ?? "en";
}

// --- asking ---

async function get(query) {
  const patience = new AbortController();
  const limit = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(`api/status?${query}`, { cache: "no-store", signal: patience.signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return await answer.json();
  } finally {
    clearTimeout(limit);
  }
}

async function ask() {
  clearTimeout(page.timer);
  if (page.asking) return;
  page.asking = true;
  try {
    page.status = await get("history=none");
    page.received = Date.now();
    page.failures = 0;
    render();
    await askPast();
  } catch {
    page.failures += 1;
  } finally {
    page.asking = false;
  }
  plan();
  render();
}

// The history of the tenants that are shown; it changes slowly.
async function askPast() {
  const wanted = `${past.range}\n${page.visible.join("\n")}`;
  if (wanted === page.chartsOf && Date.now() - page.chartsAt < CHARTS_EVERY_MS) return;
  const range = past.range;
  const found = new Map();
  let now = past.now;
  for (let first = 0; first < page.visible.length; first += TENANTS_AT_ONCE) {
    const query = new URLSearchParams({ history: range });
    for (const tenant of page.visible.slice(first, first + TENANTS_AT_ONCE)) query.append("tenant", tenant);
    const status = await get(query);
    now = Date.parse(status.now);
    for (const tenant of status.history.tenants) found.set(tenant.name, tenant.series);
  }
  Object.assign(past, { shown: range, now, tenants: found });
  page.chartsOf = wanted;
  page.chartsAt = Date.now();
}

// Every few seconds; after failures ever more seldom, and not at the same moment as all others.
function plan() {
  const pause = page.failures === 0 ? EVERY_MS
    : Math.min(LONGEST_PAUSE_MS, EVERY_MS * 2 ** (page.failures - 1)) * (0.8 + 0.4 * Math.random());
  page.nextAt = Date.now() + pause;
  clearTimeout(page.timer);
  // Nobody looks: nothing is asked until somebody does.
  if (!document.hidden) page.timer = setTimeout(ask, pause);
}

// --- showing ---

function render() {
  tick();
  const status = page.status;
  if (!status) return;
  warningPercent = status.configuration.warning_percent;
  page.now = Date.parse(status.now);
  showOverview(status);
  showTenants(status);
  showPeople(status);
  showRefusals(status);
  showServers(status);
  text(find("build"), `Seatgate ${status.gateway.version} (${status.gateway.revision})`);
}

// What changes with the clock alone.
function tick() {
  const now = Date.now();
  const stale = page.failures > 0;
  set(document.body, "data-stale", stale ? "yes" : null);
  show(find("stale"), stale);
  if (stale) {
    text(find("stale-title"), say("stale_title"));
    const next = span(Math.max(0, page.nextAt - now) / 1000);
    text(find("stale-text"), page.status
      ? say("stale_text", { time: clock(page.received), ago: ago(page.received, now), next })
      : say("stale_never", { next }));
  }
  text(find("live-text"), page.status && !stale
    ? `${say("live")} · ${say("updated", { ago: ago(page.received, now) })}`
    : say(stale ? "stale_title" : "connecting"));
}

function showOverview(status) {
  const notices = status.warnings.map((warning) => ({ warning, tenant: null }));
  for (const tenant of status.tenants) {
    for (const warning of tenant.warnings) notices.push({ warning, tenant });
  }
  const ranks = { critical: 0, warning: 1, notice: 2 };
  notices.sort((one, other) => ranks[one.warning.severity] - ranks[other.warning.severity]);
  const headline = status.gateway.state === "draining" ? say("draining_title")
    : status.gateway.state === "starting" ? say("starting_title")
    : notices.length === 0 ? say("all_well")
    : notices.length === 1 ? say("one_notice") : say("many_notices", { count: number(notices.length) });
  text(find("headline"), headline);
  const key = ({ warning, tenant }) => `${tenant ? `t ${tenant.name}` : "g"} ${warning.code} ${warning.subject}`;
  keep(find("notices"), notices.slice(0, 12), key, () => {
    const who = el("b");
    const what = el("span");
    const node = el("li", {}, who, " ", what);
    return {
      node,
      update({ warning, tenant }) {
        set(node, "data-severity", warning.severity);
        text(who, tenant ? tenant.name : "");
        text(what, warningText(warning, tenant));
      },
    };
  });
  showFacts(status);
}

function showFacts(status) {
  const { gateway, connections, store, configuration } = status;
  const up = status.document_servers.filter((server) => server.healthy).length;
  const all = status.document_servers.length;
  const facts = [
    ["state", say(gateway.state), say("up_for", { time: span(gateway.uptime_seconds) }), gateway.state === "ready"],
    ["connections", number(connections.websocket + connections.polling),
      say("by_transport", { websocket: number(connections.websocket), polling: number(connections.polling) }), true],
    ["servers", `${number(up)} / ${number(all)}`, up === all ? say("all_answer") : say("some_down", { count: number(all - up) }), up === all],
    ["store", say(store.shared?.counted_alone > 0 ? "away" : store.healthy ? "store_well" : "store_failed"),
      store.shared?.counted_alone > 0 ? say("alone") : store.errors > 0 ? say("errors", { count: number(store.errors) }) : say("no_errors"), store.healthy],
    ["configuration", say(configuration.last_reload_successful ? "reload_good" : "reload_bad"),
      configuration.loaded ? say("loaded", { ago: ago(Date.parse(configuration.loaded), page.now) }) : "",
      configuration.last_reload_successful],
  ];
  keep(find("facts"), facts, ([name]) => name, () => {
    const title = el("dt");
    const value = el("dd", { class: "fact-value" });
    const detail = el("dd", { class: "fact-detail" });
    const node = el("div", { class: "fact" }, title, value, detail);
    return {
      node,
      update([name, main, more, well]) {
        text(title, say(name));
        text(value, main);
        text(detail, more);
        set(node, "data-well", well ? "yes" : "no");
      },
    };
  });
}

function showTenants(status) {
  const wanted = page.filter.trim().toLowerCase();
  const matches = status.tenants.filter((tenant) => wanted === "" ||
    [tenant.name, tenant.licence.id, tenant.licence.issued_to ?? ""].some((field) => field.toLowerCase().includes(wanted)));
  // Those that need attention first, else as the configuration has them.
  const sorted = matches.map((tenant, place) => ({ tenant, place, rank: worst(tenant) }))
    .sort((one, other) => other.rank - one.rank || one.place - other.place).map(({ tenant }) => tenant);
  const shown = sorted.slice(0, page.shown);
  page.visible = shown.map((tenant) => tenant.name);
  keep(find("tenants"), shown, (tenant) => tenant.name, tenantCard);
  show(find("filter-box"), status.tenants.length > 4);
  const more = sorted.length - page.shown;
  show(find("more-box"), more > 0);
  text(find("more"), say("show_more", { count: number(Math.min(more, SHOWN_FIRST)) }));
}

function showPeople(status) {
  const { people } = status;
  show(find("people-section"), people !== null);
  if (people === null) return;
  const shown = people.seats.length;
  text(find("people-aside"), shown < people.total
    ? say("people_some", { shown: number(shown), count: number(people.total) })
    : say("people_count", { count: number(people.total) }));
  show(find("people-empty"), people.total === 0);
  const key = (seat) => [seat.tenant, seat.user, seat.document, seat.since, seat.class].join("\n");
  keep(find("people"), people.seats, key, () => {
    const cells = Array.from({ length: 7 }, () => el("td"));
    const node = el("tr", {}, ...cells);
    return {
      node,
      update(seat) {
        const values = [
          seat.anonymous ? `${seat.user} (${say("anonymous")})` : seat.user, seat.document, seat.tenant,
          say(seat.class), span((page.now - Date.parse(seat.since)) / 1000),
          seat.phase === "connected" ? say(seat.transport) : say(seat.phase), seat.address,
        ];
        values.forEach((value, place) => text(cells[place], value));
        set(node, "data-phase", seat.phase);
      },
    };
  });
}

function showRefusals(status) {
  show(find("refusals-empty"), status.refusals.length === 0);
  show(find("refusals").parentElement, status.refusals.length > 0);
  const key = (refusal) => [refusal.first, refusal.tenant, refusal.class, refusal.outcome, refusal.reason,
    refusal.user, refusal.document].join("\n");
  keep(find("refusals"), status.refusals.slice(0, 50), key, () => {
    const when = el("time");
    const what = el("b");
    const where = el("span", { class: "where" });
    const count = el("span", { class: "count" });
    const why = el("p");
    const node = el("li", {}, when, el("div", {}, el("p", {}, what, " ", where, " ", count), why));
    return {
      node,
      update(refusal) {
        const at = Date.parse(refusal.time);
        text(when, page.now - at < 3600000 ? ago(at, page.now) : clock(at, false));
        set(when, "datetime", refusal.time);
        set(when, "title", new Date(at).toLocaleString(words.locale));
        text(what, say("refused_as", { class: say(refusal.class), outcome: say(refusal.outcome) }));
        text(where, [refusal.tenant, refusal.user, refusal.document].filter(Boolean).join(" · "));
        text(count, refusal.count > 1 ? say("times", { count: number(refusal.count) }) : "");
        text(why, say(`why_${refusal.reason}`));
        set(node, "data-outcome", refusal.outcome);
      },
    };
  });
}

function showServers(status) {
  keep(find("servers"), status.document_servers, (server) => server.address, () => {
    const address = el("b");
    const health = el("span", { class: "health" });
    const detail = el("p");
    const node = el("li", {}, el("div", {}, address, detail), " ", health);
    return {
      node,
      update(server) {
        text(address, server.address);
        text(health, say(server.healthy ? "server_up" : "server_down"));
        text(detail, [server.version, server.tenants.slice(0, 6).join(", ")].filter(Boolean).join(" · "));
        set(node, "data-healthy", server.healthy ? "yes" : "no");
      },
    };
  });
}

// --- the range of the charts ---

function showRanges() {
  keep(find("ranges"), Object.keys(RANGES), String, (range) => {
    const node = el("button", { type: "button", class: "range", role: "radio", "data-range": range });
    node.addEventListener("click", () => {
      past.range = range;
      remember("range", range);
      showRanges();
      ask();
    });
    return {
      node,
      update(range) {
        text(node, say(`range_${range}`));
        set(node, "aria-checked", range === past.range);
        set(node, "tabindex", range === past.range ? 0 : -1);
      },
    };
  });
}

find("ranges").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = Object.keys(RANGES);
  const next = all[(all.indexOf(past.range) + step + all.length) % all.length];
  const button = find("ranges").querySelector(`[data-range="${next}"]`);
  button.click();
  button.focus();
});

// --- beginning ---

find("language").addEventListener("click", () => {
  const language = page.language === "zh" ? "en" : "zh";
  remember("language", language);
  speak(language);
});
find("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  remember("theme", theme);
  labelTheme();
});
find("retry").addEventListener("click", ask);
find("more").addEventListener("click", () => { page.shown += SHOWN_FIRST; render(); });
find("filter").addEventListener("input", (event) => {
  page.filter = event.target.value;
  page.shown = SHOWN_FIRST;
  render();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", labelTheme);

const theme = remembered("theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
if (Object.hasOwn(RANGES, remembered("range") ?? "")) past.range = remembered("range");
speak(firstLanguage());
setInterval(tick, 1000);
ask();
