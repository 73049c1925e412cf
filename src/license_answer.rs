//! The gateway's answer to the `license` command.
//!
//! Fields, order and formats are those of the server itself (WIRE.md section 1, the seed
//! `license-command`). A body is built once per state of the ledger; an echoed key is put in front
//! of it. Pure: terms, facts and users are arguments, as is `now`.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use jiff::tz::Offset;

use crate::licence::{Licence, Metering, Quota, result_type};
use crate::wire::command::{EchoedKey, ServerFacts, write_string};

/// A unique user as `quota.users` and `quota.users_view` list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUser<'a> {
    pub id: &'a str,
    /// The user no longer counts from here on.
    pub expire: Timestamp,
    pub anonymous: bool,
}

/// A license answer, and how long it holds.
#[derive(Clone, Debug)]
pub struct LicenseAnswer {
    body: Bytes,
    valid_until: Option<Timestamp>,
}

impl LicenseAnswer {
    /// The answer for a tenant with `terms` (`None`: its licence is missing) at `now`.
    ///
    /// - `start_date` is `null` where the licence has no start, as `end_date` is for a perpetual
    ///   one. The server has a start in every licence; its open-source build makes one up (the first
    ///   of the month), which says nothing. The documentation does not list the field.
    /// - `timelimited`, `developer`, `branding`, `advanced_api`, `multitenancy` are false and
    ///   `customer_id`, `alias` empty: terms that our licences do not have. (`timelimited` goes with
    ///   a grace period and results 11 and 12 that the gateway does not give.)
    /// - A missing licence grants zero seats and has result 1.
    /// - The users are listed for a licence that meters users, as long as they count; in connection
    ///   mode both lists are empty, as the server's are.
    pub fn build<'a>(
        terms: Option<&Licence>,
        facts: &ServerFacts,
        users: impl IntoIterator<Item = QuotaUser<'a>>,
        users_view: impl IntoIterator<Item = QuotaUser<'a>>,
        now: Timestamp,
    ) -> Self {
        let (users, users_view) = (users.into_iter(), users_view.into_iter());
        let quota = terms.map_or(Quota::default(), |terms| terms.quota);
        let head = head(terms, &quota, facts, now);
        // An entry is some 75 bytes.
        let expected = users.size_hint().0.saturating_add(users_view.size_hint().0);
        let mut list = UserList {
            out: Vec::with_capacity(head.len() + 32 + expected.saturating_mul(88)),
            now,
            valid_until: terms.and_then(|terms| next_turn(terms, now)),
        };
        list.out.extend_from_slice(head.as_bytes());
        list.out.extend_from_slice(br#","quota":{"users":["#);
        match quota.metering() {
            Metering::Connections => list.out.extend_from_slice(br#"],"users_view":["#),
            Metering::Users => {
                list.add_all(users);
                list.out.extend_from_slice(br#"],"users_view":["#);
                list.add_all(users_view);
            }
        }
        list.out.extend_from_slice(b"]}}");
        Self { body: list.out.into(), valid_until: list.valid_until }
    }

    /// The JSON body, `key` echoed first.
    pub fn body(&self, key: Option<&EchoedKey>) -> Bytes {
        let Some(key) = key else { return self.body.clone() };
        let key = key.as_json();
        let mut body = BytesMut::with_capacity(self.body.len() + key.len() + 8);
        body.put_slice(br#"{"key":"#);
        body.put_slice(key.as_bytes());
        body.put_u8(b',');
        body.put_slice(self.body.get(1..).unwrap_or_default());
        body.freeze()
    }

    /// The first instant at which the same terms and users give another answer: the licence starts
    /// or ends, or a user no longer counts. `None`: never.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }
}

/// The answer up to `quota`.
fn head(terms: Option<&Licence>, quota: &Quota, facts: &ServerFacts, now: Timestamp) -> String {
    let date = |date: Option<Timestamp>| match date {
        Some(date) => {
            let mut text = Vec::with_capacity(24);
            write_date(&mut text, date);
            format!("\"{}\"", String::from_utf8_lossy(&text))
        }
        None => "null".to_owned(),
    };
    let start = date(terms.and_then(|terms| terms.start));
    let end = date(terms.and_then(|terms| terms.end));
    let trial = terms.is_some_and(|terms| terms.trial);
    let customization = terms.is_some_and(|terms| terms.customization);
    let Quota { connections, connections_view, users_count, users_view_count, users_expire_days } =
        quota;
    let ServerFacts { build, workers_count } = facts;
    let result = result_type(terms, now);
    let (package, number) = (build.package_type, build.number);
    let build_date = EchoedKey::from_text(&build.date);
    let version = EchoedKey::from_text(&build.version);
    let (build_date, version) = (build_date.as_json(), version.as_json());
    format!(
        concat!(
            r#"{{"error":0,"license":{{"start_date":{},"end_date":{},"timelimited":false,"#,
            r#""trial":{},"developer":false,"branding":false,"customization":{},"#,
            r#""advanced_api":false,"connections":{},"connections_view":{},"users_count":{},"#,
            r#""users_view_count":{},"users_expire":{},"customer_id":"","alias":"","#,
            r#""multitenancy":false}},"server":{{"workersCount":{},"resultType":{},"#,
            r#""packageType":{},"buildDate":{},"buildVersion":{},"buildNumber":{}}}"#,
        ),
        start,
        end,
        trial,
        customization,
        connections,
        connections_view,
        users_count,
        users_view_count,
        users_expire_days,
        workers_count,
        result,
        package,
        build_date,
        version,
        number,
    )
}

/// The next start or end of the licence after `now`.
fn next_turn(terms: &Licence, now: Timestamp) -> Option<Timestamp> {
    [terms.start, terms.end].into_iter().flatten().filter(|&turn| turn > now).min()
}

/// The growing body.
struct UserList {
    out: Vec<u8>,
    now: Timestamp,
    valid_until: Option<Timestamp>,
}

impl UserList {
    /// The entries of the users who still count, commas between them.
    fn add_all<'a>(&mut self, users: impl Iterator<Item = QuotaUser<'a>>) {
        let now = self.now;
        for (at, user) in users.filter(|user| user.expire > now).enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.add(&user);
        }
    }

    fn add(&mut self, user: &QuotaUser<'_>) {
        self.valid_until =
            Some(self.valid_until.map_or(user.expire, |until| until.min(user.expire)));
        self.out.extend_from_slice(br#"{"userid":"#);
        write_string(&mut self.out, user.id.as_bytes());
        self.out.extend_from_slice(br#","expire":""#);
        write_date(&mut self.out, user.expire);
        let close: &[u8] =
            if user.anonymous { br#"","anonym":true}"# } else { br#"","anonym":false}"# };
        self.out.extend_from_slice(close);
    }
}

/// `Date.prototype.toJSON`: UTC with milliseconds; years before 0 with a sign and six digits.
pub(crate) fn write_date(out: &mut Vec<u8>, date: Timestamp) {
    let date = Offset::UTC.to_datetime(date);
    let year = date.year();
    if year < 0 {
        out.extend_from_slice(b"-00");
    }
    // Written digit by digit: a list may hold a hundred thousand of them.
    for (number, digits, after) in [
        (year, 4, b'-'),
        (date.month().into(), 2, b'-'),
        (date.day().into(), 2, b'T'),
        (date.hour().into(), 2, b':'),
        (date.minute().into(), 2, b':'),
        (date.second().into(), 2, b'.'),
        (date.millisecond(), 3, b'Z'),
    ] {
        let number = number.unsigned_abs();
        for power in [1000, 100, 10, 1].into_iter().skip(4 - digits) {
            let digit = u8::try_from(number / power % 10).unwrap_or(0);
            out.push(b'0' + digit);
        }
        out.push(after);
    }
}

#[cfg(test)]
mod tests;
