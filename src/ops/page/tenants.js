// A tenant: its name and licence, what is wrong, a gauge for each kind of seat that it has.

// Half a circle; lengths on it are hundredths.
const ARC = "M12 76a64 64 0 0 1 128 0";

function gauge(onChoose) {
  const arc = (name) => svg("path", { d: ARC, pathLength: 100, class: `arc ${name}` });
  const parts = { reserve: arc("arc-reserve"), held: arc("arc-held"), used: arc("arc-used") };
  const count = el("span", { class: "gauge-count" });
  const limit = el("span", { class: "gauge-limit" });
  const title = el("span", { class: "gauge-title" });
  const legend = el("span", { class: "legend" });
  const picture = svg("svg", { viewBox: "0 0 152 84", "aria-hidden": "true" },
    arc("arc-ground"), parts.reserve, parts.held, parts.used);
  const node = el("button", { type: "button", class: "gauge" },
    el("span", { class: "dial" }, picture, el("span", { class: "dial-text" }, count, " ", limit)),
    " ", el("span", { class: "gauge-side" }, title, legend));

  let kind = null;
  node.addEventListener("click", () => onChoose(kind));

  function update({ seats, chosen }) {
    kind = seats.kind;
    set(node, "aria-pressed", chosen);
    const scale = 100 / Math.max(seats.limit, seats.used, 1);
    const working = seats.used - seats.grace - seats.reserve;
    // Each arc begins at the left and lies over those that reach farther.
    const reach = { used: working, held: working + seats.grace, reserve: seats.used };
    for (const [name, length] of Object.entries(reach)) {
      const there = length > 0;
      set(parts[name], "stroke-dasharray", `${there ? Math.max(length * scale, 0.5) : 0} 200`);
      set(parts[name], "visibility", there ? "visible" : "hidden");
    }
    set(node, "data-level", level(seats));
    text(count, number(seats.used));
    text(limit, say("of", { limit: number(seats.limit) }));
    text(title, say(seats.kind));
    const rows = [
      [seats.kind.endsWith("_users") ? "counted" : "working", working, "used"],
      ["held", seats.grace, "held"], ["reserve", seats.reserve, "reserve"], ["free", seats.free, "free"],
    ].filter(([name, value]) => value > 0 || name === "free");
    keep(legend, rows, ([name]) => name, ([, , mark]) => {
      const value = el("b");
      const label = el("span");
      return {
        node: el("span", { class: "legend-row" }, el("i", { class: `mark mark-${mark}`, "aria-hidden": "true" }), value, " ", label),
        update([name, amount]) { text(value, number(amount)); text(label, say(name)); },
      };
    });
  }
  return { node, update };
}

function level(seats) {
  if (seats.limit > 0 && seats.used >= seats.limit) return "full";
  return seats.limit > 0 && seats.used * 100 >= seats.limit * warningPercent ? "short" : "calm";
}

// The history that was received last, and of which range it is.
const past = { range: "hours", shown: "hours", now: Date.now(), tenants: new Map() };

function pastOf(tenant) {
  return past.tenants.get(tenant) ?? [];
}

// From which share of the seats on they are short; the configuration says.
let warningPercent = 90;

function daysLeft(days) {
  if (days <= 0) return say("last_day");
  return days === 1 ? say("day") : say("days", { count: number(days) });
}

// A warning in words.
function warningText(warning, tenant) {
  const subject = warning.subject ?? "";
  switch (warning.code) {
    case "seats_short":
    case "seats_full": {
      const seats = tenant.seats.find((seats) => seats.kind === subject);
      const percent = seats && seats.limit > 0 ? Math.floor(100 * seats.used / seats.limit) : 0;
      return say(warning.code, { kind: say(subject), percent });
    }
    case "licence_ends":
      return Number(subject) < 1 ? say("licence_ends_today")
        : say("licence_ends", { days: Number(subject) === 1 ? say("in_day") : say("in_days", { count: subject }) });
    case "store_failed": return say("store_failed_notice", { subject });
    case "draining": return say("draining_notice");
    default: return say(warning.code, { subject });
  }
}

function licenceTerm(licence) {
  if (licence.standing === "missing") return "";
  if (licence.standing === "not_started") return say("starts", { date: date(licence.start) });
  if (licence.end === null) return say("perpetual");
  if (licence.standing === "expired") return say("ended", { date: date(licence.end) });
  return `${say("until", { date: date(licence.end) })} · ${daysLeft(licence.days_left)}`;
}

function worst(tenant) {
  const ranks = { critical: 2, warning: 1, notice: 0 };
  return Math.max(-1, ...tenant.warnings.map((warning) => ranks[warning.severity] ?? 0));
}

function tenantCard() {
  const name = el("h3", { class: "tenant-name" });
  const badges = el("span", { class: "badges" });
  const issued = el("span", { class: "issued" });
  const term = el("span");
  const warnings = el("ul", { class: "warnings" });
  const gauges = el("div", { class: "gauges" });
  const none = el("p", { class: "empty" });
  const foot = el("p", { class: "foot" });
  const history = chart();
  let chosen = null;
  let latest = null;
  const node = el("article", { class: "tenant" },
    el("header", {}, el("div", { class: "tenant-head" }, name, badges),
      el("p", { class: "licence" }, issued, " ", term)),
    warnings, gauges, none, history.node, foot);

  function choose(kind) {
    chosen = kind;
    update(latest);
  }

  function update(tenant) {
    latest = tenant;
    text(name, tenant.name);
    const { licence, policy } = tenant;
    text(issued, [licence.issued_to, licence.id ? say("licence", { id: licence.id }) : null]
      .filter(Boolean).join(" · "));
    text(term, licenceTerm(licence));
    set(term, "class", licence.standing === "valid" ? "term" : "term term-bad");
    const marks = [];
    if (licence.trial) marks.push("trial");
    if (policy.mode === "observe") marks.push("observing");
    keep(badges, marks, (mark) => mark, (mark) => {
      const badge = el("span", { class: `badge badge-${mark}` });
      return { node: badge, update: (mark) => text(badge, say(mark)) };
    });
    keep(warnings, tenant.warnings, (warning) => warning.code + warning.subject, () => {
      const line = el("li");
      return {
        node: line,
        update(warning) {
          set(line, "data-severity", warning.severity);
          text(line, warningText(warning, latest));
        },
      };
    });
    const limited = tenant.seats.filter((seats) => seats.limit !== null);
    if (!limited.some((seats) => seats.kind === chosen)) chosen = limited[0]?.kind ?? null;
    keep(gauges, limited.map((seats) => ({ seats, chosen: seats.kind === chosen })), ({ seats }) => seats.kind,
      () => gauge(choose));
    show(history.node, chosen !== null);
    const series = pastOf(tenant.name).find((series) => series.kind === chosen);
    if (chosen !== null) history.update(series, chosen, past.shown, past.now);
    show(none, limited.length === 0);
    text(none, say(licence.standing === "missing" ? "licence_missing" : "no_limit"));
    const viewers = tenant.viewers === 0 ? say("no_plain_viewers")
      : tenant.viewers === 1 ? say("plain_viewer") : say("plain_viewers", { count: number(tenant.viewers) });
    const when = say("when_full", { what: say(policy.mode === "observe" ? "observe" : policy.over_limit) });
    const counts = licence.metering ? say(`counts_${licence.metering}`) : null;
    const shares = tenant.shares_with.length > 0
      ? say("shares", { names: tenant.shares_with.join(", ") }) : null;
    text(foot, [counts, when, viewers, shares].filter(Boolean).join(" · "));
  }
  return { node, update };
}
