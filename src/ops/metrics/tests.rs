//! The names and labels of the contract.

use super::*;

#[test]
fn renders_the_names_of_the_contract() {
    let metrics = Metrics::new("1.2.3", "abc").unwrap();
    metrics.count_request("command", 200, Duration::from_millis(1));
    metrics.count_request("doc", 0, Duration::from_millis(1));
    metrics.count_admission(
        "default",
        SessionClass::Editor,
        Outcome::Rejected,
        Some(Reason::Connections),
    );
    metrics.note_start(Timestamp::from_millisecond(1_400_000_000_500).unwrap());
    metrics.note_reload(true, 1.5e9);
    let at = Timestamp::from_second(1_500_000_000).ok();
    assert_eq!(metrics.last_reload(), LastReload { successful: true, at });
    let guard = metrics.websocket();
    let sample = TenantSample {
        tenant: "default".into(),
        licence: "l1".into(),
        seats: vec![
            (SeatKind::EditorConnections, 2, 1, Some(5)),
            (SeatKind::EditorUsers, 0, 0, None),
        ],
        viewers: 3,
        devices: Some(4),
        result: 3,
        end: None,
    };
    assert_eq!(metrics.sharing(), None);
    let away = Sharing { connected: false, alone: 2, lost: 2, over: 1 };
    metrics.note_sharing(Sharing { connected: true, lost: 3, ..away });
    metrics.note_sharing(away);
    assert_eq!(metrics.sharing(), Some(away));
    let render = |samples: &[TenantSample]| {
        let servers = [("10.0.0.1:80".to_owned(), true), ("10.0.0.2:80".to_owned(), false)];
        let certificate = |name: &str, end| CertificateSample { name: name.to_owned(), end };
        let certificates =
            [certificate("a.example", 20), certificate("a.example", 10), certificate("b", 30)];
        let text = metrics.render(samples, &certificates, &servers, true).unwrap();
        String::from_utf8(text).unwrap()
    };
    let text = render(&[sample]);
    for line in [
        "seatgate_requests_total{code=\"200\",route=\"command\"} 1",
        "seatgate_requests_total{code=\"499\",route=\"doc\"} 1",
        "seatgate_admissions_total{class=\"editor\",outcome=\"rejected\",reason=\"connections\",tenant=\"default\"} 1",
        "seatgate_seats_used{kind=\"editor_connections\",tenant=\"default\"} 2",
        "seatgate_seats_grace{kind=\"editor_connections\",tenant=\"default\"} 1",
        "seatgate_seats_limit{kind=\"editor_connections\",tenant=\"default\"} 5",
        "seatgate_tenant_info{licence=\"l1\",tenant=\"default\"} 1",
        "seatgate_viewers_unlimited{tenant=\"default\"} 3",
        "seatgate_devices_bound{licence=\"l1\"} 4",
        "seatgate_certificate_end_timestamp_seconds{name=\"a.example\"} 10",
        "seatgate_certificate_end_timestamp_seconds{name=\"b\"} 30",
        "seatgate_validations_total{result=\"max_devices_reached\"} 0",
        "seatgate_store_errors_total{operation=\"bind\"} 0",
        "seatgate_store_up 0",
        "seatgate_seats_counted_alone 2",
        "seatgate_seats_lost_total 3",
        "seatgate_seats_overshoot_total 1",
        "seatgate_connections{transport=\"websocket\"} 1",
        "seatgate_connections{transport=\"polling\"} 0",
        "seatgate_build_info{revision=\"abc\",version=\"1.2.3\"} 1",
        "seatgate_config_last_reload_successful 1",
        "seatgate_upstream_up{address=\"10.0.0.1:80\"} 1",
        "seatgate_upstream_up{address=\"10.0.0.2:80\"} 0",
        "seatgate_draining 1",
        "seatgate_start_time_seconds 1400000000.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("seatgate_seats_limit{kind=\"editor_users\""));
    assert!(!text.contains("seatgate_licence_end_timestamp_seconds{"));
    drop(guard);
    let text = render(&[]);
    assert!(text.contains("seatgate_connections{transport=\"websocket\"} 0"));
    assert!(!text.contains("seatgate_seats_used{"), "a tenant that is gone is not shown");
}
