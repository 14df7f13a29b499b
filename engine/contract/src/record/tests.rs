use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const FULL: Record<'static> = Record {
    time_us: 1,
    duration_us: 2,
    first_byte_us: 3,
    connect_us: 4,
    epoch: 5,
    route: 6,
    upstream: u32::MAX,
    status: 502,
    reason: Reason::UpstreamReset,
    attempts: 2,
    retry_stopped: RetryStop::Body,
    version: 11,
    request_bytes: 7,
    response_bytes: u64::MAX,
    client: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 40_000)),
    target: Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 80)),
    request_id: b"0123456789abcdef",
    method: b"GET",
    host: b"api.example.com",
    path: b"/users/7",
    user_agent: b"curl/8.5.0",
    consumer: b"shop",
};

#[test]
fn a_record_survives_the_round_trip() {
    let mut out = [0xAA; MAX_RECORD];
    for record in [FULL, Record::default()] {
        let len = record.encode_into(&mut out).unwrap();
        assert_eq!(len, record.encoded_len());
        assert_eq!(Record::decode(&out[..len]), Some(record));
        // Exactly enough room is enough, one byte less is not.
        let mut tight = vec![0; len];
        assert_eq!(record.encode_into(&mut tight), Some(len));
        assert_eq!(tight, out[..len]);
        assert_eq!(record.encode_into(&mut tight[..len - 1]), None);
    }
}

#[test]
fn long_texts_are_cut() {
    let long = [b'x'; MAX_TEXT + 1];
    let record = Record {
        request_id: &long,
        method: &long,
        host: &long,
        path: &long,
        user_agent: &long,
        consumer: &long,
        client: FULL.target,
        target: FULL.target,
        ..FULL
    };
    let mut out = [0; MAX_RECORD];
    assert_eq!(record.encode_into(&mut out), Some(MAX_RECORD));
    let decoded = Record::decode(&out).unwrap();
    assert_eq!(decoded.path, &long[..MAX_TEXT]);
    assert_eq!((decoded.user_agent.len(), decoded.consumer.len()), (MAX_TEXT, MAX_TEXT));
}

#[test]
fn other_bytes_are_refused() {
    let mut out = [0; MAX_RECORD];
    let len = FULL.encode_into(&mut out).unwrap();
    assert_eq!(Record::decode(&[]), None);
    assert_eq!(Record::decode(&out[..len - 1]), None, "cut short");
    assert_eq!(Record::decode(&out[..len + 1]), None, "trailing");
    // Format, reason, tag of the client, length of a text past its bound, why no retry.
    let stop = RetryStop::ALL.len() as u8;
    let wrong = [(0, 9), (1, Reason::ALL.len() as u8), (6, 5), (61, 0xFF), (72, stop)];
    for (at, value) in wrong {
        let mut wrong = out[..len].to_vec();
        wrong[at] = value;
        assert_eq!(Record::decode(&wrong), None, "byte {at}");
    }
}

#[test]
fn a_reason_has_one_number_and_one_name() {
    for (number, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number);
        assert_eq!(Reason::from_u8(number as u8), Some(reason));
        let same = Reason::ALL.iter().filter(|other| other.name() == reason.name());
        assert_eq!(same.count(), 1, "{}", reason.name());
        assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    }
    assert_eq!(Reason::from_u8(Reason::ALL.len() as u8), None);
}

#[test]
fn a_stop_has_one_number_and_one_name() {
    for (number, stop) in RetryStop::ALL.into_iter().enumerate() {
        assert_eq!(stop as usize, number);
        assert_eq!(RetryStop::from_u8(number as u8), Some(stop));
        let same = RetryStop::ALL.iter().filter(|other| other.name() == stop.name());
        assert_eq!(same.count(), 1, "{}", stop.name());
    }
}

fn address() -> impl Strategy<Value = Option<SocketAddr>> {
    prop::option::of((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from))
}

proptest! {
    #[test]
    fn any_record_survives(
        numbers: [u64; 4],
        small: [u32; 5],
        status: u16,
        reason in 0..Reason::ALL.len(),
        client in address(),
        target in address(),
        texts in prop::array::uniform6(vec(any::<u8>(), 0..=MAX_TEXT)),
    ) {
        let record = Record {
            time_us: numbers[0],
            epoch: numbers[1],
            request_bytes: numbers[2],
            response_bytes: numbers[3],
            duration_us: small[0],
            first_byte_us: small[1],
            connect_us: small[2],
            route: small[3],
            upstream: small[4],
            status,
            reason: Reason::ALL[reason],
            attempts: small[0] as u8,
            retry_stopped: RetryStop::ALL[small[2] as usize % RetryStop::ALL.len()],
            version: small[1] as u8,
            client,
            target,
            request_id: &texts[0],
            method: &texts[1],
            host: &texts[2],
            path: &texts[3],
            user_agent: &texts[4],
            consumer: &texts[5],
        };
        let mut out = [0; MAX_RECORD];
        let len = record.encode_into(&mut out).unwrap();
        prop_assert_eq!(len, record.encoded_len());
        prop_assert_eq!(Record::decode(&out[..len]), Some(record));
    }

    #[test]
    fn forged_records_never_panic(
        changes in vec((0..100usize, any::<u8>()), 1..6),
        cut in 0..200usize,
    ) {
        let mut out = vec![0; MAX_RECORD];
        let len = FULL.encode_into(&mut out).unwrap();
        out.truncate(len);
        for (at, value) in changes {
            out[at] = value;
        }
        out.truncate(cut);
        if let Some(record) = Record::decode(&out) {
            let mut again = vec![0; MAX_RECORD];
            let len = record.encode_into(&mut again).unwrap();
            prop_assert_eq!(&again[..len], &out[..], "a record has one encoding");
        }
    }
}
