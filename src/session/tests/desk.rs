//! A tenant's licence and settings, at which sessions are opened; what editors and the document
//! server say there.

use std::sync::Arc;

use jiff::Timestamp;

use crate::admission::Reason;
use crate::config::{Secret, TokenSecrets};
use crate::ledger::{Ledger, LicenceSeats};
use crate::licence::tests::licence;
use crate::licence::{Licence, Quota};
use crate::seat::SeatKind;
use crate::session::{
    Answered, Judged, Replied, ReplyVerdict, Report, Session, Settlement, Terms, Verdict,
};
use crate::tenant::{Mode, Policy, RefusalPolicy};
use crate::token;

const NOW: &str = "2026-11-22T10:00:00Z";

pub(super) struct Desk {
    pub(super) ledger: Ledger,
    pub(super) tenant: Arc<str>,
    pub(super) seats: Arc<LicenceSeats>,
    pub(super) licence: Option<Licence>,
    pub(super) policy: Policy,
    pub(super) secrets: TokenSecrets,
    pub(super) now: Timestamp,
}

impl Desk {
    fn new(quota: Quota) -> Self {
        let ledger = Ledger::new();
        let end = Some("2027-01-01T00:00:00Z".parse().unwrap());
        let licence = Licence { id: "l".into(), end, ..licence(quota) };
        Self {
            seats: ledger.licence("l"),
            ledger,
            tenant: "acme".into(),
            licence: Some(licence),
            policy: Policy {
                mode: Mode::Enforce,
                over_limit: RefusalPolicy::Reject,
                licence_invalid: RefusalPolicy::Reject,
            },
            secrets: TokenSecrets::default(),
            now: NOW.parse().unwrap(),
        }
    }

    pub(super) fn connections(editors: u32, viewers: u32) -> Self {
        Self::new(Quota { connections: editors, connections_view: viewers, ..Quota::default() })
    }

    pub(super) fn users(editors: u32, viewers: u32) -> Self {
        Self::new(Quota {
            users_count: editors,
            users_view_count: viewers,
            users_expire_days: 1,
            ..Quota::default()
        })
    }

    pub(super) fn terms(&self) -> Terms<'_> {
        Terms {
            tenant: &self.tenant,
            policy: self.policy,
            secrets: &self.secrets,
            licence: self.licence.clone().map(Arc::new),
            seats: &self.seats,
            now: self.now,
        }
    }

    pub(super) fn session(&self) -> Session {
        Session::new("192.0.2.1".parse().unwrap())
    }

    /// The editor's `auth` that goes on with a session, with a token that the gateway can verify.
    pub(super) fn signed(&mut self, user: &str, session_id: &str) -> String {
        let secret = Secret::new("s3cret");
        let secrets = Some(vec![secret.clone()]);
        self.secrets = TokenSecrets { browser: secrets.clone(), inbox: None, session: secrets };
        let claims = serde_json::json!({
            "document": { "key": "k" },
            "editorConfig": { "user": { "id": user }, "mode": "edit" },
        });
        let token = token::sign(claims.as_object().unwrap(), &secret, self.now);
        auth(user, &format!(r#","mode":"edit","sessionId":"{session_id}","jwtOpen":"{token}""#))
    }

    /// Judges an `auth`; seats are decided here.
    pub(super) fn auth(&self, session: &mut Session, text: &str) -> Verdict {
        match session.on_auth(text.as_bytes(), &self.terms()) {
            Judged::Done(verdict) => verdict,
            Judged::Ask(opening) => {
                let decision = self.seats.admit(opening.request(), self.licence.as_ref(), self.now);
                session.on_decided(*opening, decision, text.as_bytes(), &self.terms())
            }
        }
    }

    /// Judges a reply; seats are decided here.
    pub(super) fn reply(&self, session: &mut Session, text: &str) -> Replied {
        match session.on_reply(text.as_bytes(), &self.terms(), &self.ledger) {
            Answered::Done(replied) => replied,
            Answered::Ask(correction) => {
                let decision =
                    self.seats.admit(correction.request(), self.licence.as_ref(), self.now);
                let terms = self.terms();
                session.on_corrected(*correction, decision, text.as_bytes(), &terms, &self.ledger)
            }
        }
    }

    pub(super) fn used(&self, kind: SeatKind) -> u64 {
        let usage = self.seats.usage(self.now);
        usage.iter().find(|usage| usage.kind == kind).unwrap().used
    }

    /// An open that the server accepts; `Err` is the reason of a refusal.
    pub(super) fn open(&self, session: &mut Session, auth: &str) -> Result<Report, Option<Reason>> {
        match self.auth(session, auth) {
            Verdict::Pass(report) | Verdict::Replace(report, _) => {
                match self.reply(session, REPLY).verdict {
                    ReplyVerdict::Pass | ReplyVerdict::Replace(_) => {}
                    ReplyVerdict::Settle(Settlement { seats, confirmation, .. }) => {
                        seats.stored(&confirmation.record.unwrap());
                        session.on_settled();
                    }
                    ReplyVerdict::Forbid => panic!("a judged open is forbidden"),
                }
                Ok(report)
            }
            Verdict::Refuse(report, _) => Err(report.reason),
            Verdict::Ignore => panic!("ignored"),
        }
    }
}

pub(super) const REPLY: &str = r#"42["message",{"type":"auth","result":1,"sessionId":"s1","participants":[],"licenseType":3}]"#;

pub(super) const CONNECTED: &[u8] = br#"40{"sid":"s1"}"#;

pub(super) fn auth(user: &str, rest: &str) -> String {
    format!(
        r#"42["message",{{"type":"auth","docid":"k","token":"t","user":{{"id":"{user}"}}{rest}}}]"#
    )
}

pub(super) fn editor(user: &str) -> String {
    auth(user, r#","mode":"edit""#)
}

pub(super) fn live_viewer(user: &str) -> String {
    auth(user, r#","mode":"view","coEditingMode":"fast""#)
}

pub(super) fn viewer(user: &str) -> String {
    auth(user, r#","mode":"view","coEditingMode":"strict""#)
}
