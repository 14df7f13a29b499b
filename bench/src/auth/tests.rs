use super::*;

#[test]
fn medians() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    assert_eq!(median(&[]), 0.0);
}

#[test]
fn full_handshakes_are_not_taken_for_resumed_ones() {
    let sample = |resumed, failures| Sample { resumed, failures, ..Sample::default() };
    let check = |case: Case, sample| case.check(Peer::Nginx, &sample);
    assert_eq!(check(Case::MtlsResumed, sample(0.995, 0)), Ok(()));
    let told = check(Case::MtlsResumed, sample(0.5, 0)).unwrap_err();
    assert!(told.starts_with("50.0 % of the handshakes with nginx resumed"), "{told}");
    assert!(told.contains("99 % have to") && told.contains("mTLS, resumed"), "{told}");
    assert_eq!(check(Case::ApiKey, sample(0.0, 0)), Ok(()), "without TLS");
    assert!(check(Case::ApiKey, sample(0.0, 3)).unwrap_err().starts_with("3 requests"));
}

#[test]
fn the_report_says_how_many_resumed() {
    let mut row = Row::new(Peer::Sluice, Case::MtlsResumed);
    (row.open_us, row.asked_us) = (vec![100.0, 110.0, 120.0], vec![101.0, 112.0, 120.5]);
    row.resumed = vec![1.0, 0.999, 0.998, 1.0, 1.0, 1.0];
    let place = compare::place(0, 1, 1, 3, 1.0);
    let report = Report { place, rows: vec![row], verify_es256_us: 1.0, verify_rs256_us: 1.0 };
    let table = report.table();
    let line = table.lines().find(|line| line.starts_with("mTLS, resumed")).unwrap();
    assert!(line.contains("110.00") && line.contains("112.00"), "{line}");
    assert!(line.ends_with("0.50-2.00   a connection each, 99.8 % resumed"), "{line}");
    assert!(table.contains("met   mTLS, resumed: 0.9980 of the handshakes, at least 0.99"));
}

#[test]
fn who_takes_part_in_what() {
    for case in CASES {
        assert!(case.takes(Peer::Sluice));
        assert!(case.takes(Peer::Nginx) || case.takes(Peer::Envoy), "somebody to compare with");
    }
    assert!(Case::MtlsResumed.takes(Peer::Nginx) && !Case::MtlsResumed.takes(Peer::Envoy));
}
