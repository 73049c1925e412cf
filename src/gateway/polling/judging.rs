//! The packets of polling bodies, judged one by one in their order.

use bytes::Bytes;
use http::header;
use pingora::http::ResponseHeader;

use super::{PolledSession, Polling};
use crate::clock;
use crate::gateway::judge::{self, Reply};
use crate::session::Verdict;
use crate::session::inspect::HOLD_LIMIT;
use crate::wire::coauthoring::{AuthReply, DisconnectCode};
use crate::wire::packet::{EventType, MessageKind};
use crate::wire::payload;

/// A client's packets, judged.
pub(super) struct Judgement {
    /// What passes on.
    pub(super) body: Bytes,
    /// What has to wait, from the first change of the document on that does.
    pub(super) waits: Bytes,
    pub(super) effects: Effects,
}

/// What the client's packets say, once the document server took them.
#[derive(Default)]
pub(super) struct Effects {
    /// An open was judged.
    pub(super) opened: bool,
    pub(super) gave_up_editing: bool,
    /// A goodbye.
    pub(super) ended: bool,
}

impl Polling<'_> {
    /// Judges a `POST`'s packets, in their order, up to one that has to wait.
    ///
    /// # Errors
    /// The session is refused with this code.
    pub(super) async fn judge(
        &self,
        polled: &PolledSession,
        mut body: Bytes,
    ) -> Result<Judgement, DisconnectCode> {
        let tenant = self.shared.present(&polled.tenant);
        let mut effects = Effects::default();
        let mut replaced: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut at = 0;
        let mut waits = None;
        for (index, (packet, kind)) in payload::packets(&body).enumerate() {
            let start = at;
            at += packet.len() + 1;
            match kind {
                _ if is_save(kind) && judge::saves_wait(&tenant, &polled.session) => {
                    waits = Some(start);
                    break;
                }
                _ if is_auth(kind) => {
                    // No editor opens anything after its goodbye.
                    if packet.len() > HOLD_LIMIT || effects.ended {
                        return Err(DisconnectCode::AccessDenied);
                    }
                    let session = &polled.session;
                    match judge::auth(self.shared, &tenant, session, packet).await {
                        Verdict::Ignore => {}
                        Verdict::Pass(_) => effects.opened = true,
                        Verdict::Replace(_, text) => {
                            effects.opened = true;
                            replaced.push((index, text.into_bytes()));
                        }
                        Verdict::Refuse(_, code) => return Err(code),
                    }
                }
                MessageKind::Event(EventType::Close) => effects.gave_up_editing = true,
                MessageKind::Malformed => {
                    tracing::info!("the client sent a message that could be read in two ways");
                    return Err(DisconnectCode::AccessDenied);
                }
                MessageKind::EngineClose | MessageKind::Disconnect => effects.ended = true,
                _ => {}
            }
        }
        let mut waiting = Bytes::new();
        if let Some(start) = waits {
            waiting = body.split_off(start);
            // Without the separator.
            body.truncate(start.saturating_sub(1));
        }
        Ok(Judgement { body: with_replaced(body, &replaced), waits: waiting, effects })
    }

    /// Judges the server's packets; `None` if they must not reach the client.
    pub(super) async fn judge_answer(
        &self,
        id: &str,
        polled: &PolledSession,
        head: &ResponseHeader,
        body: Bytes,
    ) -> Option<Bytes> {
        // Nobody asked for another encoding: what cannot be read does not pass.
        let encoding = head.headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            tracing::warn!(
                "the document server answered a poll in an encoding that was not asked for"
            );
            return None;
        }
        let tenant = self.shared.present(&polled.tenant);
        let mut replaced: Vec<(usize, Vec<u8>)> = Vec::new();
        for (index, (packet, kind)) in payload::packets(&body).enumerate() {
            // Clients' words stand in it, and deeper than they wrote them: what is read as a reply is one.
            let is_odd_reply =
                || kind == MessageKind::Malformed && AuthReply::parse(packet).is_ok();
            match kind {
                _ if is_auth(kind) || is_odd_reply() => {
                    let session = &polled.session;
                    match judge::reply(self.shared, &tenant, session, packet).await {
                        Reply::Pass => {}
                        Reply::Replace(text) => replaced.push((index, text.into_bytes())),
                        Reply::Refuse | Reply::Forbid => return None,
                    }
                }
                MessageKind::Event(EventType::Error) => {
                    let terms = tenant.terms(clock::now());
                    polled.session.lock().on_open_failed(&terms, &self.shared.ledger);
                }
                MessageKind::Connect => polled.session.lock().on_connected(packet),
                // The server's goodbye, and the end of a session that may come back. A session that
                // a WebSocket takes over ends its polling in the same way.
                MessageKind::Disconnect => polled.session.lock().end(),
                MessageKind::EngineClose if !polled.is_claimed() => self.lose(id, polled),
                _ => {}
            }
        }
        Some(with_replaced(body, &replaced))
    }
}

fn is_auth(kind: MessageKind) -> bool {
    matches!(
        kind,
        MessageKind::Event(EventType::Auth)
            | MessageKind::BinaryEvent { event: EventType::Auth, .. }
    )
}

fn is_save(kind: MessageKind) -> bool {
    matches!(
        kind,
        MessageKind::Event(EventType::Save)
            | MessageKind::BinaryEvent { event: EventType::Save, .. }
    )
}

/// The body with some of its packets replaced.
fn with_replaced(body: Bytes, replaced: &[(usize, Vec<u8>)]) -> Bytes {
    if replaced.is_empty() {
        return body;
    }
    let packets = payload::packets(&body).enumerate().map(|(index, (packet, _))| {
        replaced.iter().find(|(at, _)| *at == index).map_or(packet, |(_, text)| text.as_slice())
    });
    payload::join(packets).into()
}
