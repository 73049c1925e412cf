//! What stands for the document server: as little HTTP and WebSocket as the clients need, fast.
//!
//! `GET /bytes/N` answers N bytes. A WebSocket below `/doc/` speaks as the co-authoring service
//! does when it opens a session, and polling there does so, too ([`polled`]); every other WebSocket
//! answers the same messages, and says nothing by itself.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::frames::{CLOSE, Frames, TEXT, server_close, server_text};
use crate::{Result, load, polled};

/// The key that every client of the bench sends, and the answer to it (RFC 6455, section 1.3).
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How messages that carry changes begin. The last of them is acknowledged.
const CHANGES: &str = r#"42["message",{"type":"saveChanges","changes":""#;
const MORE: &str = r#"","startSaveChanges":true,"endSaveChanges":false}]"#;
const LAST: &str = r#"","startSaveChanges":true,"endSaveChanges":true}]"#;
const SAVED: &[u8] =
    br#"42["message",{"type":"unSaveLock","index":17,"syncChangesIndex":17,"time":1795307207705}]"#;

/// The question whether somebody else saves, and its answer.
pub(crate) const IS_SAVE_LOCK: &str =
    r#"42["message",{"type":"isSaveLock","syncChangesIndex":17}]"#;
const SAVE_LOCK: &[u8] = br#"42["message",{"type":"saveLock","saveLock":false}]"#;

/// A message that is answered with [`BATCH`] messages of [`LARGE`] bytes.
pub(crate) const STREAM: &str = r#"42["message",{"type":"getMessages"}]"#;

/// Messages that a [`STREAM`] message asks for.
pub(crate) const BATCH: usize = 32;

/// Size of a large message in bytes.
pub(crate) const LARGE: usize = 16 * 1024;

/// What an upload reads at a time.
const BODY_ROOM: usize = 256 * 1024;

const OPEN: &str = r#"0{"sid":"gSGQ0a1b2c3d4e5f","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000000}"#;
pub(crate) const LICENSE: &str = r#"42["message",{"type":"license","license":{"type":3,"light":false,"mode":0,"rights":1,"buildVersion":"9.3.0","buildNumber":138,"protectionSupport":true,"isAnonymousSupport":true,"liveViewerSupport":true,"branding":false,"customization":false,"advancedApi":false}}]"#;

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// Serves until the process ends, after telling its address.
pub(crate) fn serve(threads: usize) -> Result<()> {
    load::runtime(threads)?.block_on(async {
        let listener = tokio::net::TcpSocket::new_v4()?;
        listener.set_reuseaddr(true)?;
        listener.bind(([127, 0, 0, 1], 0).into())?;
        let listener = listener.listen(4096)?;
        println!("{}", listener.local_addr()?);
        accept(&listener).await
    })
}

async fn accept(listener: &TcpListener) -> Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let _ = serve_http(stream).await;
                });
            }
            Err(error) => {
                eprintln!("the upstream cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// A request's head, as far as it matters.
struct Head {
    length: usize,
    target: String,
    is_post: bool,
    is_websocket: bool,
    body_length: usize,
}

async fn serve_http(mut stream: TcpStream) -> Result<()> {
    let mut input = Frames::new();
    let mut answers: HashMap<usize, Vec<u8>> = HashMap::new();
    loop {
        let Some(head) = parse_head(input.unread())? else {
            if input.fill(&mut stream).await? == 0 {
                return Ok(());
            }
            continue;
        };
        input.skip(head.length);
        if head.is_websocket {
            return serve_websocket(stream, input, head.target.starts_with("/doc/")).await;
        }
        let mut body = Vec::new();
        let mut body_left = head.body_length;
        if body_left > BODY_ROOM / 4 {
            input.reserve(BODY_ROOM);
        }
        let is_polling = polled::is_polling(&head.target);
        while body_left > 0 {
            let here = input.unread().len().min(body_left);
            if is_polling {
                body.extend_from_slice(input.unread().get(..here).unwrap_or_default());
            }
            input.skip(here);
            body_left -= here;
            if body_left > 0 && input.fill(&mut stream).await? == 0 {
                return Ok(());
            }
        }
        if is_polling {
            let answer = polled::answer(&head.target, head.is_post, &body).await?;
            stream.write_all(&http_answer("text/plain; charset=UTF-8", &answer)).await?;
            continue;
        }
        match head.target.strip_prefix("/bytes/").and_then(|size| size.parse().ok()) {
            Some(size) => {
                let answer = answers
                    .entry(size)
                    .or_insert_with(|| http_answer("application/octet-stream", &vec![b'x'; size]));
                stream.write_all(answer).await?;
            }
            None if head.target == "/healthcheck" => {
                stream.write_all(&http_answer("text/plain", b"true")).await?;
            }
            // The gateway asks for the build.
            None => stream.write_all(&http_answer("application/json", br#"{"error":1}"#)).await?,
        }
    }
}

fn http_answer(content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = Vec::with_capacity(body.len() + 128);
    let _ = write!(
        answer,
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\nConnection: keep-alive\r\n\r\n",
        body.len()
    );
    answer.extend_from_slice(body);
    answer
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    let mut lines = text.split("\r\n");
    let request = lines.next().unwrap_or_default();
    let target = request.split(' ').nth(1).ok_or("a request without a target")?;
    let mut head = Head {
        length: end + 4,
        target: target.to_owned(),
        is_post: request.starts_with("POST "),
        is_websocket: false,
        body_length: 0,
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("upgrade") {
            head.is_websocket = value.trim().eq_ignore_ascii_case("websocket");
        } else if name.eq_ignore_ascii_case("content-length") {
            head.body_length = value.trim().parse()?;
        }
    }
    Ok(Some(head))
}

async fn serve_websocket(
    mut stream: TcpStream,
    mut input: Frames,
    coauthoring: bool,
) -> Result<()> {
    let mut out = Vec::with_capacity(2048);
    write!(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )?;
    if coauthoring {
        server_text(&mut out, OPEN.as_bytes());
    }
    stream.write_all(&out).await?;
    loop {
        // An idle session keeps nothing, or the upstream would outgrow what is measured.
        out = Vec::new();
        while let Some(frame) = input.take() {
            let payload = input.payload(&frame);
            match frame.opcode {
                CLOSE => {
                    server_close(&mut out);
                    stream.write_all(&out).await?;
                    stream.shutdown().await?;
                    return Ok(());
                }
                TEXT => answer_message(payload, &mut |text| server_text(&mut out, text)),
                _ => {}
            }
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
        }
        if input.fill(&mut stream).await? == 0 {
            return Ok(());
        }
    }
}

/// The order of a session's beginning: connect, its acknowledgement, license, auth, its reply.
pub(crate) fn answer_message(text: &[u8], say: &mut impl FnMut(&[u8])) {
    if text.starts_with(b"40") {
        let id = NEXT_SESSION.load(Ordering::Relaxed);
        say(format!(r#"40{{"sid":"M1-J{id:016}"}}"#).as_bytes());
        say(LICENSE.as_bytes());
    } else if text.starts_with(br#"42["message",{"type":"auth""#) {
        say(auth_reply(NEXT_SESSION.fetch_add(1, Ordering::Relaxed)).as_bytes());
    } else if text == STREAM.as_bytes() {
        let message = changes(LARGE, false);
        for _ in 0..BATCH {
            say(message.as_bytes());
        }
    } else if text.starts_with(CHANGES.as_bytes()) {
        if text.ends_with(LAST.as_bytes()) {
            say(SAVED);
        }
    } else if text == IS_SAVE_LOCK.as_bytes() {
        say(SAVE_LOCK);
    } else if text.starts_with(b"42") {
        say(text);
    }
}

/// A message of `size` bytes with changes of a document; only the last is answered.
pub(crate) fn changes(size: usize, is_last: bool) -> String {
    let tail = if is_last { LAST } else { MORE };
    // An escaped quote every hundred bytes or so, as the editor's lists of changes have.
    let change = format!("\\\"78;{}\\\",", "AgAAADEA//8BAGd1AgAAAAAAAAA".repeat(4));
    let room = size - CHANGES.len() - tail.len();
    let mut list = change.repeat(room / change.len());
    list.push_str(&"A".repeat(room - list.len()));
    format!("{CHANGES}{list}{tail}")
}

/// Some 1.1 kB, as the real reply has.
fn auth_reply(id: u64) -> String {
    let settings = r#"{"spellcheckerUrl":"/spellchecker","reconnection":{"attempts":50,"delay":2000},"binaryChanges":false,"websocketMaxPayloadSize":1572864,"maxChangesSize":157286400,"limits_image_size":26214400,"limits_image_types_upload":"jpg;jpeg;jpe;png;gif;bmp;svg;tiff;tif"}"#;
    let jwt = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9".repeat(8);
    format!(
        r#"42["message",{{"type":"auth","result":1,"sessionId":"M1-J{id:016}","participants":[{{"id":"u{id}1","idOriginal":"u{id}","username":"User","indexUser":1,"view":false,"connectionId":"M1-J{id:016}","isCloseCoAuthoring":false,"isLiveViewer":false,"encrypted":false}}],"locks":{{}},"changes":[],"changesIndex":0,"indexUser":1,"hasForgotten":false,"jwt":"{jwt}","g_cAscSpellCheckUrl":"","buildVersion":"9.3.0","buildNumber":138,"licenseType":3,"editorType":0,"mode":"edit","permissions":{{"edit":true}},"settings":{settings}}}]"#
    )
}
