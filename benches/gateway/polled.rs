//! Sessions of the polling transport, as the stand-in for the document server has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Result;
use crate::upstream::answer_message;

/// What separates packets.
const SEPARATOR: u8 = 0x1e;

/// How long a `GET` is parked.
const PARKED: Duration = Duration::from_secs(25);

static SESSIONS: LazyLock<Mutex<HashMap<String, Arc<Session>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Default)]
struct Session {
    /// Packets for the client, separated.
    waiting: Mutex<Vec<u8>>,
    news: Notify,
}

impl Session {
    fn say(&self, packet: &[u8]) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_empty() {
            waiting.push(SEPARATOR);
        }
        waiting.extend_from_slice(packet);
        drop(waiting);
        self.news.notify_one();
    }
}

pub(crate) fn is_polling(target: &str) -> bool {
    target.starts_with("/doc/") && target.contains("transport=polling")
}

/// The body of the answer to a request of this transport.
pub(crate) async fn answer(target: &str, is_post: bool, body: &[u8]) -> Result<Vec<u8>> {
    let Some(sid) = target.split(['?', '&']).find_map(|part| part.strip_prefix("sid=")) else {
        let sid = format!("poll{:016}", NEXT.fetch_add(1, Ordering::Relaxed));
        let open = format!(
            r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000000}}"#
        );
        SESSIONS.lock().insert(sid, Arc::default());
        return Ok(open.into_bytes());
    };
    let session = SESSIONS.lock().get(sid).map(Arc::clone).ok_or("an unknown session polls")?;
    if is_post {
        for packet in body.split(|byte| *byte == SEPARATOR) {
            if packet == b"41" {
                SESSIONS.lock().remove(sid);
            }
            answer_message(packet, &mut |text| session.say(text));
        }
        return Ok(b"ok".to_vec());
    }
    let parked = async {
        loop {
            let waiting = std::mem::take(&mut *session.waiting.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            session.news.notified().await;
        }
    };
    Ok(timeout(PARKED, parked).await.unwrap_or_else(|_| b"2".to_vec()))
}
