//! `seatgate licence sign`, `keygen`, `verify`: offline.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::licence::details;
use super::output::{instant, note, say, say_json, write};
use super::{BAD_USAGE, Failure, Format, Outcome, Place};
use crate::admin::terms;
use crate::signed::{self, TrustedKey};
use crate::store::{KeyHash, LicenceRecord, Origin};
use crate::{clock, config};

/// The largest file that is read, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct SignArguments {
    /// The private key, as `licence keygen` wrote it.
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    /// The name by which gateways know the key [default: the start of its thumbprint, as `licence
    /// keygen` told it]
    #[arg(long)]
    kid: Option<String>,
    /// The licence file to sign; the signed one goes to standard output.
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct KeygenArguments {
    /// Where the private key goes, readable for its owner only; nothing may be there yet.
    file: PathBuf,
    /// The name by which gateways are to know the key [default: the start of its thumbprint]
    #[arg(long)]
    kid: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    file: PathBuf,
    /// The public key (base64, or a PEM file) to verify it by, instead of the keys that the
    /// configuration trusts.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    format: Format,
}

fn read(path: &Path, wanted: &str) -> Result<String, Failure> {
    use io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text));
    read.map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::PermissionDenied => "run this as a user who may read it",
            _ => wanted,
        };
        Failure::usage(format!("{}: {error}; {mend}", path.display()))
    })?;
    Ok(text)
}

pub(super) fn sign(arguments: &SignArguments) -> Outcome {
    let key = read(&arguments.key, "name the file with the private key, made by licence keygen")?;
    let key = signed::read_private(&key);
    let key =
        key.map_err(|error| Failure::usage(format!("{}: {error}", arguments.key.display())))?;
    let stated = config::licences_from_text(
        &arguments.file,
        read(&arguments.file, "name the licence file to sign")?,
    )
    .map_err(|errors| Failure::configuration(&errors))?;
    for warning in &stated.warnings {
        note(&format!("warning: {warning}"));
    }
    let kid = arguments.kid.clone().unwrap_or_else(|| signed::key_id(&key.verifying_key()));
    check_kid(&kid)?;
    let json = config::stated_json(&stated.licences, &stated.apps);
    let text = signed::sign(&key, &kid, clock::now(), json).map_err(Failure::failed)?;
    say(&text)
}

/// What the configuration takes as a kid.
fn check_kid(kid: &str) -> Outcome {
    if (1..=128).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Failure::usage("--kid: write 1 to 128 visible ASCII characters without spaces"))
}

pub(super) fn keygen(arguments: &KeygenArguments) -> Outcome {
    let key = signed::generate().map_err(Failure::failed)?;
    let public = key.verifying_key();
    let kid = arguments.kid.clone().unwrap_or_else(|| signed::key_id(&public));
    check_kid(&kid)?;
    let pem = signed::private_pem(&key).ok_or_else(|| Failure::failed("the key has no PEM"))?;
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&arguments.file)
        .and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
    let path = arguments.file.display();
    written.map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::AlreadyExists => "no key is overwritten: name a file that is not there",
            io::ErrorKind::NotFound => "make the folder first",
            _ => "name a file in a folder that this user may write to",
        };
        Failure::failed(format!("{path}: {error}; {mend}"))
    })?;
    note(&format!("{path}: the private key; keep it where no gateway is"));
    note("For the gateways' configuration, under [licences]:");
    let key = signed::public_base64(&public);
    let kid = toml::Value::from(kid.as_str());
    say(&format!("trusted_keys = [{{ kid = {kid}, key = \"{key}\" }}]"))
}

pub(super) fn verify(arguments: &VerifyArguments, place: &Place) -> Outcome {
    let path = &arguments.file;
    let text = read(path, "name a signed licence file")?;
    let trusted = match &arguments.key {
        Some(key) => by_key(key, &text)?,
        None => config::trusted_keys(&place.config())
            .map_err(|errors| Failure::configuration(&errors))?,
    };
    let verified = signed::verify(&text, &trusted)
        .map_err(|error| Failure::failed(config::tell_distrust(path, &error)))?;
    let stated = config::licences_of_signed(path, &verified)
        .map_err(|errors| Failure { code: BAD_USAGE, message: errors.to_string() })?;
    let now = clock::now();
    let licences: Vec<_> = stated
        .licences
        .iter()
        .map(|declared| {
            let record = LicenceRecord {
                licence: declared.licence.clone(),
                // Only whether there is one is told.
                key: declared.key.as_ref().map(|_| KeyHash([0; 32])),
                origin: Origin::File { file: path.display().to_string().into(), line: 1 },
                revocation: None,
            };
            terms::view(&record, 0, now)
        })
        .collect();
    let apps: Vec<&str> = stated.apps.iter().map(|app| app.id.as_str()).collect();
    if arguments.format.json {
        say_json(&json!({
            "kid": verified.kid,
            "signed_at": verified.issued_at,
            "licences": licences,
            "apps": apps,
        }))?;
    } else {
        let at = instant(verified.issued_at);
        say(&format!("{}: good, signed by the key {} at {at}", path.display(), verified.kid))?;
        for licence in &licences {
            write(&format!("\n{}", details(licence)))?;
        }
        if !apps.is_empty() {
            say(&format!("\napps: {}", apps.join(", ")))?;
        }
    }
    let ended = |licence: &crate::admin::api::Licence| licence.end.is_some_and(|end| end <= now);
    if !licences.is_empty() && licences.iter().all(ended) {
        let what = "every licence in it has expired; get a new file from who signed it";
        return Err(Failure::failed(format!("{}: {what}", path.display())));
    }
    Ok(())
}

/// The one key that is stated, under whatever name the file gives it.
fn by_key(key: &str, text: &str) -> Result<Vec<TrustedKey>, Failure> {
    let bad = |error| Failure::usage(format!("--key: {error}"));
    let key = match signed::read_public(key) {
        Ok(key) => key,
        Err(error) if !Path::new(key).exists() => return Err(bad(error)),
        Err(_) => signed::read_public(&read(Path::new(key), "name the file with the public key")?)
            .map_err(bad)?,
    };
    let kid = signed::claimed_kid(text).unwrap_or_default();
    Ok(vec![TrustedKey { kid, key }])
}
