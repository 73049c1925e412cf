//! Opening: it is a store of our time, and its key is at hand.

use std::path::Path;
use std::sync::LazyLock;

use super::keys;
use crate::engine::{Arguments, Engine, EngineError, Script};
use crate::store::error::OpenError;
use crate::store::hexadecimal;
use crate::store::key::{self, KeyHasher};

/// The version of the keys' layout that this program writes.
pub(super) const SCHEMA: i64 = 1;

static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/begin.lua")));
static OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/open.lua")));

/// Makes a new store under a key that is given, which counts as unfinished until
/// [`super::Redis::finish`]. One that a migration left unfinished is emptied before.
pub(super) async fn begin(
    engine: &Engine,
    key_file: Option<&Path>,
    given: &KeyHasher,
    replace: bool,
) -> Result<(), OpenError> {
    let address = engine.told();
    let failed = |error: EngineError| OpenError::Engine {
        address: address.clone(),
        detail: error.to_string(),
    };
    let meta = keys::home("meta");
    let asked = redis::cmd("HEXISTS").arg(&meta).arg("unfinished").to_owned();
    if replace || engine.run::<bool>(&asked).await.map_err(failed)? {
        super::intake::clear(engine).await.map_err(failed)?;
    }
    let asked = redis::cmd("EXISTS").arg(&meta).to_owned();
    if engine.run::<u8>(&asked).await.map_err(failed)? > 0 {
        return Err(OpenError::Occupied { what: format!("in Redis at {address}") });
    }
    let check = hexadecimal::write(&given.check_value());
    let secret = match key_file {
        Some(path) if key::read(path)?.is_none() => {
            key::write(path, given)?;
            String::new()
        }
        Some(_) => String::new(),
        None => hexadecimal::write(given.pepper()),
    };
    let arguments = Arguments::new().with(SCHEMA).with(&check).with(secret);
    let there: String = engine.call(&BEGIN, &[meta], &arguments).await.map_err(failed)?;
    // Somebody else may have been faster.
    match there == check {
        true => Ok(()),
        false => Err(OpenError::Occupied { what: format!("in Redis at {address}") }),
    }
}

/// Opens the store that is there, or makes a new one.
///
/// Without a key file the key of the hashes is in the engine, where every gateway finds it.
pub(super) async fn open(
    engine: &Engine,
    key_file: Option<&Path>,
    to_fill: bool,
) -> Result<KeyHasher, OpenError> {
    let failed = |error: EngineError| OpenError::Engine {
        address: engine.told(),
        detail: error.to_string(),
    };
    let asked = redis::cmd("EXISTS").arg(keys::home("meta")).to_owned();
    let is_new = engine.run::<u8>(&asked).await.map_err(failed)? == 0;
    let (offered, secret) = match key_file {
        Some(path) => match key::read(path)? {
            Some(hasher) => (hasher, String::new()),
            None if is_new => (key::create(path)?, String::new()),
            None => return Err(OpenError::KeyMissing { path: path.to_owned() }),
        },
        None => {
            let mut pepper = [0_u8; 32];
            getrandom::fill(&mut pepper).map_err(|error| OpenError::Engine {
                address: engine.told(),
                detail: error.to_string(),
            })?;
            (KeyHasher::new(&pepper), hexadecimal::write(&pepper))
        }
    };
    let arguments =
        Arguments::new().with(SCHEMA).with(hexadecimal::write(&offered.check_value())).with(secret);
    let found: (i64, String, String, bool) =
        engine.call(&OPEN, &[keys::home("meta")], &arguments).await.map_err(failed)?;
    let (schema, check, secret, unfinished) = found;
    if unfinished && !to_fill {
        return Err(OpenError::Unfinished { address: engine.told() });
    }
    if schema > SCHEMA {
        return Err(OpenError::NewerEngine {
            address: engine.told(),
            found: schema,
            known: SCHEMA,
        });
    }
    let hasher = match (key_file, hexadecimal::read(&secret)) {
        (Some(_), _) => offered,
        (None, Some(pepper)) => KeyHasher::new(&pepper),
        (None, None) => return Err(OpenError::KeyElsewhere { address: engine.told() }),
    };
    match key_file {
        _ if check == hexadecimal::write(&hasher.check_value()) => Ok(hasher),
        Some(path) => Err(OpenError::KeyWrong { path: path.to_owned() }),
        None => Err(OpenError::KeyElsewhere { address: engine.told() }),
    }
}
