//! The status page in a real browser: what it shows, that it stays up to date, and that it is safe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::json;
use support::browser::{self, Browser};
use support::{Editor, Gateway, LicenceFile, Open, Poller, Setup, StandIn};

/// An instant so many days from now, as a licence file has it.
fn in_days(days: i64) -> String {
    let then = Timestamp::now() + SignedDuration::from_hours(24 * days + 1);
    Timestamp::from_second(then.as_second()).unwrap().to_string()
}

fn address(gateway: &Gateway) -> String {
    format!("http://{}/", gateway.ops)
}

/// A site with a bit of everything: customers of every kind, most of them at work.
struct Scene {
    gateway: Gateway,
    _server: StandIn,
    _editors: Vec<Editor>,
    _poller: Poller,
}

const PEOPLE: [&str; 24] = [
    "ada", "bela", "chen", "dora", "emil", "fatima", "goran", "hana", "igor", "jun", "katya",
    "liam", "mei", "nils", "olga", "pavel", "qing", "rosa", "sven", "tara", "umar", "vera", "wen",
    "yusuf",
];

/// Writes into the store what a year of work would have left there: 31 days by hours and 13 months.
fn remember_a_year(gateway: &Gateway) {
    let mut connection = Connection::open(gateway.folder().join("state/seatgate.db")).unwrap();
    let transaction = connection.transaction().unwrap();
    let now = Timestamp::now().as_second();
    let this_hour = now - now.rem_euclid(3_600);
    let tell = |span: i64,
                start: i64,
                length: i64,
                (tenant, licence): (&str, &str),
                (kind, limit, busy): (&str, f64, f64)| {
        let (peak, refusals) = (busy.min(1.0) * limit, ((busy - 1.0).max(0.0) * limit).round());
        let ms = length * 1000;
        let counts = json!({
            "sums": {
                "ms": ms, (format!("{kind}.ms")): (0.8 * peak * ms as f64) as u64,
                "no.connections": refusals as u64,
            },
            "peaks": { kind: peak.round() as u64, (format!("{kind}.limit")): limit as u64 },
        });
        let row = rusqlite::params![span, start, tenant, licence, counts.to_string()];
        transaction.execute("INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?)", row).unwrap();
    };
    for (tenant, kind, limit, fullness) in [
        (("default", "licence-of-the-house"), "ec", 10.0, 0.4),
        (("acme", "acme-2026"), "ec", 20.0, 0.94),
        (("globex", "globex-eu"), "eu", 25.0, 0.5),
        (("initech", "initech-7"), "ec", 4.0, 1.35),
        (("umbrella", "umbrella-trial"), "ec", 12.0, 0.6),
        (("hooli", "hooli-25"), "ec", 30.0, 0.72),
    ] {
        for hour in 1..31 * 24 {
            if tenant.0 == "hooli" && hour < 3 * 24 {
                continue;
            }
            let start = this_hour - hour * 3_600;
            let (day, of_day) = (start.div_euclid(86_400), start.rem_euclid(86_400) / 3_600);
            // People come at seven, eat at noon and leave at six; weekends are quiet.
            let shape = [
                0, 0, 0, 0, 0, 2, 12, 45, 82, 97, 100, 88, 66, 84, 98, 94, 78, 50, 26, 16, 11, 7,
                4, 1,
            ];
            let weekday = if (day + 3) % 7 < 5 { 1.0 } else { 0.22 };
            let odd = 0.86 + 0.14 * ((day * 7 + of_day * 13) % 11) as f64 / 10.0;
            let busy = f64::from(shape[of_day as usize]) / 100.0 * weekday * odd * fullness;
            // Who was counted stays counted.
            let busy = if kind == "eu" {
                fullness * (0.35 + 0.4 * ((31 * 24 - hour) as f64 / 744.0))
            } else {
                busy
            };
            tell(0, start, 3_600, tenant, (kind, limit, busy));
        }
        let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        for back in 1..13 {
            let first = today.first_of_month() - jiff::Span::new().months(back);
            let start = first.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
            let grown = 1.0 - 0.045 * back as f64 + 0.05 * ((back * 5) % 3) as f64;
            tell(
                1,
                start.timestamp().as_second(),
                30 * 86_400,
                tenant,
                (kind, limit, fullness * grown),
            );
        }
    }
    transaction.commit().unwrap();
}

async fn scene(show_people: bool) -> Scene {
    let server = StandIn::start().await;
    let mut setup = Setup::before(server.addr)
        .set("enforcement.reconnect_grace", "10m")
        .set("ops.show_people", show_people)
        .default_licence(|id| LicenceFile::connections(id, 10, 0).with("issued_to", "The house"));
    let acme = LicenceFile::connections("acme-2026", 20, 50).at("end", &in_days(212));
    let globex = LicenceFile::users("globex-eu", 25, 40).with("users_expire", 30);
    let initech = LicenceFile::connections("initech-7", 4, 6).at("end", &in_days(96));
    let umbrella = LicenceFile::connections("umbrella-trial", 12, 8).with("trial", true);
    let hooli = LicenceFile::connections("hooli-25", 30, 30).at("end", &in_days(-3));
    for (name, id, issued_to, licence) in [
        ("acme", "acme-2026", "Acme Ltd", acme),
        ("globex", "globex-eu", "Globex GmbH", globex.at("end", &in_days(19))),
        ("initech", "initech-7", "Initech 软件公司", initech),
        ("umbrella", "umbrella-trial", "Umbrella", umbrella.at("end", &in_days(44))),
        ("hooli", "hooli-25", "Hooli Inc.", hooli),
    ] {
        let licence = licence.with("issued_to", issued_to);
        setup = setup.licence(licence).tenant(name, &[&format!("{name}.example")], id);
    }
    let mut gateway = setup.start().await;
    // The past is what the store tells at the start.
    assert!(gateway.stop().await.success());
    remember_a_year(&gateway);
    gateway.start_again().await;
    let mut editors = Vec::new();
    let documents = ["annual-report", "budget-2027", "minutes-47", "offer-118"];
    let opens = |tenant: &'static str, count: usize, make: fn(&str, &str) -> Open| {
        let opens = PEOPLE.iter().cycle().take(count).enumerate();
        opens.map(move |(place, user)| (tenant, place, make(documents[place % 4], user)))
    };
    let all = opens("acme", 18, Open::editor)
        .chain(opens("acme", 11, Open::live_viewer))
        .chain(opens("globex", 9, Open::editor))
        .chain(opens("globex", 5, Open::live_viewer))
        .chain(opens("initech", 4, Open::editor))
        .chain(opens("initech", 2, Open::live_viewer))
        .chain(opens("umbrella", 5, Open::editor))
        .chain(opens("acme", 7, Open::viewer));
    for (tenant, place, open) in all {
        let dial = gateway.dial(open.document()).host(&format!("{tenant}.example"));
        let from = format!("10.1.{}.{}", tenant.len(), 10 + place);
        let (mut editor, opened) = dial.header("X-Forwarded-For", &from).open(&open).await;
        assert!(opened.is_admitted(), "{tenant} {place}: {opened:?}");
        // Two have bad luck with their network.
        if tenant == "acme" && (16..18).contains(&place) && open.message["mode"] == "edit" {
            editor.reset();
            continue;
        }
        editor.answers_pings = true;
        editors.push(editor);
    }
    for (tenant, user, times) in [("hooli", "gavin", 1), ("initech", "milton", 3)] {
        for _ in 0..times {
            let dial = gateway.dial("memo").host(&format!("{tenant}.example"));
            dial.refuse(&Open::editor("memo", user)).await;
        }
    }
    let (poller, opened) = Poller::open(gateway.addr, &Open::editor("notes", "zoe")).await;
    assert!(opened.is_admitted());
    Scene { gateway, _server: server, _editors: editors, _poller: poller }
}

/// Where pictures go: `SEATGATE_PICTURES`, if somebody wants them.
async fn picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("SEATGATE_PICTURES") {
        browser.picture(&PathBuf::from(folder).join(name)).await;
    }
}

async fn fits_its_width(browser: &mut Browser) {
    let width = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]";
    let found = browser.value(width).await;
    assert!(found[0].as_f64() <= found[1].as_f64(), "it scrolls to the side: {found}");
}

/// A page that is as it should be: nothing to complain of, and nobody else was asked.
fn assert_good(browser: &Browser, gateway: &Gateway) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let requests = browser.requests();
    assert!(requests.len() >= 2, "{requests:?}");
    for request in requests {
        assert!(request.starts_with(&address(gateway)), "{request}");
    }
}

#[tokio::test]
async fn it_shows_what_the_gateway_knows() {
    if !browser::is_there() {
        println!("skipped: there is no Chromium");
        return;
    }
    let scene = scene(true).await;
    let gateway = &scene.gateway;
    let mut browser = Browser::start("en-GB").await;
    browser.size(1280, 1236, 1.5).await;
    browser
        .prefer(&[("prefers-color-scheme", "light"), ("prefers-reduced-motion", "reduce")])
        .await;
    browser.open(&address(gateway)).await;
    browser.until("document.querySelectorAll('.tenant').length === 6").await;

    let shown = browser.text("main").await;
    for part in [
        "things need attention",
        "acme",
        "Initech 软件公司 · Licence initech-7",
        "The licence has expired",
        "The licence ends in 19 days.",
        "no seat is free",
        "16 working",
        "2 held",
        "2 free",
        "7 viewers without a seat",
        "counts people",
        "All editor seats of the licence were taken.",
        "3 times",
        "milton",
        "10.1.4.10",
        "polling",
        "held for a reconnect",
        &scene._server.addr.to_string(),
    ] {
        assert!(shown.contains(part), "{part} is not shown: {shown}");
    }
    // Who needs attention comes first.
    assert!(shown.find("Hooli Inc.") < shown.find("The house"), "{shown}");
    fits_its_width(&mut browser).await;

    // The charts tell the past, in the range that is asked for, to the mouse and to the keyboard.
    let acme = "[...document.querySelectorAll('.tenant')].find(card =>
        card.querySelector('h3').textContent === 'acme')";
    let readout = format!("{acme}.querySelector('.chart-readout').textContent");
    browser.until(&format!("{readout}.startsWith('Editors, last 24 hours · peak')")).await;
    for (range, told) in [("days", "Editors, last 31 days · peak"), ("months", "last 13 months")] {
        browser.click(&format!("[data-range={range}]")).await;
        browser.until(&format!("{readout}.includes('{told}')")).await;
        let line = format!("{acme}.querySelector('.chart-line').getAttribute('d').length");
        assert!(browser.value(&line).await.as_u64() > Some(100), "{range}");
        picture(&mut browser, &format!("{range}.png")).await;
    }
    browser.click("[data-range=days]").await;
    browser.until(&format!("{readout}.includes('last 31 days')")).await;
    browser.value(&format!("{acme}.querySelector('.chart-plot').focus()")).await;
    browser.press("Home").await;
    let first = browser.value(&readout).await;
    assert!(first.as_str().unwrap().contains(" – "), "a piece of time: {first}");
    browser.press("ArrowRight").await;
    assert_ne!(browser.value(&readout).await, first);
    browser.press("Escape").await;
    // Each gauge chooses what its chart shows.
    browser.value(&format!("{acme}.querySelectorAll('.gauge')[1].click()")).await;
    assert!(
        browser.value(&readout).await.as_str().unwrap().starts_with("Live viewers, last 31 days")
    );
    browser.value(&format!("{acme}.querySelectorAll('.gauge')[0].click()")).await;
    browser.value("(document.activeElement.blur(), scrollTo(0, 0))").await;
    picture(&mut browser, "light.png").await;

    // It is live: an open is seen without a reload.
    assert_eq!(browser.value("window.marker = 1").await, json!(1));
    let _editor = gateway.admit(&Open::editor("live", "somebody-new")).await;
    browser.until("document.querySelector('#people').innerText.includes('somebody-new')").await;
    assert_eq!(browser.value("window.marker").await, json!(1));

    browser.click("#theme").await;
    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.value(ground).await, json!("rgb(17, 22, 20)"));
    picture(&mut browser, "dark.png").await;
    browser.click("#language").await;
    assert!(browser.text("main").await.contains("没有空闲席位"));
    assert_eq!(browser.value("document.documentElement.lang").await, json!("zh-CN"));
    picture(&mut browser, "chinese.png").await;
    // Both are remembered.
    browser.open(&address(gateway)).await;
    browser.until("document.querySelectorAll('.tenant').length === 6").await;
    assert_eq!(browser.value(ground).await, json!("rgb(17, 22, 20)"));
    assert_eq!(browser.text("#tenants-title").await, "租户");

    for width in [360, 414, 700, 900] {
        browser.size(width, 800, 2.0).await;
        fits_its_width(&mut browser).await;
    }
    browser.size(390, 844, 2.0).await;
    picture(&mut browser, "phone.png").await;
    assert_good(&browser, gateway);
}

#[tokio::test]
async fn hostile_names_stay_text() {
    if !browser::is_there() {
        println!("skipped: there is no Chromium");
        return;
    }
    let server = StandIn::start().await;
    let attack = "<img src=x onerror=alert(1)><script>alert(2)</script>{count}__proto__";
    let gateway = Setup::before(server.addr)
        .set("ops.show_people", true)
        .default_licence(|id| LicenceFile::connections(id, 2, 0).with("issued_to", attack))
        .start()
        .await;
    let dial = gateway.dial("d");
    let _one = dial.admit(&Open::editor("\"><svg onload=alert(3)>", attack)).await;
    let _two = dial.admit(&Open::editor("constructor", "__proto__")).await;
    dial.refuse(&Open::editor("toString", "javascript:alert(4)")).await;
    let mut browser = Browser::start("fr-FR").await;
    browser.open(&address(&gateway)).await;
    browser.until("document.querySelectorAll('#people tr').length === 2").await;
    let shown = browser.text("main").await;
    assert_eq!(shown.matches(attack).count(), 2, "{shown}");
    assert!(shown.contains("\"><svg onload=alert(3)>") && shown.contains("javascript:alert(4)"));
    let foreign = "document.querySelectorAll('main img, main script, main a').length";
    assert_eq!(browser.value(foreign).await, json!(0));
    assert!(browser.heard("Page.javascriptDialogOpening").is_empty());
    assert_good(&browser, &gateway);

    // And were there a hole, the policy would stand behind: nothing that is not the page's own runs.
    let planted = "new Promise(done => {
        document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
        const script = document.createElement('script');
        try { script.text = 'window.broken = true'; document.body.append(script); }
        catch { done('thrown'); }
    })";
    let refused = browser.value(planted).await;
    assert_ne!(refused, json!(null));
    assert_eq!(browser.value("window.broken === undefined").await, json!(true));
    let markup = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; }
        catch (error) { return error.name; } })()";
    assert_eq!(browser.value(markup).await, json!("TypeError"));
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_told() {
    if !browser::is_there() {
        println!("skipped: there is no Chromium");
        return;
    }
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let mut browser = Browser::start("zh-CN").await;
    browser.open(&address(&gateway)).await;
    browser.until("document.querySelectorAll('.tenant').length === 1").await;
    // By the browser's language.
    assert_eq!(browser.text("h1").await, "一切正常。");
    assert_eq!(browser.value("document.querySelector('#stale').hidden").await, json!(true));
    gateway.crash();
    browser.until("!document.querySelector('#stale').hidden").await;
    assert!(browser.text("#stale").await.contains("网关没有应答"));
    assert_eq!(browser.text("h1").await, "一切正常。", "what was known stays");
    gateway.start_again().await;
    browser.click("#retry").await;
    browser.until("document.querySelector('#stale').hidden").await;
}
