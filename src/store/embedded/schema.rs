//! The database's tables, and how older ones become the present ones.

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id` of a store: "SGAT".
pub(super) const APPLICATION_ID: i64 = 0x5347_4154;

/// `PRAGMA user_version` that this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The step from each schema version to the next.
const MIGRATIONS: [&str; 2] = [FIRST, USAGE];

/// Instants are microseconds of Unix time, the expiries of users seconds.
const FIRST: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

-- file and line are NULL for what belongs to the store itself.
CREATE TABLE apps (
    id TEXT PRIMARY KEY,
    api_key BLOB NOT NULL CHECK (length(api_key) = 32),
    previous_key BLOB CHECK (length(previous_key) = 32),
    previous_until INTEGER,
    file TEXT,
    line INTEGER
) WITHOUT ROWID, STRICT;

CREATE TABLE licences (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    app TEXT,
    key_hash BLOB UNIQUE CHECK (length(key_hash) = 32),
    issued_to TEXT NOT NULL,
    starts INTEGER,
    ends INTEGER,
    trial INTEGER NOT NULL,
    customization INTEGER NOT NULL,
    features TEXT NOT NULL,
    max_devices INTEGER,
    connections INTEGER NOT NULL,
    connections_view INTEGER NOT NULL,
    users_count INTEGER NOT NULL,
    users_view_count INTEGER NOT NULL,
    users_expire_days INTEGER NOT NULL,
    file TEXT,
    line INTEGER,
    -- How many rows of devices are the licence's; triggers count.
    devices INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX declared_licences ON licences (id) WHERE file IS NOT NULL;

CREATE TABLE revocations (
    licence INTEGER PRIMARY KEY REFERENCES licences (number),
    at INTEGER NOT NULL,
    by TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE devices (
    licence INTEGER NOT NULL REFERENCES licences (number),
    device BLOB NOT NULL,
    bound_at INTEGER NOT NULL,
    PRIMARY KEY (licence, device)
) WITHOUT ROWID, STRICT;
CREATE TRIGGER devices_bound AFTER INSERT ON devices BEGIN
    UPDATE licences SET devices = devices + 1 WHERE number = new.licence;
END;
CREATE TRIGGER devices_freed AFTER DELETE ON devices BEGIN
    UPDATE licences SET devices = devices - 1 WHERE number = old.licence;
END;

-- number grows in the order of first counting.
CREATE TABLE users (
    number INTEGER PRIMARY KEY,
    licence INTEGER NOT NULL REFERENCES licences (number),
    class INTEGER NOT NULL,
    user TEXT NOT NULL,
    expires INTEGER NOT NULL,
    anonymous INTEGER NOT NULL,
    UNIQUE (licence, class, user)
) STRICT;
CREATE INDEX users_by_expiry ON users (expires);

CREATE TABLE usage (
    month INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    licence TEXT NOT NULL,
    editor_users INTEGER NOT NULL,
    viewer_users INTEGER NOT NULL,
    editor_peak INTEGER NOT NULL,
    viewer_peak INTEGER NOT NULL,
    refusals INTEGER NOT NULL,
    PRIMARY KEY (month, tenant, licence)
) WITHOUT ROWID, STRICT;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    by TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
";

/// Usage by hours and months, and who was seen. What stood in `usage` before was never filled.
const USAGE: &str = "
DROP TABLE usage;

-- start is Unix time in seconds; counts is JSON, as store::usage::Counts has it.
CREATE TABLE usage (
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    licence TEXT NOT NULL,
    counts TEXT NOT NULL,
    PRIMARY KEY (span, start, tenant, licence)
) WITHOUT ROWID, STRICT;

-- opened and refused are days of the month, one bit each; name is NULL where ids are not kept.
CREATE TABLE usage_marks (
    tenant TEXT NOT NULL,
    licence TEXT NOT NULL,
    class INTEGER NOT NULL,
    user BLOB NOT NULL CHECK (length(user) = 16),
    month INTEGER NOT NULL,
    name TEXT,
    opened INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    PRIMARY KEY (tenant, licence, class, user, month)
) WITHOUT ROWID, STRICT;
CREATE INDEX usage_marks_by_month ON usage_marks (month);
CREATE INDEX usage_marks_with_name ON usage_marks (month) WHERE name IS NOT NULL;
";

/// Brings the tables from schema version `from` to [`VERSION`], all or nothing. `key_check` goes
/// into a new store.
pub(super) fn migrate(
    connection: &mut Connection,
    from: i64,
    key_check: &[u8; 32],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = usize::try_from(from).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    if from == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute("INSERT INTO meta VALUES ('key_check', ?1)", [key_check])?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

#[cfg(test)]
pub(super) mod tests {
    use rusqlite::Connection;

    /// Makes a store look as version 1 left it.
    pub(in crate::store::embedded) fn back_to_the_first(connection: &Connection) {
        let old = super::FIRST.split("CREATE TABLE usage").nth(1).unwrap();
        let old = old.split(';').next().unwrap();
        connection
            .execute_batch(&format!(
                "DROP TABLE usage; DROP TABLE usage_marks; CREATE TABLE usage {old}; \
                 PRAGMA user_version = 1;"
            ))
            .unwrap();
    }
}
