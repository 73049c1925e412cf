// A chart of one kind of seat over time: what was in use, the limit, refusals, and a read-out that
// follows the pointer or the arrow keys.

const WIDE = 1000;
const HIGH = 100;
const RANGES = { minutes: 3600, hours: 86400, days: 31 * 86400, months: 395 * 86400 };

// Stairs through pieces of time; a new stretch wherever one is missing.
function stretches(points) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1)?.at(-1);
    if (last && Math.abs(last.at + last.seconds - point.at) < 2) found.at(-1).push(point);
    else found.push([point]);
  }
  return found;
}

function stairs(points, x, y, value) {
  return points.map((point, place) => {
    const height = y(value(point)).toFixed(2);
    return `${place === 0 ? "M" : "L"}${x(point.at).toFixed(1)} ${height}H${x(point.at + point.seconds).toFixed(1)}`;
  }).join("");
}

function under(points, x, y, value) {
  return `${stairs(points, x, y, value)}V${HIGH}H${x(points[0].at).toFixed(1)}Z`;
}

// When a piece of time was, as the read-out and the axis tell it.
function moment(seconds, range, short) {
  const at = new Date(seconds * 1000);
  const parts = range === "months" ? { month: "short", year: short ? undefined : "numeric", timeZone: "UTC" }
    : range === "days" ? { day: "numeric", month: "short", ...(short ? {} : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }) }
    : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return new Intl.DateTimeFormat(words.locale, parts).format(at);
}

// Where the axis has its marks: full hours, days or months, some five of them.
function marks(range, from, to) {
  const found = [];
  if (range === "months") {
    const at = new Date(from * 1000);
    for (let month = at.getUTCMonth() + 1; found.length < 14; month += 1) {
      const seconds = Date.UTC(at.getUTCFullYear(), month, 1) / 1000;
      if (seconds > to) break;
      found.push(seconds);
    }
    return found.filter((_, place) => (found.length - 1 - place) % 3 === 0);
  }
  const step = { minutes: 900, hours: 6 * 3600, days: 7 * 86400 }[range];
  // Full hours and days are those of whoever looks.
  const shift = new Date(to * 1000).getTimezoneOffset() * 60;
  const whole = Math.min(step, 86400);
  let at = Math.floor((to - shift) / whole) * whole + shift;
  for (; at > from; at -= step) found.unshift(at);
  return found;
}

function chart() {
  const shape = (name) => svg("path", { class: name, "vector-effect": "non-scaling-stroke" });
  const parts = {
    peak: shape("chart-peak"), mean: shape("chart-mean"), line: shape("chart-line"),
    limit: shape("chart-limit"), refused: shape("chart-refused"), cursor: shape("chart-cursor"),
  };
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...Object.values(parts));
  const limitText = el("span", { class: "chart-limit-text" });
  const axis = el("div", { class: "chart-axis", "aria-hidden": "true" });
  const readout = el("p", { class: "chart-readout" });
  const plot = el("div", { class: "chart-plot", tabindex: "0", role: "group" }, picture, limitText);
  const node = el("div", { class: "chart" }, plot, axis, readout);
  let drawn = { points: [], x: () => 0, range: "hours", kind: null, from: 0, to: 1 };
  let chosen = null;

  function choose(place) {
    chosen = place === null || drawn.points.length === 0 ? null
      : Math.max(0, Math.min(drawn.points.length - 1, place));
    const point = chosen === null ? null : drawn.points[chosen];
    const middle = point ? drawn.x(point.at + point.seconds / 2).toFixed(1) : null;
    set(parts.cursor, "d", point ? `M${middle} 0V${HIGH}` : "");
    text(readout, point ? told(point) : summary());
  }

  function told(point) {
    const end = Math.min(point.at + point.seconds, drawn.to);
    const when = drawn.range === "months" ? moment(point.at, drawn.range)
      : `${moment(point.at, drawn.range)} – ${clock(end * 1000, false)}`;
    return [when, ...amounts(point.peak, point.mean, point.limit, point.refusals)].join(" · ");
  }

  function amounts(peak, mean, limit, refusals) {
    return [
      limit === null ? say("peak", { peak: number(peak) }) : say("peak_of", { peak: number(peak), limit: number(limit) }),
      say("mean", { mean: new Intl.NumberFormat(words.locale, { maximumFractionDigits: 1 }).format(mean) }),
      refusals === 1 ? say("refused_once") : refusals > 0 ? say("refused_times", { count: number(refusals) }) : null,
    ].filter(Boolean);
  }

  function summary() {
    const { points } = drawn;
    if (points.length === 0) return say("no_history");
    const time = points.reduce((sum, point) => sum + point.seconds, 0);
    const mean = points.reduce((sum, point) => sum + point.mean * point.seconds, 0) / time;
    const peak = Math.max(...points.map((point) => point.peak));
    const refusals = points.reduce((sum, point) => sum + point.refusals, 0);
    return [`${say(drawn.kind)}, ${say(`last_${drawn.range}`)}`,
      ...amounts(peak, mean, points.at(-1).limit, refusals)].join(" · ");
  }

  function update(series, kind, range, now) {
    const points = (series?.points ?? []).map(([at, seconds, peak, mean, limit, refusals]) =>
      ({ at, seconds, peak, mean, limit, refusals }));
    const to = now / 1000;
    const from = to - RANGES[range];
    const x = (at) => Math.max(0, Math.min(WIDE, (at - from) / (to - from) * WIDE));
    const top = Math.max(1, ...points.map((point) => Math.max(point.peak, point.limit ?? 0))) * 1.12;
    const y = (value) => HIGH - value / top * HIGH;
    const runs = stretches(points);
    drawn = { points, x, range, kind, from, to };
    set(parts.peak, "d", runs.map((run) => under(run, x, y, (point) => point.peak)).join(""));
    set(parts.mean, "d", runs.map((run) => under(run, x, y, (point) => point.mean)).join(""));
    set(parts.line, "d", runs.map((run) => stairs(run, x, y, (point) => point.peak)).join(""));
    const limited = stretches(points.filter((point) => point.limit !== null));
    set(parts.limit, "d", limited.map((run) => stairs(run, x, y, (point) => point.limit)).join(""));
    set(parts.refused, "d", points.filter((point) => point.refusals > 0)
      .map((point) => `M${x(point.at + point.seconds / 2).toFixed(1)} ${HIGH}V${HIGH - 9}`).join(""));
    const limit = points.at(-1)?.limit ?? null;
    show(limitText, limit !== null);
    text(limitText, limit === null ? "" : number(limit));
    if (limit !== null) limitText.style.setProperty("top", `${y(limit)}%`);
    keep(axis, marks(range, from, to), String, () => {
      const mark = el("span");
      return {
        node: mark,
        update(at) {
          const left = (at - drawn.from) / (drawn.to - drawn.from) * 100;
          text(mark, moment(at, drawn.range, true));
          mark.style.setProperty("left", `${left}%`);
          // What would be cut off at an end stays inside of it.
          set(mark, "data-end", left < 4 ? "left" : left > 96 ? "right" : null);
        },
      };
    });
    choose(chosen);
    set(plot, "aria-label", `${say("chart")}: ${summary()}`);
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const at = drawn.from + (event.clientX - box.left) / box.width * (drawn.to - drawn.from);
    const place = drawn.points.findIndex((point) => point.at + point.seconds > at);
    choose(place < 0 ? drawn.points.length - 1 : place);
  });
  plot.addEventListener("pointerleave", () => choose(null));
  plot.addEventListener("focus", () => set(readout, "aria-live", "polite"));
  plot.addEventListener("blur", () => { set(readout, "aria-live", null); choose(null); });
  plot.addEventListener("keydown", (event) => {
    const last = drawn.points.length - 1;
    const places = {
      ArrowLeft: (chosen ?? last + 1) - 1, ArrowRight: (chosen ?? last) + 1, Home: 0, End: last, Escape: null,
    };
    if (!Object.hasOwn(places, event.key)) return;
    event.preventDefault();
    choose(places[event.key]);
  });
  return { node, update };
}
