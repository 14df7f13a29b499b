use proptest::prelude::*;

use super::*;

/// Every event as text, DATA joined so that it does not matter how it was cut.
fn events(pieces: &[&[u8]]) -> Result<Vec<String>, Broken> {
    let mut reader = Reader::default();
    let mut out: Vec<String> = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, event) = reader.next(rest)?;
            let had_event = event.is_some();
            match event {
                Some(Event::Data { stream, piece, end, .. }) => {
                    body.extend_from_slice(piece);
                    if end {
                        out.push(format!("{stream} {:?}", String::from_utf8_lossy(&body)));
                        body.clear();
                    }
                }
                Some(event) => out.push(format!("{event:?}")),
                None => {}
            }
            rest = &rest[used..];
            if rest.is_empty() && !had_event {
                break;
            }
        }
    }
    Ok(out)
}

fn stream() -> Vec<u8> {
    let mut out = Vec::new();
    put_greeting(false, &mut out);
    put_headers(b"block", 1, false, &mut out);
    put_head(5, kind::DATA, 0, 1, &mut out);
    out.extend_from_slice(b"hello");
    put_head(0, kind::DATA, 0, 1, &mut out);
    put_head(9, kind::DATA, flag::PADDED | flag::END_STREAM, 1, &mut out);
    out.extend_from_slice(b"\x02 world\0\0");
    // A block in three parts, with padding and a priority before the first.
    put_head(10, kind::HEADERS, flag::END_STREAM | flag::PADDED | flag::PRIORITY, 3, &mut out);
    out.extend_from_slice(b"\x01pppppabc\0");
    put_head(0, kind::CONTINUATION, 0, 3, &mut out);
    put_head(3, kind::CONTINUATION, flag::END_HEADERS, 3, &mut out);
    out.extend_from_slice(b"def");
    put_head(3, 0xbe, 0xff, 3, &mut out);
    out.extend_from_slice(b"any");
    put_settings_ack(&mut out);
    put_head(8, kind::PING, 0, 0, &mut out);
    out.extend_from_slice(b"12345678");
    put_reset(5, CANCEL, &mut out);
    put_head(10, kind::GOAWAY, 0, 0, &mut out);
    out.extend_from_slice(b"\0\0\0\x07\0\0\0\x02no");
    put_window(7, 99, &mut out);
    put_head(0, kind::DATA, flag::END_STREAM, 7, &mut out);
    out
}

fn expected() -> Vec<String> {
    let headers = |stream, block, end| format!("{:?}", Event::Headers { stream, block, end });
    let settings = Settings {
        max_streams: Some(10_000),
        window: Some(MAX_WINDOW as u32),
        ..Settings::default()
    };
    vec![
        format!("{:?}", Event::Settings(settings)),
        format!("{:?}", Event::Window { stream: 0, more: (MAX_WINDOW - FIRST_WINDOW) as u32 }),
        headers(1, b"block", false),
        "1 \"hello world\"".to_owned(),
        headers(3, b"abcdef", true),
        format!("{:?}", Event::Ping(*b"12345678")),
        format!("{:?}", Event::Reset { stream: 5, code: CANCEL }),
        format!("{:?}", Event::GoAway { last: 7, code: 2 }),
        format!("{:?}", Event::Window { stream: 7, more: 99 }),
        "7 \"\"".to_owned(),
    ]
}

#[test]
fn one_piece() {
    assert_eq!(events(&[&stream()]), Ok(expected()));
}

#[test]
fn every_single_split_and_byte_by_byte() {
    let stream = stream();
    for at in 0..stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(events(&[left, right]), Ok(expected()), "split at {at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(events(&bytes), Ok(expected()));
}

#[test]
fn what_may_not_be_is_refused() {
    let frame = |length: usize, kind, flags, stream| {
        let mut out = Vec::new();
        put_head(length, kind, flags, stream, &mut out);
        out.resize(out.len() + length.min(100), 1);
        out
    };
    for (bytes, error) in [
        (frame(16_385, kind::DATA, 0, 1), Broken::FrameSize),
        (frame(7, kind::PING, 0, 0), Broken::FrameSize),
        (frame(3, kind::WINDOW_UPDATE, 0, 0), Broken::FrameSize),
        (frame(5, kind::SETTINGS, 0, 0), Broken::FrameSize),
        (frame(7, kind::GOAWAY, 0, 0), Broken::FrameSize),
        (frame(0, kind::DATA, flag::PADDED, 1), Broken::FrameSize),
        (frame(1, kind::DATA, flag::PADDED, 1), Broken::Protocol),
        (frame(1, kind::CONTINUATION, flag::END_HEADERS, 1), Broken::Protocol),
        (frame(9, kind::PUSH_PROMISE, flag::END_HEADERS, 1), Broken::Protocol),
    ] {
        assert_eq!(events(&[&bytes]), Err(error), "{bytes:?}");
    }
    let mut interrupted = frame(1, kind::HEADERS, 0, 1);
    interrupted.extend(frame(8, kind::PING, 0, 0));
    assert_eq!(events(&[&interrupted]), Err(Broken::Protocol));
    let mut endless = frame(1, kind::HEADERS, 0, 1);
    for _ in 0..5 {
        put_head(16_384, kind::CONTINUATION, 0, 1, &mut endless);
        endless.resize(endless.len() + 16_384, 1);
    }
    assert_eq!(events(&[&endless]), Err(Broken::Compression));
    let mut window = Vec::new();
    put_head(6, kind::SETTINGS, 0, 0, &mut window);
    window.extend_from_slice(&[0, 4, 0x80, 0, 0, 0]);
    assert_eq!(events(&[&window]), Err(Broken::Window));
}

proptest! {
    #[test]
    fn any_splits(mut cuts in proptest::collection::vec(0usize..300, 0..12)) {
        let stream = stream();
        cuts.iter_mut().for_each(|cut| *cut %= stream.len());
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        pieces.push(&stream[from..]);
        prop_assert_eq!(events(&pieces), Ok(expected()));
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = events(&[&noise]);
    }
}
