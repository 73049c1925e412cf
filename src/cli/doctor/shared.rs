//! The Redis or Valkey that gateways share: is it there, does it keep what it is told, may we.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::finding::Finding;
use super::wire::PATIENCE;
use crate::clock;
use crate::config::{self, Topology};
use crate::engine::{Engine, EngineError, Observation, Weight};
use crate::store::redis::needs;

const CHECK: &str = "store";

/// By so much the clocks may differ: licences end by this host's, leases and users by the engine's.
const SKEW_TOLD: SignedDuration = SignedDuration::from_secs(2);
const SKEW_OVER: SignedDuration = SignedDuration::from_secs(60);

/// How long a first connection may take: a sentinel is asked before the server.
const CONNECT: Duration = Duration::from_secs(7);

/// All that can be found out without changing anything.
pub(super) async fn check(redis: &config::Redis) -> Vec<Finding> {
    let engine = match Engine::start(redis.engine.clone()) {
        Ok(engine) => engine,
        Err(error) => return vec![Finding::error(CHECK, error.to_string(), "free some memory")],
    };
    let told = engine.told();
    let mend = "start it, or correct [store] url, user, password and ca_file";
    match timeout(CONNECT, engine.first_connection(|_| {})).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return vec![Finding::error(CHECK, format!("{told}: {error}"), mend)],
        Err(_) => {
            let message = format!("{told} does not answer: {}", engine.last_error());
            return vec![Finding::error(CHECK, message, mend)];
        }
    }
    let mut found = vec![Finding::ok(CHECK, format!("{told} answers"))];
    let looked = async {
        found.push(permissions(&engine).await);
        found.extend(settings(&engine, &redis.engine.address.topology).await);
        found.push(its_clock(&engine).await);
    };
    if timeout(PATIENCE * 2, looked).await.is_err() {
        let mend = "look at what it is busy with: redis-cli SLOWLOG GET";
        found.push(Finding::error(CHECK, "it answers slowly, or not any more", mend));
    }
    found
}

async fn permissions(engine: &Engine) -> Finding {
    let mend = "give its user what docs/cluster.md lists: ACL SETUSER";
    match needs::denied(engine).await {
        Ok(denied) if denied.is_empty() => Finding::ok(CHECK, "its user may do all that is needed"),
        Ok(denied) => {
            let message = format!(
                "its user may not give, on keys and channels {}*: {}",
                needs::PREFIX,
                denied.join(", ")
            );
            Finding::error(CHECK, message, mend)
        }
        Err(error) => Finding::error(CHECK, error.to_string(), mend),
    }
}

async fn settings(engine: &Engine, topology: &Topology) -> Vec<Finding> {
    match engine.survey(topology).await {
        Ok(found) => found.into_iter().map(told).collect(),
        Err(EngineError::Refused(why)) => {
            let message = format!("its settings cannot be checked: {why}");
            let mend =
                "allow its user +info and +config|get, or look for yourself: docs/cluster.md";
            vec![Finding::warning(CHECK, message, mend)]
        }
        Err(error) => vec![Finding::error(CHECK, error.to_string(), "see its log")],
    }
}

fn told(seen: Observation) -> Finding {
    match seen.weight {
        Weight::Well => Finding::ok(CHECK, seen.message),
        Weight::Risk => Finding::warning(CHECK, seen.message, seen.mend),
        Weight::Wrong => Finding::error(CHECK, seen.message, seen.mend),
    }
}

async fn its_clock(engine: &Engine) -> Finding {
    let before = clock::now();
    let answered = engine.micros().await;
    let after = clock::now();
    match answered {
        Ok(micros) => {
            let there = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MIN);
            judge_clock(before, there, after)
        }
        Err(error) => Finding::warning(CHECK, format!("its clock: {error}"), "see what it says"),
    }
}

/// The engine read its clock at some moment between the two.
fn judge_clock(before: Timestamp, there: Timestamp, after: Timestamp) -> Finding {
    let off = if there < before {
        before.duration_since(there)
    } else if there > after {
        there.duration_since(after)
    } else {
        SignedDuration::ZERO
    };
    let seconds = off.as_secs();
    let message = format!("the clocks of Redis and of this host differ by {seconds} s");
    let mend = "set both: timedatectl set-ntp true";
    match off {
        off if off >= SKEW_OVER => Finding::error(CHECK, message, mend),
        off if off >= SKEW_TOLD => Finding::warning(CHECK, message, mend),
        _ => Finding::ok(CHECK, "its clock and this host's agree"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn clocks_are_compared_but_for_the_time_on_the_way() {
        let at = |second: i64| Timestamp::from_second(1_000 + second).unwrap();
        for (there, level) in [
            (at(0), Level::Ok),
            (at(5), Level::Ok),
            (at(6), Level::Ok),
            (at(7), Level::Warning),
            (at(-2), Level::Warning),
            (at(-59), Level::Warning),
            (at(-60), Level::Error),
            (at(65), Level::Error),
        ] {
            assert_eq!(judge_clock(at(0), there, at(5)).level, level, "{there}");
        }
    }
}
