//! Waiting without sleeping blindly: poll with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything on loopback may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `probe` again and again until it answers `Some`; panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// As [`eventually`], with a deadline of its own.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "did not come true within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Runs `future` under the general deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not end within {PATIENCE:?}: {what}"),
    }
}
