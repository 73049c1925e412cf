//! The proxies of docs/proxies.md, as they are printed there but for names, ports and certificates,
//! in front of the gateway: WebSocket, polling, and whose address the document server is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::gateway::free_address;
use support::{Call, Gateway, LicenceFile, Open, Poller, Setup, StandIn, eventually};

/// The block of a language in docs/proxies.md.
fn printed(language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies.md");
    let page = fs::read_to_string(page).unwrap();
    let block = page.split(&format!("```{language}\n")).nth(1).expect(language);
    block.split("```").next().unwrap().to_owned()
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in: {text}");
    text.replace(from, to)
}

/// A proxy; killed when dropped.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that is to be there; without it the test says that it was skipped.
fn start(command: &mut Command) -> Option<Proxy> {
    match command.stdin(Stdio::null()).spawn() {
        Ok(child) => Some(Proxy(child)),
        Err(error) => {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{command:?} cannot be run: {error}");
            println!("skipped: {command:?} cannot be run: {error}");
            None
        }
    }
}

async fn ready(proxy: SocketAddr) {
    eventually("the proxy answers", async || {
        let answer = Call::get("/healthcheck").try_send(proxy).await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}

async fn gateway(server: &StandIn) -> Gateway {
    Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 2, 2))
        .start()
        .await
}

/// Everything that has to work through a proxy.
async fn works(proxy: SocketAddr, gateway: &Gateway, server: &StandIn) {
    // A client that claims to be somebody else is told by the address that the proxy sees.
    let call = Call::get("/whoami").from("127.0.0.9").header("X-Forwarded-For", "10.6.6.6");
    assert_eq!(call.header("Host", "docs.example.com").send(proxy).await.status, 200);
    let seen = server.requests();
    let seen = seen.iter().rev().find(|request| request.target == "/whoami").unwrap();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.9"]);
    assert_eq!(seen.all("host"), ["docs.example.com"]);
    assert_eq!(seen.all("x-forwarded-proto").len(), 1);

    // WebSocket: two seats, and no third.
    let dial = |document: &str| support::editor::Dial::new(proxy, document);
    let one = dial("d").admit(&Open::editor("d", "one")).await;
    // Polling takes the other one.
    let (poller, opened) = Poller::open(proxy, &Open::editor("d", "two")).await;
    assert!(opened.is_admitted());
    dial("d").refuse(&Open::editor("d", "three")).await;
    gateway.await_seats("editor_connections", 2.0).await;
    one.goodbye().await;
    gateway.await_seats("editor_connections", 1.0).await;
    drop(poller);
}

#[tokio::test]
async fn nginx_as_printed() {
    let server = StandIn::start().await;
    let gateway = gateway(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    let listen = free_address();
    let block = printed("nginx");
    let block = replace(&block, "127.0.0.1:8080", &gateway.addr.to_string());
    let block = replace(&block, "listen 443 ssl;", &format!("listen {listen};"));
    let block: String = block
        .lines()
        .filter(|line| !line.trim().starts_with("ssl_certificate"))
        .fold(String::new(), |text, line| text + line + "\n");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .collect();
    let config = format!(
        "pid {here}/pid;\nerror_log {here}/error.log;\ndaemon off;\nmaster_process off;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{block}}}\n"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    let nginx = |test: bool| {
        let mut command = Command::new("nginx");
        command.arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(&file);
        if test {
            command.arg("-t");
        }
        command
    };
    let Some(mut judged) = start(&mut nginx(true)) else { return };
    let status = judged.0.wait().unwrap();
    assert!(status.success(), "nginx -t");
    let _proxy = start(&mut nginx(false)).unwrap();
    ready(listen).await;
    works(listen, &gateway, &server).await;
}

#[tokio::test]
async fn caddy_as_printed() {
    let server = StandIn::start().await;
    let gateway = gateway(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let listen = free_address();
    let block = printed("caddyfile");
    let block = replace(&block, "127.0.0.1:8080", &gateway.addr.to_string());
    let block = replace(
        &block,
        "docs.example.com {",
        &format!("http://:{} {{\n\tbind 127.0.0.1", listen.port()),
    );
    let file = folder.path().join("Caddyfile");
    fs::write(&file, format!("{{\n\tadmin off\n}}\n{block}")).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path());
    command.stderr(Stdio::null());
    let Some(_proxy) = start(&mut command) else { return };
    ready(listen).await;
    works(listen, &gateway, &server).await;
}
