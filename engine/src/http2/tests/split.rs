//! However bytes are cut on their way, they mean the same: the fuzz targets on made-up traffic.

use proptest::prelude::*;

use super::*;

/// Frames that mostly make sense, now and then not.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let id = (0u32..8).prop_map(|n| 2 * n + 1);
    let one = (0u8..16, id, any::<bool>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40));
    let one = one.prop_map(|(kind, id, end, n, bytes)| match kind {
        0..=3 => headers(id, end, GET),
        4 | 5 => data(id, end, &bytes),
        6 => headers(id, end, &status("200")),
        7 => rst(id, ErrorCode(n % 14)),
        8 => window_update(if end { 0 } else { id }, n % 100_000),
        9 => frame(kind::PING, u8::from(end), 0, &n.to_be_bytes().repeat(2)),
        10 => settings(&[((n % 9) as u16, n % 70_000)]),
        11 => {
            let fields = block(&[GET, &[("a", "b"); 30]].concat()[..4 + (n % 31) as usize]);
            let (first, second) = fields.split_at(fields.len() / 2);
            [
                frame(kind::HEADERS, u8::from(end), id, first),
                frame(kind::CONTINUATION, flag::END_HEADERS, id, second),
            ]
            .concat()
        }
        12 => data(id, end, &vec![b'x'; (n % 16_385) as usize]),
        13 => frame(
            kind::DATA,
            flag::PADDED | u8::from(end),
            id,
            &[&[3], &bytes[..], &[0; 3]].concat(),
        ),
        14 => headers(id, true, &[("x-sum", "1")]),
        _ => frame((n % 14) as u8, (n >> 8) as u8, id, &bytes),
    });
    prop::collection::vec(one, 0..20).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events(step in any::<u8>(), bytes in traffic()) {
        let input = [&[step], &bytes[..]].concat();
        fuzz_http2_server(&input);
        fuzz_http2_client(&input);
    }

    #[test]
    fn any_block_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_hpack(&bytes);
    }
}
