//! What must come of a row, from PRODUCT.md, INTERFACE.md and WIRE.md alone.

use super::axes::{Class, Form, Licence, Policy, Row, Token};

/// What must come of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The `auth` messages in their order; the session ends with a refused one.
    pub opens: Vec<Open>,
    /// Seats that are taken afterwards, by the metric's `kind`; what holders have included.
    pub used: Vec<(&'static str, f64)>,
    /// Plain viewers connected.
    pub viewers: f64,
    /// Seats that are left when everybody has said goodbye: unique users.
    pub left: Vec<(&'static str, f64)>,
}

/// What must come of one `auth`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Open {
    /// The metric's labels: class, outcome, reason.
    pub counted: (&'static str, &'static str, &'static str),
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The server saw the message as it was; its reply came as it was.
    Admitted,
    /// The server saw a plain viewer's message (`mode` too, or only `coEditingMode`); the reply came with
    /// this `licenseType`.
    Changed { mode: bool, license_type: u64 },
    /// `disconnectReason` with this code, `41`, the end; the server saw nothing.
    Refused(u64),
}

/// The two kinds of the tenant's licence: editors', live viewers'.
fn kinds(licence: Licence) -> [&'static str; 2] {
    if counts_users(licence) {
        ["editor_users", "viewer_users"]
    } else {
        ["editor_connections", "viewer_connections"]
    }
}

fn counts_users(licence: Licence) -> bool {
    matches!(licence, Licence::RoomForUsers | Licence::FullOfUsers)
}

/// Whether other people hold the one seat of either kind.
pub fn is_full(licence: Licence) -> bool {
    matches!(licence, Licence::Full | Licence::FullOfUsers)
}

pub fn expected(row: &Row) -> Expected {
    let mut opens = Vec::new();
    let first = if row.form == Form::ChangedClass { Class::Viewer } else { row.class };
    opens.push(open(row, first));
    let goes_on = !matches!(opens[0].end, End::Refused(_));
    if goes_on && row.form == Form::ChangedClass {
        opens.push(open(row, row.class));
    }
    if goes_on && row.form == Form::Twice {
        let mut again = open(row, row.class);
        if again.counted.1 == "observed" {
            // It has the seat by now: what runs goes on.
            again.counted = (again.counted.0, "admitted", "none");
        }
        opens.push(again);
    }

    let last = opens[opens.len() - 1];
    let held = if is_full(row.licence) { 1.0 } else { 0.0 };
    let mut used: Vec<(&str, f64)> = kinds(row.licence).iter().map(|kind| (*kind, held)).collect();
    let mut viewers = 0.0;
    match last.end {
        End::Refused(_) => {}
        End::Changed { .. } => viewers = 1.0,
        End::Admitted => match last.counted.0 {
            "editor" => used[0].1 += 1.0,
            "live_viewer" => used[1].1 += 1.0,
            _ => viewers = 1.0,
        },
    }
    let left = if counts_users(row.licence) {
        used.clone()
    } else {
        used.iter().map(|(kind, _)| (*kind, 0.0)).collect()
    };
    Expected { opens, used, viewers, left }
}

fn open(row: &Row, class: Class) -> Open {
    let refused = |class, reason, code| Open {
        counted: (class, "rejected", reason),
        end: End::Refused(code),
    };
    // Before anybody knows who it is; a duplicate key is not guessed about under any policy, nor is a
    // token that the server itself refuses.
    if row.form == Form::DuplicateKey {
        // Read before the token, as it stands in front of it.
        return refused("viewer", "malformed", 4004);
    }
    match row.token {
        Token::Off | Token::Good | Token::Session => {}
        Token::WrongSecret | Token::AlgorithmNone | Token::Missing => {
            return refused("viewer", "token_invalid", 4006);
        }
        Token::Expired => return refused("viewer", "token_expired", 4005),
    }
    let admitted = |class| Open { counted: (class, "admitted", "none"), end: End::Admitted };
    let (name, of_live) = match class {
        Class::Editor | Class::Commenter => ("editor", false),
        Class::LiveViewer => ("live_viewer", true),
        Class::Viewer => return admitted("viewer"),
    };
    if of_live && row.licence == Licence::NoLiveViewers {
        return Open {
            counted: ("viewer", "admitted", "none"),
            end: End::Changed { mode: false, license_type: 3 },
        };
    }
    let users = counts_users(row.licence);
    let reason = match (row.licence, users, of_live) {
        (Licence::Room | Licence::RoomForUsers | Licence::NoLiveViewers, _, _) => {
            return admitted(name);
        }
        (Licence::Expired, _, _) => "licence_expired",
        (Licence::NotStarted, _, _) => "licence_not_started",
        (Licence::Revoked, _, _) => "licence_revoked",
        (Licence::Missing, _, _) => "licence_missing",
        (Licence::Full | Licence::FullOfUsers, true, false) => "users",
        (Licence::Full | Licence::FullOfUsers, true, true) => "users_view",
        (Licence::Full | Licence::FullOfUsers, false, false) => "connections",
        (Licence::Full | Licence::FullOfUsers, false, true) => "connections_view",
    };
    let license_type = match (of_live, users) {
        (false, false) => 5,
        (false, true) => 8,
        (true, false) => 13,
        (true, true) => 14,
    };
    match row.policy {
        Policy::Reject => refused(name, reason, 4004),
        Policy::View => Open {
            counted: (name, "view_only", reason),
            end: End::Changed { mode: true, license_type },
        },
        Policy::Observe => Open { counted: (name, "observed", reason), end: End::Admitted },
    }
}
