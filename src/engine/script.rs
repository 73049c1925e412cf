//! Scripts that the engine carries out in one step.
//!
//! They are called by their digest, and sent whole when the engine does not know them: after a
//! restart, a failover or `SCRIPT FLUSH`. What a script says is never put together from data.

use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, ToRedisArgs, from_redis_value,
};

use super::{Engine, EngineError};

/// A Lua script.
#[derive(Debug)]
pub struct Script {
    source: &'static str,
    digest: String,
}

impl Script {
    pub fn new(source: &'static str) -> Self {
        Self { source, digest: redis::Script::new(source).get_hash().to_owned() }
    }

    /// Whether an error says that the server does not know the script.
    pub(super) fn is_unknown(error: &RedisError) -> bool {
        error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
    }

    /// The call as a command, by digest or whole.
    pub(super) fn command(&self, whole: bool, keys: &[String], arguments: &Arguments) -> Cmd {
        let mut call = if whole { redis::cmd("EVAL") } else { redis::cmd("EVALSHA") };
        if whole {
            call.arg(self.source)
        } else {
            call.arg(&self.digest)
        };
        call.arg(keys.len()).arg(keys);
        for argument in &arguments.0 {
            call.arg(&**argument);
        }
        call
    }
}

/// The arguments of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(Vec<Vec<u8>>);

impl Arguments {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, value: impl ToRedisArgs) -> Self {
        self.push(value);
        self
    }

    /// Adds one; a list is as many.
    pub fn push(&mut self, value: impl ToRedisArgs) {
        self.0.append(&mut value.to_redis_args());
    }
}

impl Engine {
    /// Carries out a script in one step. All `keys` are of one hash slot.
    ///
    /// # Errors
    /// The engine's; after [`EngineError::Unanswered`] it may have been carried out.
    pub async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &Arguments,
    ) -> Result<T, EngineError> {
        let value = match self.send(&script.command(false, keys, arguments)).await? {
            Err(error) if Script::is_unknown(&error) => {
                self.send(&script.command(true, keys, arguments)).await?
            }
            answered => answered,
        };
        Ok(from_redis_value(value?).map_err(redis::RedisError::from)?)
    }
}
