// The words of the page. Each entry has the same keys in every language; a test compares them.
// {x} stands for a value, which is put in as text.

const WORDS = {
  en: {
    language_name: "English", other_language: "中文", locale: "en-GB",
    skip: "Skip to the content", live: "Live", updated: "updated {ago}", connecting: "Connecting…",
    to_dark: "Switch to the dark theme", to_light: "Switch to the light theme",
    stale_title: "The gateway does not answer.",
    stale_text: "What you see is from {time} ({ago}). Next attempt in {next}.",
    stale_never: "Nothing was received yet. Next attempt in {next}.",
    retry: "Try now", ago: "{time} ago", just_now: "just now",
    all_well: "Everything is in order.",
    one_notice: "One thing needs attention.", many_notices: "{count} things need attention.",
    draining_title: "The gateway is draining.", starting_title: "The gateway is starting.",
    tenants: "Tenants", tenant: "Tenant", filter: "Filter by name or licence",
    show_more: "Show {count} more", no_match: "No tenant matches.",
    people: "Who sits where", nobody: "Nobody holds a seat.",
    people_count: "{count} seats held", people_some: "the latest {shown} of {count} seats held",
    user: "User", document: "Document", role: "As", since: "Since", transport: "Transport",
    address: "Address", anonymous: "anonymous",
    refusals: "Last refusals", no_refusals: "Nobody was refused since the start.",
    servers: "Document servers", server_up: "answers", server_down: "does not answer",
    elsewhere: "Also here", as_json: "JSON", metrics: "Metrics", readiness: "Readiness",
    state: "Gateway", ready: "Ready", starting: "Starting", draining: "Draining",
    up_for: "up for {time}", connections: "Connections",
    by_transport: "{websocket} WebSocket, {polling} polling",
    store: "Store", store_well: "Well", store_failed: "Failed", errors: "{count} errors since the start",
    no_errors: "no errors since the start",
    configuration: "Configuration", reload_good: "In force", reload_bad: "Last reload refused",
    loaded: "loaded {ago}", all_answer: "all answer", some_down: "{count} without an answer",
    websocket: "WebSocket", polling: "polling",
    editor: "Editor", live_viewer: "Live viewer", viewer: "Viewer",
    opening: "opening", connected: "connected", grace: "held for a reconnect",
    editor_connections: "Editors", viewer_connections: "Live viewers",
    editor_users: "Editors", viewer_users: "Live viewers",
    of: "of {limit}", taken: "{used} of {limit} taken, {free} free",
    working: "working", counted: "counted", held: "held", reserve: "opening now", free: "free",
    counts_connections: "counts open connections", counts_users: "counts people",
    trial: "Trial", observing: "Observing only",
    no_limit: "The licence sells no seats.",
    licence: "Licence {id}", perpetual: "perpetual", until: "until {date}",
    ended: "ended {date}", starts: "from {date}", days: "{count} days left", day: "1 day left", last_day: "last day",
    plain_viewers: "{count} viewers without a seat", plain_viewer: "1 viewer without a seat",
    no_plain_viewers: "no viewers without a seat",
    history: "History", chart: "Chart, arrow keys move through it",
    range_minutes: "Hour", range_hours: "Day", range_days: "Month", range_months: "Year",
    last_minutes: "last hour", last_hours: "last 24 hours", last_days: "last 31 days", last_months: "last 13 months",
    peak: "peak {peak}", peak_of: "peak {peak} of {limit}", mean: "mean {mean}",
    refused_once: "1 refused", refused_times: "{count} refused", no_history: "Nothing is known of this time yet.",
    when_full: "When full: {what}", reject: "refuse", view: "open view-only", observe: "let in and count",
    shares: "Shares its seats with {names}",
    seats_short: "{kind}: {percent} % taken", seats_full: "{kind}: no seat is free",
    licence_ends: "The licence ends in {days}.", in_days: "{count} days", in_day: "1 day", licence_ends_today: "The licence ends today.",
    licence_expired: "The licence has expired: nobody new can edit.",
    licence_not_started: "The licence has not started yet: nobody can edit.",
    licence_revoked: "The licence is revoked: nobody new can edit.",
    licence_missing: "There is no such licence: nobody can edit.",
    document_server_down: "The document server {subject} does not answer.",
    store_failed_notice: "The store failed: {subject}. New users are refused.",
    counted_alone: "Redis is away: this gateway counts new opens by itself, and may let in more than the licence has.",
    seats_overshoot: "{subject} more seats are held than the licences have, since Redis was away.",
    away: "Away", alone: "counted by this gateway alone",
    reload_failed: "The last reload was refused; the configuration before it is in force. The log says why.",
    draining_notice: "The gateway is about to end and takes nobody new.",
    clock_set_back: "{subject}",
    admitted: "admitted", rejected: "refused", view_only: "opened view-only", observed: "would have been refused",
    refused_as: "{class} {outcome}",
    times: "{count} times",
    why_connections: "All editor seats of the licence were taken.",
    why_connections_view: "All live-viewer seats of the licence were taken.",
    why_users: "As many people as the licence sells are already counted as editors.",
    why_users_view: "As many people as the licence sells are already counted as live viewers.",
    why_licence_expired: "The licence has expired.",
    why_licence_not_started: "The licence has not started yet.",
    why_licence_revoked: "The licence is revoked.",
    why_licence_missing: "The tenant has no licence.",
    why_token_invalid: "The token was missing or wrong: do both sides have the same secret?",
    why_token_expired: "The token had expired: are the clocks right?",
    why_malformed: "The message could not be read.",
    why_store_unavailable: "The store could not note a new user.",
  },
  zh: {
    language_name: "中文", other_language: "English", locale: "zh-CN",
    skip: "跳到正文", live: "实时", updated: "{ago}更新", connecting: "正在连接…",
    to_dark: "切换到深色", to_light: "切换到浅色",
    stale_title: "网关没有应答。",
    stale_text: "当前内容截至 {time}（{ago}）。{next}后重试。",
    stale_never: "尚未收到任何数据。{next}后重试。",
    retry: "立即重试", ago: "{time}前", just_now: "刚刚",
    all_well: "一切正常。",
    one_notice: "有 1 项需要关注。", many_notices: "有 {count} 项需要关注。",
    draining_title: "网关正在排空。", starting_title: "网关正在启动。",
    tenants: "租户", tenant: "租户", filter: "按名称或许可证筛选",
    show_more: "再显示 {count} 个", no_match: "没有匹配的租户。",
    people: "席位占用者", nobody: "没有人占用席位。",
    people_count: "占用 {count} 个席位", people_some: "共占用 {count} 个席位，显示最近 {shown} 个",
    user: "用户", document: "文档", role: "身份", since: "时长", transport: "传输",
    address: "地址", anonymous: "匿名",
    refusals: "最近的拒绝", no_refusals: "启动以来没有拒绝过任何人。",
    servers: "文档服务器", server_up: "有应答", server_down: "没有应答",
    elsewhere: "其他页面", as_json: "JSON", metrics: "指标", readiness: "就绪状态",
    state: "网关", ready: "就绪", starting: "启动中", draining: "排空中",
    up_for: "已运行 {time}", connections: "连接",
    by_transport: "WebSocket {websocket}，轮询 {polling}",
    store: "存储", store_well: "正常", store_failed: "故障", errors: "启动以来 {count} 次错误",
    no_errors: "启动以来没有错误",
    configuration: "配置", reload_good: "已生效", reload_bad: "上次重新加载被拒绝",
    loaded: "{ago}加载", all_answer: "全部有应答", some_down: "{count} 台没有应答",
    websocket: "WebSocket", polling: "轮询",
    editor: "编辑者", live_viewer: "实时查看者", viewer: "查看者",
    opening: "正在打开", connected: "已连接", grace: "保留以待重连",
    editor_connections: "编辑者", viewer_connections: "实时查看者",
    editor_users: "编辑者", viewer_users: "实时查看者",
    of: "共 {limit}", taken: "共 {limit} 个，已占用 {used} 个，空闲 {free} 个",
    working: "使用中", counted: "已计入", held: "保留", reserve: "正在打开", free: "空闲",
    counts_connections: "按连接计数", counts_users: "按用户计数",
    trial: "试用", observing: "仅观察",
    no_limit: "该许可证不含席位。",
    licence: "许可证 {id}", perpetual: "永久", until: "有效期至 {date}",
    ended: "已于 {date} 到期", starts: "自 {date} 起", days: "剩余 {count} 天", day: "剩余 1 天", last_day: "最后一天",
    plain_viewers: "{count} 位不占席位的查看者", plain_viewer: "1 位不占席位的查看者",
    no_plain_viewers: "没有不占席位的查看者",
    history: "历史", chart: "图表，用方向键移动",
    range_minutes: "小时", range_hours: "天", range_days: "月", range_months: "年",
    last_minutes: "最近 1 小时", last_hours: "最近 24 小时", last_days: "最近 31 天", last_months: "最近 13 个月",
    peak: "峰值 {peak}", peak_of: "峰值 {peak}，共 {limit}", mean: "平均 {mean}",
    refused_once: "拒绝 1 次", refused_times: "拒绝 {count} 次", no_history: "这段时间尚无数据。",
    when_full: "席位用尽时：{what}", reject: "拒绝", view: "以只读方式打开", observe: "放行并计数",
    shares: "与 {names} 共用席位",
    seats_short: "{kind}：已占用 {percent}%", seats_full: "{kind}：没有空闲席位",
    licence_ends: "许可证将在 {days}后到期。", in_days: "{count} 天", in_day: "1 天", licence_ends_today: "许可证今天到期。",
    licence_expired: "许可证已过期：新用户无法编辑。",
    licence_not_started: "许可证尚未生效：无法编辑。",
    licence_revoked: "许可证已被撤销：新用户无法编辑。",
    licence_missing: "许可证不存在：无法编辑。",
    document_server_down: "文档服务器 {subject} 没有应答。",
    store_failed_notice: "存储故障：{subject}。新用户会被拒绝。",
    counted_alone: "Redis 离线：本网关自行计数并放行，可能超出许可证的数量。",
    seats_overshoot: "Redis 离线之后，占用的席位比许可证多 {subject} 个。",
    away: "离线", alone: "仅由本网关计数",
    reload_failed: "上次重新加载被拒绝，仍使用之前的配置。原因见日志。",
    draining_notice: "网关即将停止，不再接受新连接。",
    clock_set_back: "{subject}",
    admitted: "已放行", rejected: "被拒绝", view_only: "以只读方式打开", observed: "本应被拒绝",
    refused_as: "{class}{outcome}",
    times: "{count} 次",
    why_connections: "许可证的编辑席位已全部占用。",
    why_connections_view: "许可证的实时查看席位已全部占用。",
    why_users: "已计入的编辑用户达到许可证的数量。",
    why_users_view: "已计入的实时查看用户达到许可证的数量。",
    why_licence_expired: "许可证已过期。",
    why_licence_not_started: "许可证尚未生效。",
    why_licence_revoked: "许可证已被撤销。",
    why_licence_missing: "该租户没有许可证。",
    why_token_invalid: "令牌缺失或错误：两端的密钥是否一致？",
    why_token_expired: "令牌已过期：时钟是否准确？",
    why_malformed: "消息无法读取。",
    why_store_unavailable: "存储无法记录新用户。",
  },
};

let words = WORDS.en;

// The text of a key, with values put in; a key that is not known is shown as it is.
function say(key, values = {}) {
  const text = Object.hasOwn(words, key) ? words[key] : String(key);
  return text.replace(/\{(\w+)\}/g, (whole, name) =>
    Object.hasOwn(values, name) ? String(values[name]) : whole);
}

function number(value) {
  return new Intl.NumberFormat(words.locale).format(value);
}

// A span of time in the two greatest units that matter: "3 d 4 h", "12 s".
function span(seconds) {
  const units = words.locale === "zh-CN"
    ? [["天", 86400], ["小时", 3600], ["分钟", 60], ["秒", 1]]
    : [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.floor(seconds));
  const first = units.findIndex(([, length]) => left >= length);
  if (first < 0) return `0 ${units[units.length - 1][0]}`;
  return units.slice(first, first + (units[first][1] > 60 ? 2 : 1)).map(([name, length]) => {
    const count = Math.floor(left / length);
    left -= count * length;
    return count > 0 ? `${count} ${name}` : "";
  }).filter(Boolean).join(" ");
}

function ago(from, now) {
  const seconds = (now - from) / 1000;
  return seconds < 2 ? say("just_now") : say("ago", { time: span(seconds) });
}

function date(text) {
  return new Intl.DateTimeFormat(words.locale, { day: "numeric", month: "short", year: "numeric" })
    .format(new Date(text));
}

function clock(time, withSeconds = true) {
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (withSeconds) parts.second = "2-digit";
  return new Intl.DateTimeFormat(words.locale, parts).format(new Date(time));
}
