//! Every disguise of a path, and what is no path.

use proptest::prelude::*;

use super::*;

fn router() -> Router {
    Router::new("/docs", "/licences/api/validate")
}

#[test]
fn every_spelling_of_a_guarded_path_is_guarded() {
    for path in [
        "/info",
        "/info/",
        "/info/info.json",
        "/INFO/info.json",
        "//info",
        "/./info",
        "/x/../info",
        "/x/..//info/",
        "/%69nfo",
        "/%2569nfo",
        "/%252569nfo",
        "/x/%2e%2e/info",
        "/x%2f..%2finfo",
        "\\info",
        "/info#x",
        "/info%23",
        "/info%3Fx",
        "/info\\info.json",
        "info",
        "/../../info",
        "/9.3.0-abc/info/info.json",
        "/9.3.0.abc/info",
        "/9.3.0|abc/info",
        "/9.3.0-abc/9.3.0-abc/info",
        "/docs/info",
        "/DOCS/info",
        "/docs/9.3.0-abc/internal/connections/edit",
        "/9.3.0-abc/docs/internal",
        "/internal",
        "/doc/../info",
        "/doc/%2e%2e/info",
        "/doc/x%2f%2e%2e%2f%2e%2e%2finternal",
        "/info/../doc/x",
        "/info/../healthcheck",
        // A query or a fragment to some readers, a name to others.
        "/x%23/../info",
        "/x%3F/..%2finfo",
        "/%2523x/../info",
        // One segment to some readers, two to others.
        "/i/a%2fb/../%2e%2e/info",
        "/i/a\\b/../../info",
        "/i/a\\b/../c\\..\\..\\info",
        "/info//../info.json",
        "/a//../b/\\../../info/\\../x",
    ] {
        assert_eq!(router().route(path.as_bytes()), Ok(Route::Guarded), "{path}");
    }
}

#[test]
fn routes() {
    for (path, expected) in [
        ("/doc/k1/c/", Route::Coauthoring),
        ("/doc/", Route::Coauthoring),
        ("/doc", Route::Coauthoring),
        ("/doc/a/b/c/d", Route::Coauthoring),
        ("/9.3.0-abc/doc/k1/c/", Route::Coauthoring),
        ("/docs/9.3.0-abc/doc/k1/c/", Route::Coauthoring),
        ("/%64oc/k1/c/", Route::Coauthoring),
        ("/docs/k1/c/", Route::Forward),
        ("/document", Route::Forward),
        ("/coauthoring/CommandService.ashx", Route::Command),
        ("/COAUTHORING/commandservice.ASHX/", Route::Command),
        ("/docs/coauthoring/CommandService.ashx", Route::Command),
        ("/9.3.0-abc/command", Route::Command),
        ("/command", Route::Command),
        ("/command/x", Route::Forward),
        ("/licences/api/validate", Route::Validate),
        ("/licences/api/validate/", Route::Validate),
        ("/", Route::Forward),
        ("", Route::Forward),
        ("/web-apps/apps/api/documents/api.js", Route::Forward),
        ("/information", Route::Forward),
        ("/x/info", Route::Forward),
        ("/9.3/info", Route::Forward),
        ("/%", Route::Forward),
        ("/%zz", Route::Forward),
    ] {
        assert_eq!(router().route(path.as_bytes()), Ok(expected), "{path}");
    }
}

#[test]
fn what_nobody_can_agree_about_is_an_error() {
    assert_eq!(router().route(b"/a%00b"), Err(PathError::Nul));
    assert_eq!(router().route(&[b'a'; MAX_PATH + 1]), Err(PathError::TooLong));
    assert_eq!(router().route(b"/%252525252541"), Err(PathError::TooManyLayers));
    let dotted = [b"/a/../".as_slice(), &[b'a'; MAX_DOTTED]].concat();
    assert_eq!(router().route(&dotted), Err(PathError::TooLong));
    assert_eq!(router().route(&[b'.'; MAX_DOTTED + 1]), Ok(Route::Forward), "a name");
    let maze = br"/a\b//../c%2fd%23/..\e%5c..%3f%2f..%2fg//%2e%2e/h\..%252f../%2e./i//..\..";
    assert_eq!(router().route(maze), Err(PathError::TooManyReadings));
}

#[test]
fn targets_lose_what_the_server_does_not_know_and_nothing_else() {
    for (target, prefix, strip, expected) in [
        ("/a/b?c=%2F", "", false, None),
        ("/docs/a?x=/docs/", "/docs", false, Some("/a?x=/docs/")),
        ("/docs", "/docs", false, Some("/")),
        ("/docs?x", "/docs", false, Some("/?x")),
        ("/docsx/a", "/docs", false, None),
        ("/9.3.0-abc/doc/k/c/?EIO=4", "", true, Some("/doc/k/c/?EIO=4")),
        ("/9.3.0-abc/doc/k/c/?EIO=4", "", false, None),
        ("/docs/9.3.0-abc/%20x", "/docs", true, Some("/%20x")),
        ("http://h.example/internal/x?y=1", "", false, Some("/internal/x?y=1")),
    ] {
        let request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        let found = forward_target(&request, prefix, strip);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{target}");
    }
}

#[test]
fn a_whole_url_as_target_is_routed_by_its_path() {
    for target in ["http://h/internal/connections", "HTTP://h/%69nfo", "http://h:80//info"] {
        let request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        assert_eq!(router().route(target_path(&request)), Ok(Route::Guarded), "{target}");
    }
}

#[test]
fn a_target_is_a_path_or_a_url_that_has_one() {
    for (target, good) in [
        ("/a", true),
        ("/a?b=c", true),
        ("*", true),
        ("http://h/a", true),
        ("HTTPS://h?b=c", true),
        ("http://h", true),
        ("http://h\\a", false),
        ("ftp://h/a", false),
        ("h:80", false),
        ("\\a", false),
    ] {
        let request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        assert_eq!(check_target(&request).is_ok(), good, "{target}");
    }
}

proptest! {
    #[test]
    fn no_disguise_opens_a_guarded_path(
        upper in any::<u8>(),
        encode in any::<u16>(),
        slashes in 1usize..4,
        dots in 0usize..3,
    ) {
        let mut path = "/".repeat(slashes);
        path.push_str(&"a/../".repeat(dots));
        for (index, letter) in "info".chars().enumerate() {
            let letter =
                if upper >> index & 1 == 1 { letter.to_ascii_uppercase() } else { letter };
            match encode >> (2 * index) & 3 {
                0 => path.push(letter),
                1 => path.push_str(&format!("%{:02x}", letter as u32)),
                2 => path.push_str(&format!("%25{:02X}", letter as u32)),
                _ => path.push_str(&format!("%2525{:02X}", letter as u32)),
            }
        }
        prop_assert_eq!(router().route(path.as_bytes()), Ok(Route::Guarded));
    }

    #[test]
    fn what_is_normal_is_what_normalising_leaves_alone(path in "[/.a-zA-Z?\\\\]{0,12}") {
        if is_normal(path.as_bytes()) {
            let forced = normalise(format!("{path}?").as_bytes()).into_owned();
            prop_assert_eq!(forced, path);
        }
    }

    #[test]
    fn any_bytes_never_panic(path in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = router().route(&path);
    }
}
