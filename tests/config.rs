//! The configuration from the outside: files in, settings or errors out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use seatgate::config::{
    ConfigErrors, Env, Language, Loaded, LogFormat, Secret, Settings, StoreBackend, UserIds,
    certificate_warnings, load, load_with,
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
fn files_of_other_editors_are_read() {
    let licences = fs::read_to_string("conf/licences.toml").unwrap();
    let shipped = fs::read_to_string("conf/seatgate.toml").unwrap();
    let convert = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let files: [(&str, &str); 2] =
        [("seatgate.toml", &convert(&shipped)), ("licences.toml", &convert(&licences))];
    let loaded = Folder::new(&files).load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.settings.licences[0].place.line, 19);

    let bad = convert("[log]\n# 许可证\nlevel = 1\n");
    let errors = Folder::new(&[("seatgate.toml", &bad), ("licences.toml", &licences)]).errors();
    assert!(errors.starts_with("seatgate.toml:3:9: [log] level: "), "{errors}");
}

#[test]
fn deep_and_large_files_are_survived() {
    let deep = ".a".repeat(300_000);
    for text in
        [format!("a{deep} = 1"), format!("[a{deep}]"), format!("a = {}", "[".repeat(300_000))]
    {
        assert!(plain(&text).errors().contains("recur"));
    }
    let mut licences = "[[app]]\nid = 'a'\napi_key = 'b'\n".to_owned();
    for number in 0..20_000 {
        licences += &format!("[[licence]]\nid = 'l{number}'\napp = 'a'\nkey = 'K{number}'\n");
    }
    let files: [(&str, &str); 2] =
        [("seatgate.toml", "licences.default = 'l19999'"), ("licences.toml", &licences)];
    let loaded = Folder::new(&files).load().unwrap();
    assert_eq!((loaded.settings.licences.len(), loaded.warnings.len()), (20_000, 0));
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

#[test]
fn systemd_says_where_files_are_written() {
    let folder = plain("server.state_directory = 'stated'");
    let load = |state: Option<&str>, runtime: Option<&str>| {
        let env = Env {
            state_directory: state.map(Into::into),
            runtime_directory: runtime.map(Into::into),
            ..Env::default()
        };
        let settings = load_with(&folder.path("seatgate.toml"), &env).unwrap().settings;
        let StoreBackend::Embedded { path } = settings.store.backend else { panic!("embedded") };
        (path, settings.admin.socket)
    };
    let expect = |store: &str, socket: &str| (PathBuf::from(store), PathBuf::from(socket));
    assert_eq!(load(None, None), expect("stated/seatgate.db", "stated/admin.sock"));
    assert_eq!(
        load(Some("/var/lib/seatgate:/var/lib/other"), None),
        expect("/var/lib/seatgate/seatgate.db", "/var/lib/seatgate/admin.sock")
    );
    assert_eq!(
        load(Some("/var/lib/seatgate"), Some("/run/seatgate:/run/other")),
        expect("/var/lib/seatgate/seatgate.db", "/run/seatgate/admin.sock")
    );
    let absolute = plain("store.path = '/a/b.db'\nadmin.socket = '/c/d.sock'").settings();
    assert_eq!(absolute.admin.socket, Path::new("/c/d.sock"));
    assert!(matches!(
        absolute.store.backend,
        StoreBackend::Embedded { path } if path == Path::new("/a/b.db")
    ));
}

#[test]
fn secrets_are_read_from_files_within_limits() {
    let large = "x".repeat(64 * 1024);
    let with = |name: &str, content: &[u8]| {
        let text = "document_server.token_secret_file = 'jwt'\nlicences.files = []\n";
        let folder = Folder::new(&[("seatgate.toml", text)]);
        fs::write(folder.path(name), content).unwrap();
        folder
    };
    for (content, expected) in [
        ("s3cret\n", "s3cret"),
        ("s3cret\r\n", "s3cret"),
        ("s3cret", "s3cret"),
        (" s3 cret \n\n", " s3 cret \n"),
        (large.as_str(), large.as_str()),
    ] {
        let settings = with("jwt", content.as_bytes()).settings();
        let secrets = settings.document_server.secrets.inbox.clone().unwrap();
        assert_eq!(secrets[0].expose(), expected);
    }
    let too_large = format!("{large}x");
    for (name, content, expected) in [
        ("jwt", b"".as_slice(), "cannot read jwt: it is empty; write the secret into it"),
        ("jwt", b"\n", "cannot read jwt: it is empty; write the secret into it"),
        ("jwt", b"a\n\xff", "cannot read jwt: line 2 is not UTF-8; save it as UTF-8"),
        ("jwt", too_large.as_bytes(), "cannot read jwt: it is larger than 64KiB; "),
        ("other", b"a", "cannot read jwt: No such file or directory; create it, "),
    ] {
        let errors = with(name, content).errors();
        let place = "seatgate.toml:1:37: [document_server] token_secret_file: ";
        assert!(errors.starts_with(&format!("{place}{expected}")), "{errors}");
    }
}

#[test]
fn a_credential_goes_before_a_file_of_the_same_name() {
    let text = "document_server.token_secret_file = 'jwt'\n\
                document_server.inbox_secret_file = 'inbox'\nlicences.files = []\n";
    let folder = Folder::new(&[("seatgate.toml", text), ("jwt", "beside"), ("inbox", "beside")]);
    let credentials = Folder::new(&[("jwt", "credential")]);
    let load = |credentials: &str| {
        let env = Env { credentials_directory: Some(credentials.into()), ..Env::default() };
        let settings = load_with(&folder.path("seatgate.toml"), &env).unwrap().settings;
        let secrets = &settings.document_server.secrets;
        let first = |secrets: &Option<Vec<Secret>>| secrets.clone().unwrap()[0].expose().to_owned();
        [first(&secrets.browser), first(&secrets.inbox)]
    };
    assert_eq!(load(credentials.0.path().to_str().unwrap()), ["credential", "beside"]);
    for none in ["", "relative", "/nowhere"] {
        assert_eq!(load(none), ["beside", "beside"], "{none}");
    }
}

#[test]
fn files_that_are_not_there_or_too_large_are_told() {
    let error = load_here("nowhere/seatgate.toml").unwrap_err().to_string();
    assert_eq!(
        error,
        "nowhere/seatgate.toml: cannot read nowhere/seatgate.toml: No such file or directory; \
         create it, or name another with --config"
    );
    let error = load(Path::new("conf")).unwrap_err().to_string();
    assert_eq!(error, "conf: cannot read conf: it is a folder; name the file in it");

    let errors = Folder::new(&[("seatgate.toml", "[licences]")]).errors();
    assert_eq!(
        errors,
        "seatgate.toml:1:1: [licences]: cannot read licences.toml: No such file or directory; \
         create it, or remove it from [licences] files"
    );
    let comment = format!("#{}", "x".repeat(16 << 20));
    let large = Folder::new(&[("seatgate.toml", ""), ("licences.toml", &comment)]);
    assert!(large.errors().contains("licences.toml: it is larger than 16MiB; "));
    let large = Folder::new(&[("seatgate.toml", &comment), ("licences.toml", "")]);
    assert!(large.errors().contains("seatgate.toml: it is larger than 16MiB; "));
}

#[test]
fn rubbish_is_told_in_a_bounded_number_of_lines() {
    let rubbish = "a = 1\nb = [\nc c c\n= =\n\"\n".repeat(10_000);
    let errors = plain(&rubbish).load().unwrap_err();
    assert!(errors.iter().count() <= 500);
    let many: String = (0..2_000).map(|number| format!("key{number} = 1\n")).collect();
    let errors = plain(&many).load().unwrap_err();
    assert_eq!((errors.iter().count(), errors.count()), (500, 2_000));
    assert!(errors.to_string().ends_with("\nand 1500 more errors"));
}

#[test]
fn secrets_show_in_no_error_warning_or_setting() {
    const SECRET: &str = "hunter2hunter2";
    let good = format!(
        "[document_server]\ntoken_secret = ['{SECRET}', '{SECRET}']\nbrowser_secret = '{SECRET}'\n\
         [notify]\nurl = 'https://hooks.example'\nsecret = '{SECRET}'\n\
         [[tenant]]\nname = 'a'\nhosts = ['a']\nlicence = 'l'\ntoken_secret = '{SECRET}'\n"
    );
    let licences = format!(
        "[[app]]\nid = 'a'\napi_key = '{SECRET}'\n\
         [[licence]]\nid = 'l'\napp = 'b'\nkey = '{SECRET}'\n"
    );
    let files: [(&str, &str); 2] = [("seatgate.toml", &good), ("licences.toml", &licences)];
    let loaded = Folder::new(&files).load().unwrap();
    assert!(!loaded.warnings.is_empty());
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(!format!("{:?}", loaded.warnings).contains("hunter2"));

    for bad in [
        "[document_server]\ntoken_secret = SECRET",
        "[document_server]\ntoken_secret = \"SECRET",
        "[document_server]\ntoken_secret = 'SECRET\nx = 1",
        "[document_server]\ntoken_secret = \"SECRET\" SECRET",
        "[document_server]\ntoken_secret = \"\"SECRET\"",
        "[document_server]\ntoken_secret = \"\\SECRET\"",
        "[document_server]\ntoken_secret = \"\"\"SECRET\nSECRET",
        "[document_server]\ntoken_secret = { SECRET = 'SECRET' }",
        "[document_server]\ntoken_secret: SECRET",
        "[document_server]\ntoken_secret = ['SECRET', 1, '']",
        "[document_server]\ntoken_secret = ['SECRET' 'SECRET']",
        "[document_server]\ntoken_secret = 'SECRET'\ntoken_secret_file = 'x'",
        "[document_server]\ntoken_secret = 'SECRET'\ntoken_secret = 'SECRET'",
        "[document_server]\ntoken_secrte = 'SECRET'",
        "[document_server]\naddresses = ['http://user:SECRET@host:80', 'user:SECRET@host:80']",
        "[store]\nbackend = 'redis'\nurl = 'redis://:SECRET@host:x'",
        "[store]\nbackend = 'redis'\nurl = 'http://:SECRET@host'",
        "[notify]\nurl = 'ftp://hooks.example/SECRET'",
        "[notify]\nsecret = 'SECRET'",
        "[notify]\nsecret = ['SECRET']\nurl = 'https://hooks.example'",
    ] {
        let errors = plain(&bad.replace("SECRET", SECRET)).load().expect_err(bad);
        assert!(!errors.to_string().contains("hunter2"), "{bad}: {errors}");
        assert!(!format!("{errors:?}").contains("hunter2"), "{bad}: {errors:?}");
    }
    for bad in [
        "[[app]]\nid = 'a'\napi_key = 'SECRET SECRET'",
        "[[app]]\nid = 'a'\napi_key_sha256 = 'SECRET'",
        "[[app]]\nid = 'a'\napi_key = 'SECRET'\napi_key_sha256 = 'SECRET'",
        "[[licence]]\nid = 'l'\nkey = 'SECRET SECRET'",
        "[[licence]]\nid = 'l'\nkey = 'SECRET'\n[[licence]]\nid = 'm'\nkey = 'SECRET'",
    ] {
        let licences = bad.replace("SECRET", SECRET);
        let files: [(&str, &str); 2] = [("seatgate.toml", ""), ("licences.toml", &licences)];
        let errors = Folder::new(&files).load().expect_err(bad);
        assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{bad}: {errors}");
    }
}

/// Pieces that together make files that are nearly right.
fn nearly_toml() -> impl Strategy<Value = Vec<u8>> {
    let shipped = fs::read("conf/seatgate.toml").unwrap();
    let length = shipped.len();
    let damage = (0..length, 0..40_usize, prop::collection::vec(any::<u8>(), 0..8));
    prop::collection::vec(damage, 0..6).prop_map(move |damages| {
        let mut bytes = shipped.clone();
        for (at, cut, new) in damages {
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, new);
        }
        bytes
    })
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]a-c=\"'.,{}# \n0-9:TZ+-]{0,80}".prop_map(String::into_bytes),
        "(\\[\\[?(tenant|server|licences|a)\\]?\\]\n|[a-c.]{1,4} = ([0-9]|\"x\"|\\[\\]|\\{\\})\n){0,8}"
            .prop_map(String::into_bytes),
        nearly_toml(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever stands in the files, loading ends with settings or with errors that name places.
    #[test]
    fn any_bytes_are_loaded_or_refused(config in any_file(), licences in any_file()) {
        let folder = Folder::new(&[("licences.toml", "")]);
        fs::write(folder.path("seatgate.toml"), &config).unwrap();
        if let Err(errors) = folder.load() {
            prop_assert!(errors.count() > 0);
            prop_assert_eq!(errors.to_string().lines().count(), errors.iter().count());
        }
        fs::write(folder.path("seatgate.toml"), "").unwrap();
        fs::write(folder.path("licences.toml"), &licences).unwrap();
        if let Err(errors) = folder.load() {
            prop_assert!(errors.to_string().contains("licences.toml"));
        }
    }
}
