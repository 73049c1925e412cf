//! Files that are broken: what is told of them, how much, and what is never shown.

use std::fs;

use proptest::prelude::*;

use super::{Folder, plain};

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
