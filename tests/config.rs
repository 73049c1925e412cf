//! The configuration from the outside: files in, settings or errors out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "config/broken.rs"]
mod broken;
#[path = "config/files.rs"]
mod files;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seatgate::config::{
    ConfigErrors, Env, Language, Loaded, LogFormat, Settings, StoreBackend, UserIds,
    certificate_warnings, load_with,
};
use seatgate::tenant::{Mode, RefusalPolicy};

const FIXTURES: &str = "tests/fixtures/config";

fn load_here(path: impl AsRef<Path>) -> Result<Loaded, ConfigErrors> {
    load_with(path.as_ref(), &Env::default())
}

/// A folder with a configuration and other files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        load_here(self.path("seatgate.toml"))
    }

    fn settings(&self) -> Settings {
        self.load().unwrap().settings
    }

    /// The errors, without the folder's name.
    fn errors(&self) -> String {
        let errors = self.load().unwrap_err().to_string();
        errors.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// A configuration without licence files.
fn plain(text: &str) -> Folder {
    Folder::new(&[("seatgate.toml", &format!("licences.files = []\n{text}"))])
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(Path::new(FIXTURES).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| !path.file_stem().unwrap().to_str().unwrap().starts_with("licences"))
        .collect();
    paths.sort();
    paths
}

/// Each bad file has beside it the errors that it shall bring, `NAME.errors`. After a change of
/// wording, run with `SEATGATE_BLESS=1` to write them anew, and read the difference.
#[test]
fn bad_files_bring_exactly_their_errors() {
    let bless = std::env::var_os("SEATGATE_BLESS").is_some();
    let mut wrong = Vec::new();
    let paths = toml_files("bad");
    assert!(paths.len() > 10, "the fixtures are gone");
    for path in paths {
        let errors = load_here(&path).expect_err(&format!("{} is good", path.display()));
        let told = format!("{errors}\n").replace(&format!("{FIXTURES}/bad/"), "");
        assert_eq!(errors.count(), told.lines().count(), "one line for each error: {told}");
        let expected = path.with_extension("errors");
        if bless {
            fs::write(&expected, &told).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != told {
            wrong.push(format!("{}:\n{told}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Likewise with `NAME.warnings`; a good file without one brings no warning.
#[test]
fn good_files_bring_exactly_their_warnings() {
    let bless = std::env::var_os("SEATGATE_BLESS").is_some();
    for path in toml_files("good") {
        let loaded = load_here(&path).unwrap_or_else(|errors| panic!("{errors}"));
        let warnings = loaded.warnings.iter().map(|warning| format!("{warning}\n"));
        let told = warnings.collect::<String>().replace(&format!("{FIXTURES}/good/"), "");
        let expected = path.with_extension("warnings");
        if bless && !told.is_empty() {
            fs::write(&expected, &told).unwrap();
        }
        assert_eq!(fs::read_to_string(&expected).unwrap_or_default(), told, "{}", path.display());
    }
}

#[test]
fn the_shipped_configuration_is_what_the_documentation_says() {
    let Loaded { settings, warnings } = load_here("conf/seatgate.toml").unwrap();
    assert_eq!(warnings, []);
    assert_eq!(settings.server.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert!(settings.server.workers >= 1);
    assert_eq!(settings.server.state_directory, Path::new("data"));
    assert_eq!(settings.ops.listen, "127.0.0.1:9180".parse().unwrap());
    assert_eq!(settings.admin.socket, Path::new("data/admin.sock"));
    assert_eq!(settings.document_server.addresses, ["127.0.0.1:80"]);
    assert_eq!(settings.document_server.command_body_limit, 16 * 1024 * 1024);
    assert!(settings.document_server.secrets.inbox.is_none());
    assert_eq!(settings.enforcement.policy.mode, Mode::Enforce);
    assert_eq!(settings.enforcement.reconnect_grace, Duration::from_secs(30));
    assert!(matches!(
        &settings.store.backend,
        StoreBackend::Embedded { path } if path == Path::new("data/seatgate.db")
    ));
    assert_eq!(settings.validate.path, "/licences/api/validate");
    assert_eq!(settings.validate.language, Language::Zh);
    assert_eq!(settings.log.format, LogFormat::Auto);
    assert!(settings.notify.is_none());

    let [tenant] = settings.tenants.as_slice() else { panic!("one tenant") };
    assert_eq!((&*tenant.name, &*tenant.licence), ("default", "60f8a5d3e13823687d3e9c24"));

    let [app] = settings.apps.as_slice() else { panic!("one app") };
    assert_eq!(app.id, "app_abc123");
    let [declared] = settings.licences.as_slice() else { panic!("one licence") };
    assert_eq!(declared.key.as_ref().unwrap().expose(), "LIC-ABCDEF-123456-XYZ");
    assert_eq!(declared.place.file, Path::new("conf/licences.toml"));
    let licence = &declared.licence;
    assert_eq!(licence.app.as_deref(), Some("app_abc123"));
    assert_eq!(licence.issued_to, "公司名称");
    assert_eq!(licence.start.unwrap().to_string(), "2025-08-24T00:00:00Z");
    assert_eq!(licence.end.unwrap().to_string(), "2036-08-24T00:00:00Z");
    assert_eq!(licence.features, ["feature1", "feature2"]);
    assert_eq!(licence.max_devices, Some(3));
    let quota = licence.quota;
    assert_eq!((quota.connections, quota.connections_view), (0, 0));
    assert_eq!((quota.users_count, quota.users_view_count, quota.users_expire_days), (10, 10, 30));
}

#[test]
fn an_empty_file_is_the_shipped_configuration() {
    let licences = fs::read_to_string("conf/licences.toml").unwrap();
    let shipped = fs::read_to_string("conf/seatgate.toml").unwrap();
    let files: [(&str, &str); 3] =
        [("seatgate.toml", ""), ("shipped.toml", &shipped), ("licences.toml", &licences)];
    let folder = Folder::new(&files);
    let told = |loaded: Loaded| format!("{loaded:#?}");
    let shipped = load_here(folder.path("shipped.toml")).unwrap();
    assert_eq!(told(folder.load().unwrap()), told(shipped));
}

/// The line without its comment sign, if it shows a key or a table.
fn uncommented(line: &str) -> Option<&str> {
    let bare = line.strip_prefix("# ").unwrap_or(line);
    let (key, value) = bare.split_once(" = ").unwrap_or((bare, ""));
    let is_key =
        !value.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b"_0256".contains(&b));
    let is_table = bare.starts_with('[') && bare.ends_with(']');
    (is_key || is_table).then_some(bare)
}

/// A certificate of one name, and its key.
fn pair(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn certificates_go_with_listeners_and_names() {
    let (chain, key) = pair("acme.example");
    let (_, other_key) = pair("acme.example");
    let tenant = "[[tenant]]\nname = \"acme\"\nhosts = [\"acme.example\", \"x.example\"]\n\
                  licence = \"one\"\ncertificate = \"chain.pem\"\nprivate_key = \"key.pem\"\n";
    let listener = "[server.tls]\nlisten = [\"0.0.0.0:8443\"]\ncertificate = \"chain.pem\"\n\
                    private_key = \"key.pem\"\n";
    let folder = |config: &str, key: &str| {
        let config = format!("licences.files = []\n{config}");
        Folder::new(&[("seatgate.toml", &config), ("chain.pem", &chain), ("key.pem", key)])
    };
    let errors = folder(tenant, &key).errors();
    assert!(
        errors.contains("certificate: there is no TLS listener that would show it"),
        "{errors}"
    );
    let errors = folder(listener, &other_key).errors();
    assert!(
        errors.contains("private_key: key.pem: the private key in it does not belong"),
        "{errors}"
    );
    let loaded = folder(&format!("{listener}{tenant}"), &key).load().unwrap();
    let tls = loaded.settings.server.tls.clone().unwrap();
    assert_eq!(tls.certificates.len(), 2);
    assert_eq!(tls.certificates[1].certificate.names, ["acme.example"]);
    let warned: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(warned.iter().any(|line| line.contains("does not name the host \"x.example\"")));
    let end = tls.certificates[0].certificate.end;
    let told = |days: i64| {
        let now = end - jiff::SignedDuration::from_hours(24 * days);
        let warnings = certificate_warnings(&loaded.settings, now);
        warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(22), [""; 0]);
    assert!(told(20)[0].contains("the certificate of acme.example ends at"), "{:?}", told(20));
    assert!(told(0)[0].contains("is over since"), "{:?}", told(0));

    let unused = folder("[document_server]\ntls_verify = false", &key).load().unwrap();
    assert!(unused.warnings[0].to_string().contains("the addresses are without TLS"));
    let hidden = format!("{:?}", loaded.settings);
    assert!(!hidden.contains("PRIVATE") && !hidden.contains("Signing"), "{hidden}");
}

/// With all that the shipped files show in comments, nothing is wrong but what cannot stand
/// together.
#[test]
fn the_commented_keys_of_the_shipped_files_are_good() {
    let shown = |name: &str| {
        let shipped = fs::read_to_string(Path::new("conf").join(name)).unwrap();
        let lines = shipped.lines().map(|line| uncommented(line).unwrap_or(""));
        lines.filter(|line| !line.is_empty()).fold(String::new(), |all, line| all + line + "\n")
    };
    let config = shown("seatgate.toml");
    assert!(config.lines().count() > 80, "{config}");
    let (chain, key) = pair("docs.acme.example");
    let mut files = vec![("seatgate.toml", config.as_str()), ("licences.toml", "")];
    let chains = ["certificate.pem", "other.pem", "acme.pem"];
    let authorities = ["client-authorities.pem", "document-server-ca.pem"];
    files.extend(chains.into_iter().chain(authorities).map(|name| (name, chain.as_str())));
    let keys = ["private-key.pem", "other-key.pem", "acme-key.pem"];
    files.extend(keys.map(|name| (name, key.as_str())));
    let errors = Folder::new(&files).errors();
    let expected = [
        "not valid TOML: duplicate key",
        "[document_server] token_secret_file: the secret is stated twice",
        "[store] ca_file: cannot read",
        "[store] certificate: cannot read",
        "[store] private_key: cannot read",
    ];
    assert_eq!(errors.lines().count(), expected.len(), "{errors}");
    for (line, expected) in errors.lines().zip(expected) {
        assert!(line.contains(expected), "{errors}");
    }

    let licences = shown("licences.toml");
    assert_eq!(licences.lines().count(), 21, "{licences}");
    let errors = Folder::new(&[("seatgate.toml", ""), ("licences.toml", &licences)]).errors();
    let expected = ["an API key and a hash of one", "stated twice, by api_key and api_key_file"];
    assert_eq!(errors.lines().count(), expected.len(), "{errors}");
    for (line, expected) in errors.lines().zip(expected) {
        assert!(line.contains(expected), "{errors}");
    }
}

#[test]
fn tenants_inherit_what_they_do_not_say() {
    let settings = load_here(Path::new(FIXTURES).join("good/full.toml")).unwrap().settings;
    let [default, acme, beta, gamma] = settings.tenants.as_slice() else { panic!("four tenants") };
    assert!(std::sync::Arc::ptr_eq(&gamma.document_server, &settings.document_server));

    let base = &settings.document_server;
    let exposed = |secrets: &Option<Vec<seatgate::config::Secret>>| {
        let secrets = secrets.iter().flatten();
        secrets.map(|secret| secret.expose().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(exposed(&base.secrets.browser), ["browser-one"]);
    assert_eq!(exposed(&base.secrets.inbox), ["from a file"]);
    assert_eq!(exposed(&base.secrets.session), ["all-new", "all-old"]);
    assert_eq!(base.path_prefix, "/docs");
    assert_eq!(base.read_timeout, Duration::from_secs(90));
    assert_eq!(base.build.date, "2026-01-02T03:04:05.000Z");

    assert_eq!(default.policy.over_limit, RefusalPolicy::View);
    assert_eq!(acme.hosts, ["docs.acme.example", "*.acme.example", "[::1]"]);
    assert_eq!(acme.policy.mode, Mode::Observe);
    assert_eq!(acme.policy.over_limit, RefusalPolicy::View);
    assert_eq!(exposed(&acme.document_server.secrets.inbox), ["acme"]);
    assert_eq!(exposed(&acme.document_server.secrets.browser), ["acme"]);
    assert_eq!(acme.document_server.addresses, base.addresses);

    assert_eq!(beta.document_server.addresses, ["beta_ds:8000", "[::1]:8000"]);
    assert!(beta.document_server.strip_version_prefix);
    assert_eq!(exposed(&beta.document_server.secrets.session), [""; 0]);
    assert_eq!(exposed(&beta.document_server.secrets.browser), ["beta-browser"]);
    assert_eq!(beta.document_server.build.version, "9.4.0");
    assert_eq!(beta.document_server.build.number, 138);
    assert_eq!(beta.document_server.read_timeout, Duration::from_secs(90));

    assert_eq!(settings.validate.allowed_origins, ["https://app.example", "capacitor://localhost"]);
    let networks: Vec<_> = settings.server.operators.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.1.2.3/32", "fd00::/8"]);
    assert_eq!(settings.notify.unwrap().secret.unwrap().expose(), "hook");
    assert_eq!(settings.usage.user_ids, UserIds::Plain);
    assert_eq!(settings.usage.retention, Duration::from_secs(90 * 86_400));
    assert_eq!(settings.licences.len(), 3);
    assert_eq!(settings.licences[1].licence.max_devices, None);
    assert_eq!(settings.licences[1].licence.quota.users_expire_days, 1);
    // Two ways to say the same API key.
    assert_eq!(settings.apps[0].api_key_sha256, settings.apps[1].api_key_sha256);
    assert_eq!(settings.apps[0].api_key_sha256, settings.apps[2].api_key_sha256);
}
