//! What passes, what waits, and that chunking changes neither.

use proptest::prelude::*;

use super::*;

const AUTH: &str = r#"42["message",{"type":"auth","docid":"k","token":"t","user":{"id":"u"}}]"#;
const CURSOR: &str = r#"42["message",{"type":"cursor","cursor":"10;AgAAAA=="}]"#;

/// A message in frames cut at the given places.
fn frames(sender: Sender, opcode: Opcode, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    fragments(sender, opcode, text, cuts).concat()
}

/// Its frames, one by one.
fn fragments(sender: Sender, opcode: Opcode, text: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mask = (sender == Sender::Client).then_some([9, 8, 7, 6]);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(text.len());
    let mut start = 0;
    let last = ends.len() - 1;
    let mut all = Vec::new();
    for (index, end) in ends.into_iter().enumerate() {
        let mut out = Vec::new();
        write_frame(&mut out, opcode, mask, &text[start..end]);
        if index > 0 {
            out[0] &= 0xF0;
        }
        if index < last {
            out[0] &= 0x7F;
        }
        start = end;
        all.push(out);
    }
    all
}

fn frame(text: &str) -> Vec<u8> {
    frames(Sender::Client, Opcode::Text, text.as_bytes(), &[])
}

/// What passed, and what happened after how many passed bytes.
type Seen = (Vec<u8>, Vec<(usize, Event)>);

/// Shows `bytes` in chunks; returns what passed and what happened. Each `auth` passes.
fn run(inspector: &mut Inspector, bytes: &[u8], chunks: &[usize]) -> Result<Seen, Violation> {
    let mut passed = Vec::new();
    let mut events = Vec::new();
    let mut ends: Vec<usize> = chunks.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let mut start = 0;
    for end in ends {
        let mut chunk = &bytes[start..end];
        start = end;
        loop {
            let flow = inspector.inspect(chunk)?;
            passed.append(inspector.released());
            passed.extend_from_slice(&chunk[flow.pass.clone()]);
            assert!(flow.pass.end <= flow.taken);
            chunk = &chunk[flow.taken..];
            let Some(event) = flow.event else { break };
            events.push((passed.len(), event));
            if event == Event::Auth {
                inspector.pass_held();
            }
        }
    }
    passed.append(inspector.released());
    Ok((passed, events))
}

#[test]
fn what_does_not_matter_passes_at_once() {
    let mut inspector = Inspector::new(Sender::Client);
    for text in ["3", CURSOR, "40{}", r#"42["message",{"type":"saveChanges","changes":"["#] {
        let bytes = frame(text);
        let flow = inspector.inspect(&bytes);
        if text.ends_with('[') {
            assert_eq!(flow, Err(Violation::Ambiguous), "an event that never ends");
        } else {
            let expected = Flow { taken: bytes.len(), pass: 0..bytes.len(), event: None };
            assert_eq!(flow, Ok(expected), "{text}");
        }
    }
}

#[test]
fn an_auth_waits_and_nothing_overtakes_it() {
    let mut inspector = Inspector::new(Sender::Client);
    let auth = frame(AUTH);
    let bytes = [frame("3"), auth.clone(), frame(CURSOR)].concat();
    let before = frame("3").len();
    let flow = inspector.inspect(&bytes).unwrap();
    assert_eq!(flow.event, Some(Event::Auth));
    assert_eq!((flow.pass, flow.taken), (0..before, before + auth.len()));
    assert_eq!(inspector.text(), AUTH.as_bytes());
    inspector.pass_held();
    assert_eq!(*inspector.released(), auth);
}

#[test]
fn a_replaced_auth_is_one_masked_frame() {
    let mut inspector = Inspector::new(Sender::Client);
    let bytes = frames(Sender::Client, Opcode::Text, AUTH.as_bytes(), &[3, 20]);
    assert_eq!(inspector.inspect(&bytes).unwrap().event, Some(Event::Auth));
    inspector.replace_held(b"42[\"other\"]");
    let replaced = std::mem::take(inspector.released());
    let mut second = Inspector::new(Sender::Client);
    let flow = second.inspect(&replaced).unwrap();
    assert_eq!(flow, Flow { taken: replaced.len(), pass: 0..replaced.len(), event: None });
}

#[test]
fn goodbyes_and_giving_up_are_told() {
    let close = r#"42["message",{"type":"close"}]"#;
    let binary_close = r#"451-["message",{"type":"close","x":{"_placeholder":true,"num":0}}]"#;
    for (text, expected) in [
        ("41", Some(Event::Goodbye)),
        (close, Some(Event::GaveUpEditing)),
        (binary_close, None),
        ("1", None),
    ] {
        let flow = Inspector::new(Sender::Client).inspect(&frame(text)).unwrap();
        assert_eq!(flow.event, expected, "{text}");
    }
    for (payload, expected) in [
        (&[0x03, 0xE9][..], Some(Event::Goodbye)),
        (&[0x03, 0xE8], None),
        (&[], None),
        (&[3], None),
    ] {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Opcode::Close, Some([1, 2, 3, 4]), payload);
        let flow = Inspector::new(Sender::Client).inspect(&bytes).unwrap();
        assert_eq!((flow.event, flow.pass), (expected, 0..bytes.len()), "{payload:?}");
    }
}

#[test]
fn an_ambiguous_message_never_passes_whole() {
    let twice = r#"42["message",{"type":"cursor","x":1,"type":"auth"}]"#;
    assert_eq!(Inspector::new(Sender::Client).inspect(&frame(twice)), Err(Violation::Ambiguous));
    // In two pieces: the first may pass, the last must not.
    let bytes = frame(twice);
    let mut inspector = Inspector::new(Sender::Client);
    let cut = bytes.len() - 18;
    assert!(inspector.inspect(&bytes[..cut]).is_ok_and(|flow| flow.pass.end <= cut));
    assert_eq!(inspector.inspect(&bytes[cut..]), Err(Violation::Ambiguous));
}

#[test]
fn what_waits_is_bounded() {
    let mut inspector = Inspector::new(Sender::Client);
    let text = format!(r#"42["message",{{"x":"{}"}}]"#, "y".repeat(HOLD_LIMIT + 100_000));
    let bytes = frame(&text);
    let refused = bytes.chunks(60_000).find_map(|chunk| inspector.inspect(chunk).err());
    assert_eq!(refused, Some(Violation::HeldTooLong { limit: HOLD_LIMIT }));
    // The same bytes after a type that is known not to matter are nobody's business.
    let text =
        format!(r#"42["message",{{"type":"z","x":"{}"}}]"#, "y".repeat(HOLD_LIMIT + 100_000));
    let bytes = frame(&text);
    let mut inspector = Inspector::new(Sender::Client);
    for chunk in bytes.chunks(60_000) {
        inspector.inspect(chunk).unwrap();
        assert!(inspector.held.len() < 64, "nothing is kept");
    }
}

#[test]
fn our_words_fit_between_the_servers() {
    let mut inspector = Inspector::new(Sender::Server);
    assert!(inspector.at_message_boundary());
    let message = frames(Sender::Server, Opcode::Text, CURSOR.as_bytes(), &[40]);
    for cut in 1..message.len() {
        let mut inspector = Inspector::new(Sender::Server);
        let flow = inspector.inspect(&message[..cut]).unwrap();
        let passed_part = flow.pass.end > 0 && flow.pass.end < message.len();
        assert_eq!(inspector.at_message_boundary(), !passed_part, "{cut}");
    }
    inspector.inspect(&message).unwrap();
    assert!(inspector.at_message_boundary());
}

proptest! {
    #[test]
    fn any_chunking_passes_the_same_bytes_and_events(
        messages in prop::collection::vec(
            (
                prop_oneof![
                    Just(AUTH.as_bytes().to_vec()),
                    Just(CURSOR.as_bytes().to_vec()),
                    Just(b"41".to_vec()),
                    Just(b"3".to_vec()),
                    prop::collection::vec(any::<u8>(), 0..40),
                ],
                any::<bool>(),
                prop::collection::vec(any::<usize>(), 0..3),
            ),
            1..6,
        ),
        chunks in prop::collection::vec(any::<usize>(), 0..12),
        client in any::<bool>(),
    ) {
        let sender = if client { Sender::Client } else { Sender::Server };
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|(text, binary, cuts)| {
                let opcode = if *binary { Opcode::Binary } else { Opcode::Text };
                frames(sender, opcode, text, cuts)
            })
            .collect();
        let whole = run(&mut Inspector::new(sender), &bytes, &[]);
        let pieces = run(&mut Inspector::new(sender), &bytes, &chunks);
        match (whole, pieces) {
            (Ok((passed, events)), Ok((passed_in_pieces, events_in_pieces))) => {
                prop_assert_eq!(&passed, &bytes);
                prop_assert_eq!(passed_in_pieces, bytes);
                prop_assert_eq!(events, events_in_pieces);
            }
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            (one, other) => prop_assert!(false, "{one:?} {other:?}"),
        }
    }

    #[test]
    fn no_byte_of_an_auth_passes_before_the_verdict(
        cuts in prop::collection::vec(any::<usize>(), 0..4),
        chunks in prop::collection::vec(any::<usize>(), 0..10),
        pings in any::<bool>(),
    ) {
        let before = frame(CURSOR);
        let mut between = Vec::new();
        if pings {
            write_frame(&mut between, Opcode::Ping, Some([1, 2, 3, 4]), b"p");
        }
        let auth = fragments(Sender::Client, Opcode::Text, AUTH.as_bytes(), &cuts);
        let auth = auth.join(between.as_slice());
        let bytes = [before.clone(), auth].concat();
        let mut inspector = Inspector::new(Sender::Client);
        let (passed, events) =
            run(&mut inspector, &bytes, &chunks).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(events, vec![(before.len(), Event::Auth)]);
        prop_assert_eq!(passed, bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let _ = run(&mut Inspector::new(Sender::Client), &bytes, &chunks);
        let _ = run(&mut Inspector::new(Sender::Server), &bytes, &chunks);
    }
}

#[test]
fn what_a_server_says_is_judged_alike_however_it_is_cut() {
    let odd = r#"42["message",{"type":"x"y,{"#;
    let twice = r#"42["message",{"type":"x","type":"auth","result":1}]"#;
    let doubt = r#"42["message",{"type":"auth","type":"x"}]"#;
    let deep = format!(
        r#"42["message",{{"type":"auth","result":1,"participants":[{}{}]}}]"#,
        "[".repeat(600),
        "]".repeat(600)
    );
    // What may be a reply is judged, whatever a client made the server say in it.
    for (text, auths) in [(odd, 0), (twice, 0), (doubt, 1), (&*deep, 1)] {
        let bytes = frames(Sender::Server, Opcode::Text, text.as_bytes(), &[]);
        let whole = run(&mut Inspector::new(Sender::Server), &bytes, &[]);
        let events = &whole.as_ref().unwrap().1;
        assert_eq!(
            events.iter().filter(|(_, event)| *event == Event::Auth).count(),
            auths,
            "{text}"
        );
        for cut in 0..bytes.len() {
            let cut = run(&mut Inspector::new(Sender::Server), &bytes, &[cut]);
            assert_eq!(cut, whole, "{text}");
        }
    }
}

#[test]
fn a_control_frame_between_fragments_lets_none_of_them_go() {
    let mut ping = Vec::new();
    write_frame(&mut ping, Opcode::Ping, Some([1, 2, 3, 4]), b"p");
    let message = frames(Sender::Client, Opcode::Text, AUTH.as_bytes(), &[30]);
    let first = frames(Sender::Client, Opcode::Text, &AUTH.as_bytes()[..30], &[]).len();
    let bytes = [&message[..first], &ping, &message[first..]].concat();
    for cut in 0..bytes.len() {
        let mut inspector = Inspector::new(Sender::Client);
        let mut taken = 0;
        for chunk in [&bytes[..cut], &bytes[cut..]] {
            let flow = inspector.inspect(chunk).unwrap();
            assert!(flow.pass.is_empty() && inspector.released().is_empty(), "{cut}");
            taken += flow.taken;
        }
        assert_eq!(taken, bytes.len());
        inspector.replace_held(b"42[\"other\"]");
        let replaced = std::mem::take(inspector.released());
        let flow = Inspector::new(Sender::Client).inspect(&replaced).unwrap();
        assert_eq!((flow.taken, flow.event), (replaced.len(), None), "{cut}: one whole message");
    }
}

/// The server's words about a connection are found by the id in here.
#[test]
fn the_acknowledgement_of_a_connect_is_read_however_it_is_cut() {
    let packet = br#"40{"sid":"aB3-_x","pid":"77"}"#;
    for inner in 0..packet.len() {
        let bytes = frames(Sender::Server, Opcode::Text, packet, &[inner]);
        for outer in 0..bytes.len() {
            let mut inspector = Inspector::new(Sender::Server);
            let mut passed = Vec::new();
            let mut told = 0;
            let (first, second) = bytes.split_at(outer);
            for piece in [first, second] {
                let mut rest = piece;
                loop {
                    let flow = inspector.inspect(rest).unwrap();
                    passed.append(inspector.released());
                    passed.extend_from_slice(&rest[flow.pass.clone()]);
                    rest = &rest[flow.taken..];
                    match flow.event {
                        Some(Event::Connected) => {
                            assert_eq!(inspector.text(), packet, "{inner} {outer}");
                            told += 1;
                        }
                        Some(event) => panic!("{event:?}"),
                        None if rest.is_empty() => break,
                        None => {}
                    }
                }
            }
            assert_eq!((told, &passed), (1, &bytes), "{inner} {outer}");
        }
    }
}
