use proptest::prelude::*;

use super::*;

/// Any document, as text of all the spellings there are.
pub fn document() -> impl Strategy<Value = String> {
    let space = || "[ \n\t]{0,2}";
    let string = prop_oneof![
        "[a-c]{0,2}".prop_map(|text| text),
        Just("\\u00e9".to_string()),
        Just("\\ud83d\\ude00".into()),
        Just("\\ud800".into()),
        Just("\\n\\/\\\"".into()),
        Just("é*".into()),
    ]
    .prop_map(|text| format!("\"{text}\""))
    .boxed();
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,4}0?)?([eE][+-]?[0-9]{1,3})?",
        Just("1234567890123456789012".to_string()),
        Just("1.10".into()),
    ];
    let words = prop_oneof![Just("null".to_string()), Just("true".into()), Just("false".into())];
    let leaf = prop_oneof![string.clone(), number, words];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        let (before, after) = (space(), space());
        let item =
            (before, inner, after).prop_map(|(b, value, a)| format!("{b}{value}{a}")).boxed();
        let member = (string.clone(), space(), item.clone())
            .prop_map(|(name, space, value)| format!("{space}{name}{space}:{value}"));
        prop_oneof![
            prop::collection::vec(item, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..5).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

fn written(text: &str) -> String {
    String::from_utf8(Json::parse(text.as_bytes()).unwrap().to_vec()).unwrap()
}

#[test]
fn what_is_not_touched_stays_as_it_is() {
    for text in [
        r#"{"z":1234567890123456789012,"a":1.10,"m":1E+2,"é":-0.0}"#,
        r#"["\u00e9\/","\ud800",{"":[]},{}]"#,
        "123",
        r#""\u0000""#,
    ] {
        assert_eq!(written(text), text);
    }
    assert_eq!(written("\u{feff} [ 1 ,\n{ \"a\" : null } ] "), r#"[1,{"a":null}]"#);
}

#[test]
fn the_last_of_two_members_of_a_name_counts() {
    assert_eq!(written(r#"{"a":1,"b":2,"\u0061":3}"#), r#"{"a":3,"b":2}"#);
    let many: Vec<_> = (0..100).map(|i| format!("\"k{i}\":{i}")).collect();
    let many = many.join(",");
    assert_eq!(
        written(&format!("{{{many},\"k\\u0033\":7}}")),
        format!("{{{many}}}").replace("\"k3\":3,", "\"k3\":7,")
    );
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "]",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "tru",
        "nul",
        "NaN",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\n\"",
        "1 2",
        "{}x",
        "{\"a\" 1}",
        "[1 2]",
        "'a'",
        "\"\\",
        "\"\\u",
    ] {
        assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(Json::parse(b"[\"\xff\"]").unwrap_err().at, 2);
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(Json::parse(deep(limits::JSON_DEPTH).as_bytes()).is_ok());
    assert!(Json::parse(deep(limits::JSON_DEPTH + 1).as_bytes()).is_err());
    assert!(Json::parse("[".repeat(1_000_000).as_bytes()).is_err());
    let many = format!("[{}0]", "0,".repeat(limits::JSON_VALUES));
    assert!(Json::parse(many.as_bytes()).is_err());
}

#[test]
fn texts_are_what_they_mean() {
    let text = Json::parse(br#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x""#).unwrap();
    let Json::String(text) = text else { panic!() };
    assert_eq!(text.decoded(), "a\"\\/\u{8}\u{c}\n\r\té😀\u{fffd}x");
    assert!(text.is("a\"\\/\u{8}\u{c}\n\r\té😀\u{fffd}x") && !text.is("a"));
    // A name with a backslash in it is not what is written with an escape.
    let Json::String(text) = Json::parse(br#""\n""#).unwrap() else { panic!() };
    assert!(text.is("\n") && !text.is("\\n"));
}

proptest! {
    #[test]
    fn what_is_read_is_written_again(text in document()) {
        let value = Json::parse(text.as_bytes()).unwrap();
        let once = value.to_vec();
        let again = Json::parse(&once).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(again.to_vec(), once.clone());
        // Nothing but space and what is there twice may go.
        prop_assert!(once.len() <= text.len());
    }

    #[test]
    fn it_reads_what_serde_reads(text in "[\\[\\]{}:,\"a0-9.e\\-nulltrefas \\\\]{0,40}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        let ours = Json::parse(text.as_bytes());
        if let Ok(theirs) = &theirs {
            let value = ours.clone().unwrap().to_vec();
            prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(&value).unwrap(), theirs);
        }
        // What only we read has a number that is too large for them, or half a pair.
        if let (Ok(_), Err(error)) = (&ours, &theirs) {
            let known = ["out of range", "surrogate", "hex escape"];
            prop_assert!(known.iter().any(|part| error.to_string().contains(part)), "{}", error);
        }
    }

    #[test]
    fn any_text_is_escaped_and_found_again(text in any::<String>()) {
        let value = Json::string(&text);
        let bytes = value.to_vec();
        let Json::String(read) = Json::parse(&bytes).unwrap() else { panic!() };
        prop_assert_eq!(read.decoded(), text.as_str());
        prop_assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), text);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Json::parse(&bytes);
    }
}
