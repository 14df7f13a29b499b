//! Entry point for fuzzing: it panics where a promise is broken, never on bad input.

use super::json::Json;
use super::pointer::Pointer;
use super::project::{self, Tree};
use super::records::{Form, Records};
use super::steps::{self, Step};
use super::template::{Known, Made};
use super::{form, xml};
use crate::limits;
use crate::template::Scope;

/// The first line of `data` is what is done, the rest is a body.
#[doc(hidden)]
pub fn fuzz_payload(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (told, body) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let told = String::from_utf8_lossy(told);
    if let Ok(value) = xml::read(body, &Tree::parse(["a.b"]).unwrap_or_default()) {
        read_again(&value);
    }
    if let Ok(value) = form::read(body) {
        read_again(&value);
        assert!(form::write(&value).is_ok());
    }
    records(body);
    let Ok(mut value) = Json::parse(body) else { return };
    read_again(&value);
    let steps: Vec<Step> = told.split(' ').take(8).filter_map(step).collect();
    let grown = value.weight();
    if steps::apply(&steps, &mut value, &Known::default()).is_ok() {
        assert!(value.weight() <= grown + limits::PAYLOAD_ADDED + 64 * 1024);
    }
    read_deep(&value);
}

/// Such as `m/a/*/b>/a/*/c`.
fn step(text: &str) -> Option<Step> {
    let mut chars = text.chars();
    let (kind, rest) = (chars.next()?, chars.as_str());
    let (one, two) = rest.split_once('>').unwrap_or((rest, ""));
    let pointer = Pointer::parse(one).ok()?;
    let both = || Pointer::parse(two).ok().filter(|to| steps::go_together(&pointer, to));
    let value = || {
        let scope = Scope::request([]).with_body();
        Made::compile(&Json::string(two), &scope).ok()
    };
    Some(match kind {
        'a' => Step::Add { value: value()?, at: pointer },
        'r' => Step::Replace { value: value()?, at: pointer },
        'd' => Step::Remove { at: pointer },
        'm' => Step::Move { to: both()?, from: pointer },
        'c' => Step::Copy { to: both()?, from: pointer },
        'n' => Step::Rename { at: pointer, name: two.into() },
        'u' => Step::Unwrap(pointer),
        'w' => Step::Wrap(one.into()),
        '+' => Step::Allow(Tree::parse([one.get(1..)?]).ok()?),
        '-' => {
            let tree = Tree::parse([one.get(1..)?]).ok()?;
            let mut probe = Json::Array(Vec::new());
            project::deny(&mut probe, &tree);
            Step::Deny(tree)
        }
        't' => Step::Template(value()?),
        _ => return None,
    })
}

fn read_again(value: &Json<'_>) {
    let text = value.to_vec();
    let again = Json::parse(&text).expect("what was written can be read");
    assert!(again == *value);
    assert_eq!(again.to_vec(), text);
}

/// It may nest deeper than what is read.
fn read_deep(value: &Json<'_>) {
    let text = value.to_vec();
    assert!(
        Json::parse(&text).is_ok_and(|again| again == *value) || text.len() > limits::JSON_DEPTH
    );
}

/// However it is cut, it comes to the same.
fn records(body: &[u8]) {
    for form in [Form::Lines, Form::Events] {
        let run = |step: usize| {
            let (mut records, mut out) = (Records::new(form, 256), Vec::new());
            let mut change = |record: &[u8]| match record.first() {
                Some(b'!') => Err(()),
                Some(b'-') => Ok(None),
                _ => Ok(Some(record.to_vec())),
            };
            let pieces = body.chunks(step.max(1)).map(|piece| (piece, false));
            for (piece, end) in pieces.chain([(&b""[..], true)]) {
                records.pass(piece, end, &mut change, &mut out).ok()?;
            }
            Some(out)
        };
        assert_eq!(run(body.len()), run(3));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seeds_keep_their_promises() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds/payload");
        let seeds = std::fs::read_dir(seeds).unwrap().map(|seed| seed.unwrap().path());
        for seed in seeds {
            fuzz_payload(&std::fs::read(&seed).unwrap());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_keep_them(
            told in "([ardmcnuwt+-](/[ab*-]|/0){0,3}(>(/[ab*]){0,3})? ){0,5}",
            body in crate::payload::json::tests::document(),
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            fuzz_payload(format!("{told}\n{body}").as_bytes());
            fuzz_payload(&[told.as_bytes(), b"\n", &noise].concat());
        }
    }
}
