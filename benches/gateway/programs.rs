//! The programs that are measured, and their configuration.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::child::Child;
use crate::machine::file_limit;
use crate::peers::{Setting, free_address, subfolder};
use crate::{Result, prepared};

/// The paths that Seatgate answers by itself.
const COMMAND: &str = "/coauthoring/CommandService.ashx";
const VALIDATE: &str = "/licences/api/validate";

/// The longest word of a configuration that nginx reads is 4 KiB.
const NGINX_PIECE: usize = 3_500;

/// Above this nginx answers from a file: as words of its configuration it would be thousands.
const NGINX_RETURNS: usize = 256 * 1024;

/// HAProxy's buffer, less what it keeps for headers.
const HAPROXY_RETURNS: usize = 14 * 1024;

/// Where a program is, the administrator's folders included.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

pub(crate) fn bare(listen: SocketAddr, setting: &Setting) -> Result<Child> {
    let arguments =
        [listen.to_string(), setting.upstream()?.to_string(), setting.threads.to_string()];
    Child::start_role("bare", &arguments.each_ref().map(String::as_str))
}

pub(crate) fn seatgate(
    listen: SocketAddr,
    setting: &Setting,
    folder: &Path,
    errors: &Path,
) -> Result<Child> {
    let (upstream, threads) = (setting.upstream()?, setting.threads);
    let ops = free_address();
    let state = subfolder(folder, "state")?;
    if setting.users > 0 {
        prepared::fill(&state, setting.users)?;
    }
    let config = folder.join("seatgate.toml");
    fs::write(
        &config,
        format!(
            r#"
[server]
listen = ["{listen}"]
workers = {threads}
state_directory = "{}"
[ops]
listen = "{ops}"
[document_server]
addresses = ["{upstream}"]
[log]
level = "error"
access = false
[licences]
files = ["licences.toml"]
default = "bench"
{}"#,
            state.display(),
            prepared::tenants()
        ),
    )?;
    fs::write(folder.join("licences.toml"), prepared::licences())?;
    let arguments = [OsStr::new("run"), OsStr::new("--config"), config.as_os_str()];
    Child::start_program(env!("CARGO_BIN_EXE_seatgate"), &arguments, folder, errors, false)
}

/// As it is, but for what the workloads need: WebSockets, pooled upstream connections, enough of
/// them.
pub(crate) fn nginx(
    listen: SocketAddr,
    setting: &Setting,
    folder: &Path,
    errors: &Path,
) -> Result<Child> {
    let (upstream, threads) = (setting.upstream()?, setting.threads);
    let directory = folder.display();
    let connections = file_limit().saturating_sub(100).min(65_536);
    let mut paths = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(paths, "{kind}_temp_path {directory}/{kind};")?;
    }
    let (default_answers, canned) = nginx_answers(setting, listen, folder)?;
    let config = folder.join("nginx.conf");
    fs::write(
        &config,
        format!(
            r#"
daemon off;
worker_processes {threads};
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  {paths}
  keepalive_requests 1000000000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream document_server {{
    server {upstream};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  sendfile on;
  open_file_cache max=100;
  client_max_body_size 0;
  server_names_hash_bucket_size 128;
  {canned}
  server {{
    listen {listen} backlog=4096 default_server;
    {default_answers}
    location / {{
      proxy_pass http://document_server;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout 600s;
      proxy_send_timeout 600s;
    }}
  }}
}}
"#
        ),
    )?;
    let program = find("nginx").ok_or("nginx is not installed")?;
    let arguments = ["-p", "-c", "-e"].map(OsStr::new);
    let [prefix, file, log] = arguments;
    let arguments =
        [prefix, folder.as_os_str(), file, config.as_os_str(), log, OsStr::new("stderr")];
    Child::start_program(program, &arguments, folder, errors, true)
}

/// What nginx answers by itself: for all hosts, and servers for the tenants with users.
fn nginx_answers(setting: &Setting, listen: SocketAddr, folder: &Path) -> Result<(String, String)> {
    let (mut default, mut tenants) = (String::new(), String::new());
    let validation = std::str::from_utf8(&setting.canned.validation)?;
    if !validation.is_empty() {
        nginx_return(&mut default, VALIDATE, validation)?;
    }
    for (users, body) in &setting.canned.licenses {
        let mut location = String::new();
        if body.len() <= NGINX_RETURNS {
            nginx_return(&mut location, COMMAND, std::str::from_utf8(body)?)?;
        } else {
            let file = subfolder(folder, "answers")?.join(format!("{users}.json"));
            fs::write(&file, body)?;
            // A file is for GET only.
            writeln!(
                location,
                "error_page 405 =200 /{users}.json;\n\
                 location = {COMMAND} {{ return 405; }}\n\
                 location = /{users}.json {{\n\
                   default_type application/json; root {}/answers;\n\
                 }}",
                folder.display()
            )?;
        }
        if *users == 0 {
            default.push_str(&location);
        } else {
            let host = prepared::host(*users);
            writeln!(tenants, "server {{ listen {listen}; server_name {host};\n{location}}}")?;
        }
    }
    Ok((default, tenants))
}

/// How many pieces a body of so many bytes has in nginx's configuration.
pub(crate) fn nginx_pieces(length: Option<usize>) -> usize {
    length.unwrap_or_default().div_ceil(NGINX_PIECE)
}

/// `return 200` of a body without `'`, `\\` and `$`, which JSON of the bench has none of.
fn nginx_return(out: &mut String, path: &str, body: &str) -> Result<()> {
    if body.contains(['\'', '\\', '$']) {
        return Err("an answer that nginx would read in another way".into());
    }
    writeln!(out, "location = {path} {{\ndefault_type application/json;")?;
    let (mut rest, mut pieces) = (body, Vec::new());
    while !rest.is_empty() {
        let mut end = rest.len().min(NGINX_PIECE);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, more) = rest.split_at(end);
        pieces.push(piece);
        rest = more;
    }
    if let [whole] = pieces.as_slice() {
        writeln!(out, "return 200 '{whole}';\n}}")?;
        return Ok(());
    }
    let mut names = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        writeln!(out, "set $piece{at} '{piece}';")?;
        write!(names, "${{piece{at}}}")?;
    }
    writeln!(out, "return 200 '{names}';\n}}")?;
    Ok(())
}

pub(crate) fn haproxy(
    listen: SocketAddr,
    setting: &Setting,
    folder: &Path,
    errors: &Path,
) -> Result<Child> {
    let (upstream, threads) = (setting.upstream()?, setting.threads);
    // Each connection has two ends.
    let connections = (file_limit().saturating_sub(200) / 2).min(65_536);
    let canned = haproxy_answers(setting, folder)?;
    let config = folder.join("haproxy.cfg");
    fs::write(
        &config,
        format!(
            r#"
global
  nbthread {threads}
  maxconn {connections}
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 3600s
frontend public
  bind {listen} backlog 4096
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Forwarded-Proto http
  option forwardfor
  {canned}
  default_backend document_server
backend document_server
  server one {upstream}
"#
        ),
    )?;
    let program = find("haproxy").ok_or("haproxy is not installed")?;
    let arguments = [OsStr::new("-db"), OsStr::new("-f"), config.as_os_str()];
    Child::start_program(program, &arguments, folder, errors, false)
}

/// What HAProxy answers by itself: what its buffer has room for.
fn haproxy_answers(setting: &Setting, folder: &Path) -> Result<String> {
    let mut rules = String::new();
    let license = setting.canned.licenses.iter().find(|(users, _)| *users == 0);
    let license = license.map(|(_, body)| (COMMAND, "license.json", body));
    let validation = Some((VALIDATE, "validation.json", &setting.canned.validation));
    for (path, name, body) in license.into_iter().chain(validation) {
        if body.is_empty() || body.len() > HAPROXY_RETURNS {
            continue;
        }
        let file = folder.join(name);
        fs::write(&file, body)?;
        writeln!(
            rules,
            "http-request return status 200 content-type application/json file {} if {{ path {path} }}",
            file.display()
        )?;
    }
    Ok(rules)
}
