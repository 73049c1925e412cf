//! The administration: the command line beside a gateway that runs, and its socket in the raw.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::gateway::{Gateway, seatgate};

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout.clone()).expect("UTF-8"),
            err: String::from_utf8(output.stderr.clone()).expect("UTF-8"),
        }
    }

    /// It was a success.
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// What `--json` wrote.
    pub fn json(self) -> Value {
        let said = self.good();
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
    }

    /// It failed so, and its error holds all of this.
    pub fn failed(self, code: i32, told: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for part in told {
            assert!(self.err.contains(part), "{part} is not in: {}", self.err);
        }
        self
    }
}

/// Runs a command in the folder of a gateway, by its configuration.
pub async fn run(gateway: &Gateway, arguments: &[&str]) -> Said {
    let folder = gateway.folder().to_owned();
    let mut all = vec!["--config".to_owned(), "seatgate.toml".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let run = move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Said::of(&seatgate(&all, &folder))
    };
    tokio::task::spawn_blocking(run).await.expect("the command ends")
}

pub fn socket(gateway: &Gateway) -> PathBuf {
    gateway.folder().join("state").join("admin.sock")
}

/// Sends a request with its headers as they are; status and body come back.
pub async fn ask(gateway: &Gateway, method: &str, target: &str, body: &str) -> (u16, Value) {
    ask_with(gateway, method, target, "application/json", body).await
}

pub async fn ask_with(
    gateway: &Gateway,
    method: &str,
    target: &str,
    media_type: &str,
    body: &str,
) -> (u16, Value) {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: {media_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let socket = socket(gateway);
    let exchange = move || {
        let mut stream = UnixStream::connect(socket).expect("the socket is there");
        // A body that is refused may not be read to its end.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("UTF-8")
    };
    let answer = tokio::task::spawn_blocking(exchange).await.expect("the exchange ends");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}
