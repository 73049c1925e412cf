//! A document server's build, for whoever makes license answers. Included by path: it knows the
//! library.

use seatgate::config::BuildFacts;
use seatgate::wire::command::ServerFacts;

/// What a document server says of itself.
pub(crate) fn server_facts() -> ServerFacts {
    let build = BuildFacts {
        package_type: 0,
        date: "2026-03-29T00:00:00.000Z".into(),
        version: "9.3.0".into(),
        number: 138,
    };
    ServerFacts { build, workers_count: 1 }
}
