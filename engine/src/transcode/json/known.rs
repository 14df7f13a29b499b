//! Texts of the well-known types: timestamps (RFC 3339), durations, field masks.

const DAY: i64 = 86_400;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;
/// About 10,000 years.
const LONGEST: i64 = 315_576_000_000;

/// Seconds since the Unix epoch, and nanoseconds.
pub fn read_timestamp(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let number = |from: usize, len: usize| digits(bytes.get(from..from + len)?);
    let is = |at: usize, byte: u8| (bytes.get(at) == Some(&byte)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    is(4, b'-')?;
    is(7, b'-')?;
    is(10, b'T')?;
    is(13, b':')?;
    is(16, b':')?;
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, at) = fraction(bytes, 19)?;
    let offset = match bytes.get(at)? {
        b'Z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 => {
            is(at + 3, b':')?;
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    let seconds = days_of(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    (FIRST..=LAST).contains(&seconds).then_some((seconds, nanos))
}

/// `None`: it has no text.
pub fn write_timestamp(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> Option<()> {
    if !(FIRST..=LAST).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let (year, month, day) = date_of(seconds.div_euclid(DAY));
    let rest = seconds.rem_euclid(DAY);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (rest / 3600, 2, b':'),
        (rest / 60 % 60, 2, b':'),
    ];
    for (number, width, behind) in parts {
        padded(number.unsigned_abs(), width, out);
        out.push(behind);
    }
    padded((rest % 60).unsigned_abs(), 2, out);
    write_fraction(nanos.unsigned_abs(), out);
    out.push(b'Z');
    Some(())
}

/// Seconds and nanoseconds of the same sign.
pub fn read_duration(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let bytes = text.as_bytes();
    let whole = bytes.iter().position(|b| *b == b'.').unwrap_or(bytes.len());
    if whole > 12 {
        return None;
    }
    let seconds = digits(bytes.get(..whole)?)?;
    let (nanos, end) = fraction(bytes, whole)?;
    if end != bytes.len() || seconds > LONGEST {
        return None;
    }
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// `None`: it has no text.
pub fn write_duration(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> Option<()> {
    let apart = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if apart || seconds.unsigned_abs() > LONGEST as u64 || nanos.unsigned_abs() >= 1_000_000_000 {
        return None;
    }
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    crate::message::write::decimal(out, seconds.unsigned_abs());
    write_fraction(nanos.unsigned_abs(), out);
    out.push(b's');
    Some(())
}

/// A path of a field mask as fields are called; `None`: what JSON has is not what it would be written as.
pub fn snake(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len() + 4);
    for character in path.chars() {
        match character {
            '_' => return None,
            'A'..='Z' => {
                out.push('_');
                out.push(character.to_ascii_lowercase());
            }
            other => out.push(other),
        }
    }
    Some(out)
}

/// The reverse; `None`: it would not come back.
pub fn camel(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            'A'..='Z' => return None,
            '_' => match characters.next() {
                Some(next @ 'a'..='z') => out.push(next.to_ascii_uppercase()),
                _ => return None,
            },
            other => out.push(other),
        }
    }
    Some(out)
}

fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0i64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Nanoseconds of `.123` at `at`, if there is one, and where that ends.
fn fraction(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    if bytes.get(at) != Some(&b'.') {
        return Some((0, at));
    }
    let rest = bytes.get(at + 1..)?;
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || len > 9 {
        return None;
    }
    let value = digits(rest.get(..len)?)? * 10_i64.pow(9 - len as u32);
    Some((i32::try_from(value).ok()?, at + 1 + len))
}

/// Three, six, nine digits, or none.
fn write_fraction(nanos: u32, out: &mut Vec<u8>) {
    match nanos {
        0 => return,
        _ => out.push(b'.'),
    }
    let nanos = u64::from(nanos);
    match nanos {
        _ if nanos % 1_000_000 == 0 => padded(nanos / 1_000_000, 3, out),
        _ if nanos % 1_000 == 0 => padded(nanos / 1_000, 6, out),
        _ => padded(nanos, 9, out),
    }
}

fn padded(number: u64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10_u64.pow(place) % 10) as u8);
    }
}

/// Days since the Unix epoch. The year begins in March here, so that its last day is the leap day.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timestamp(seconds: i64, nanos: i32) -> Option<String> {
        let mut out = Vec::new();
        write_timestamp(seconds, nanos, &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("0001-01-01T00:00:00Z", FIRST, 0),
            ("9999-12-31T23:59:59.999999999Z", LAST, 999_999_999),
            ("1993-02-10T00:00:00Z", 729_302_400, 0),
            ("2024-02-29T12:30:01.500Z", 1_709_209_801, 500_000_000),
            ("1969-12-31T23:59:59.000001Z", -1, 1_000),
        ] {
            assert_eq!(read_timestamp(text), Some((seconds, nanos)), "{text}");
            assert_eq!(timestamp(seconds, nanos).as_deref(), Some(text));
        }
        assert_eq!(read_timestamp("1970-01-01T08:00:01+08:00"), Some((1, 0)));
        assert_eq!(read_timestamp("1969-12-31T16:00:01-08:00"), Some((1, 0)));
        for text in [
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "0001-01-01T00:00:00",
            "0001-01-01 00:00:00Z",
            "0001-01-01T00:00:00z",
            "0001-01-01t00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00.1234567890Z",
            "",
            "2023-01-01T00:00:00+8",
            "0001-01-01T00:00:00+01:00",
            "2023-01-01T00:00:00Zx",
        ] {
            assert_eq!(read_timestamp(text), None, "{text}");
        }
        assert_eq!(timestamp(FIRST - 1, 0), None);
        assert_eq!(timestamp(0, -1), None);
    }

    #[test]
    fn durations_have_one_sign() {
        for (text, seconds, nanos) in [
            ("0s", 0, 0),
            ("1s", 1, 0),
            ("-1.500s", -1, -500_000_000),
            ("-0.500s", 0, -500_000_000),
            ("315576000000.999999999s", LONGEST, 999_999_999),
        ] {
            let mut out = Vec::new();
            write_duration(seconds, nanos, &mut out).unwrap();
            assert_eq!(
                (read_duration(text), out),
                (Some((seconds, nanos)), text.as_bytes().to_vec())
            );
        }
        for text in ["1", "s", "1.s", ".5s", "+1s", "315576000001s", "1 s", "--1s", "1.0000000000s"]
        {
            assert_eq!(read_duration(text), None, "{text}");
        }
        assert_eq!(write_duration(1, -1, &mut Vec::new()), None);
        assert_eq!(write_duration(LONGEST + 1, 0, &mut Vec::new()), None);
    }

    #[test]
    fn masks_go_both_ways_or_not_at_all() {
        assert_eq!(snake("fooBar.baz").as_deref(), Some("foo_bar.baz"));
        assert_eq!(camel("foo_bar.baz").as_deref(), Some("fooBar.baz"));
        assert_eq!(snake("foo_bar"), None);
        for path in ["fooBar", "foo_3_bar", "foo__bar", "foo_"] {
            assert_eq!(camel(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_second_has_a_text(seconds in FIRST..=LAST, nanos in 0..1_000_000_000) {
            let text = timestamp(seconds, nanos).unwrap();
            prop_assert_eq!(read_timestamp(&text), Some((seconds, nanos)), "{}", text);
        }
    }
}
