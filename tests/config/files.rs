//! Where the configuration comes from and where it leads: files, credentials, folders.

use std::fs;
use std::path::{Path, PathBuf};

use seatgate::config::{Env, Secret, StoreBackend, load, load_with};

use super::{Folder, load_here, plain};

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
