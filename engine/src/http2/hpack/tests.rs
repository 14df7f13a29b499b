//! Appendix C of RFC 7541, what must be refused, and round trips.

use proptest::prelude::*;

use super::encode::shortest;
use super::*;
use crate::message::Span;

#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    list: Vec<(String, String)>,
    valid: Vec<bool>,
    too_large: bool,
}

impl Sink for Fields {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn field(&mut self, name: Span, value: Span, _class: Class, valid: bool) {
        let text = |span: Span| String::from_utf8_lossy(span.of(&self.bytes)).into_owned();
        self.list.push((text(name), text(value)));
        self.valid.push(valid);
    }

    fn too_large(&mut self) {
        self.too_large = true;
    }
}

const ROOMY: Limits = Limits { size: 1 << 20, fields: 1000, give_up: 4 };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
    let mut fields = Fields::default();
    decoder.decode(block, &ROOMY, &mut fields)?;
    Ok(fields.list)
}

/// `lines` as "name: value".
fn assert_decodes(decoder: &mut Decoder, block: &str, lines: &[&str], size: usize) {
    let found = decode(decoder, &hex(block)).unwrap();
    let found: Vec<String> = found.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(found, lines);
    assert_eq!(decoder.dump().1, size, "table size after {block}");
}

#[test]
fn c_1_integers() {
    // C.1.2: 1337 with a 5-bit prefix, here as a table size; C.1.1 and C.1.3 are in all the rest.
    let mut decoder = Decoder::new(4096);
    assert!(decode(&mut decoder, &[0x3f, 0x9a, 0x0a]).is_ok());
    assert_eq!(decoder.table_max(), 1337);
}

#[test]
fn c_2_representations() {
    let fresh = || Decoder::new(4096);
    let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    assert_decodes(&mut fresh(), literal, &["custom-key: custom-header"], 55);
    assert_decodes(&mut fresh(), "040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"], 0);
    let never = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    assert_decodes(&mut fresh(), never, &["password: secret"], 0);
    assert_decodes(&mut fresh(), "82", &[":method: GET"], 0);
}

#[test]
fn c_3_and_c_4_requests() {
    let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
    let second = [&first[..], &["cache-control: no-cache"]].concat();
    let third = [
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ];
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        assert_decodes(&mut decoder, blocks[0], &first, 57);
        assert_decodes(&mut decoder, blocks[1], &second, 110);
        assert_decodes(&mut decoder, blocks[2], &third, 164);
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            decoder.dump().0,
            [
                text("custom-key", "custom-value"),
                text("cache-control", "no-cache"),
                text(":authority", "www.example.com"),
            ]
        );
    }
}

#[test]
fn c_5_and_c_6_responses_with_eviction() {
    let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
    let place = "location: https://www.example.com";
    let first = [":status: 302", "cache-control: private", date, place];
    let second = [":status: 307", "cache-control: private", date, place];
    let third = [
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        place,
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032
             303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63
             6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0
             5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851
             5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b
             ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160
             65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        assert!(decode(&mut decoder, &hex("3fe1 01")).is_ok(), "a table of 256");
        assert_decodes(&mut decoder, blocks[0], &first, 222);
        assert_decodes(&mut decoder, blocks[1], &second, 222);
        assert_decodes(&mut decoder, blocks[2], &third, 215);
    }
}

#[test]
fn broken_blocks_are_refused() {
    for (block, error) in [
        ("80", HpackError::Index),                    // Index 0 (§6.1).
        ("be", HpackError::Index),                    // Beyond an empty dynamic table (§2.3.3).
        ("7f00 0161", HpackError::Index),             // A name beyond it.
        ("ffff ffff ff0f", HpackError::Integer),      // §5.1
        ("ff80 8080 8000", HpackError::Integer),      // Zeros without end.
        ("4001 6184 ffff ffff", HpackError::Huffman), // EOS inside (§5.2).
        ("4001 6181 ff", HpackError::Huffman),        // Eight bits of padding.
        ("4001 6181 00", HpackError::Huffman),        // Padding of zeros.
        ("3fe2 1f", HpackError::TableSize),           // 4,097 (§6.3).
        ("8220", HpackError::TableSize),              // Not at the beginning (§4.2).
        ("4003 6161", HpackError::Truncated),
        ("40", HpackError::Truncated),
        ("4001 61", HpackError::Truncated),
        ("ff", HpackError::Truncated),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &hex(block)), Err(error), "{block}");
    }
}

#[test]
fn a_smaller_table_must_be_used_once_acknowledged() {
    let mut decoder = Decoder::new(100);
    assert!(decode(&mut decoder, &hex("82")).is_ok(), "not acknowledged yet");
    decoder.acknowledged(100);
    assert_eq!(decode(&mut decoder, &hex("82")), Err(HpackError::TableSize));
    assert!(decode(&mut decoder, &hex("3f45 82")).is_ok(), "100");
    assert_eq!(decode(&mut decoder, &hex("3f46 82")), Err(HpackError::TableSize), "101");
}

#[test]
fn an_entry_that_is_too_large_empties_the_table() {
    let mut decoder = Decoder::new(4096);
    assert!(decode(&mut decoder, &hex("4001 6101 62")).is_ok());
    assert_eq!(decoder.dump().1, 34);
    let mut block = vec![0x40, 1, b'c', 0x7f, 0x81, 0x1f]; // 4,096 bytes.
    block.extend_from_slice(&[b'x'; 4096]);
    assert_eq!(decode(&mut decoder, &block).unwrap().len(), 1, "the field itself is there");
    assert_eq!(decoder.dump(), (Vec::new(), 0));
}

#[test]
fn over_the_limit_contents_are_dropped_but_the_table_goes_on() {
    let limits = Limits { size: 100, fields: 10, give_up: 4 };
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::default();
    // 60 bytes with the overhead each; the second is over.
    let block = [hex("4001 611b"), vec![b'x'; 27], hex("4001 621b"), vec![b'y'; 27]].concat();
    decoder.decode(&block, &limits, &mut fields).unwrap();
    assert!(fields.too_large);
    assert_eq!(fields.list.len(), 1);
    assert!(fields.bytes.len() <= 100);
    assert_eq!(decode(&mut decoder, &hex("be")).unwrap(), [("b".to_owned(), "y".repeat(27))]);
    // As references to one large entry (the HPACK bomb): given up at four times the limit.
    let mut fields = Fields::default();
    let bomb = decoder.decode(&[0xbe; 1000], &limits, &mut fields);
    assert_eq!(bomb, Err(HpackError::TooLarge));
    assert!(fields.bytes.len() <= 100);
}

#[test]
fn values_are_judged_in_the_table_as_on_the_wire() {
    let mut decoder = Decoder::new(4096);
    for name in [&b"a"[..], b"A", b"a b", b""] {
        let mut block = vec![0x40, name.len() as u8];
        block.extend_from_slice(name);
        block.extend_from_slice(&[3, b'a', b'\n', b'b', 0xbe]);
        let mut fields = Fields::default();
        decoder.decode(&block, &ROOMY, &mut fields).unwrap();
        assert_eq!(fields.valid, [false, false], "{name:?}");
    }
}

#[test]
fn encoded_fields_use_the_static_table_and_hide_secrets() {
    let encoded = |name: &[u8], value: &[u8]| {
        let mut out = Vec::new();
        Encoder::field(&mut out, name, value);
        out
    };
    assert_eq!(encoded(b"Accept-Encoding", b"gzip, deflate"), [0x90]);
    assert_eq!(encoded(b"Content-Type", b"a"), [0x0f, 16, 1, b'a']);
    assert_eq!(encoded(b"Authorization", b"a"), [0x1f, 8, 1, b'a'], "never indexed");
    assert_eq!(encoded(b"X-B", b""), [0, 3, b'x', b'-', b'b', 0]);
    let mut out = Vec::new();
    Encoder::status(&mut out, 200);
    Encoder::status(&mut out, 418);
    assert_eq!(out, [0x88, 8, 3, b'4', b'1', b'8']);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        fields in prop::collection::vec(("[a-zA-Z-]{1,30}", "[ -~]{0,300}"), 0..20),
    ) {
        let mut block = Vec::new();
        for (name, value) in &fields {
            Encoder::field(&mut block, name.as_bytes(), value.as_bytes());
        }
        let expected: Vec<_> =
            fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        prop_assert_eq!(decode(&mut Decoder::new(4096), &block).unwrap(), expected);
    }

    /// Literals with indexing, references back, size changes: as a plain list of entries has it.
    #[test]
    fn the_table_is_as_the_model_says(
        steps in prop::collection::vec((0u8..4, "[a-z]{1,60}", "[a-z]{0,200}", any::<usize>()), 0..300),
    ) {
        let mut decoder = Decoder::new(4096);
        let (mut model, mut max): (Vec<(String, String)>, usize) = (Vec::new(), 4096);
        let size = |entries: &[(String, String)]| -> usize {
            entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
        };
        for (step, name, value, n) in steps {
            let mut block = Vec::new();
            let mut expected = Vec::new();
            match step {
                0 | 1 => {
                    block.push(0x40);
                    shortest(&mut block, name.as_bytes());
                    shortest(&mut block, value.as_bytes());
                    expected.push((name.clone(), value.clone()));
                    model.insert(0, (name, value));
                }
                2 if !model.is_empty() => {
                    let index = n % model.len();
                    if 62 + index < 127 {
                        block.push(0x80 | (62 + index) as u8);
                        expected.push(model[index].clone());
                    }
                }
                3 if n % 8 == 0 => {
                    max = n % 4097;
                    if max < 31 {
                        block.push(0x20 | max as u8);
                    } else {
                        block.push(0x3f);
                        let rest = max - 31;
                        if rest < 128 {
                            block.push(rest as u8);
                        } else {
                            block.extend([0x80 | (rest % 128) as u8, (rest / 128) as u8]);
                        }
                    }
                }
                _ => {}
            }
            while size(&model) > max {
                model.pop();
            }
            prop_assert_eq!(decode(&mut decoder, &block).unwrap(), expected);
            prop_assert_eq!(decoder.dump(), (model.clone(), size(&model)));
        }
    }
}
